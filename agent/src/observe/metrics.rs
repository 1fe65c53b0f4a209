//! Metrics for Prometheus, in the OpenMetrics text format.
//!
//! Invariants: label values are namespaces, workloads and fixed words, never addresses or ports, so
//! the inventory bounds the number of series; the kernel's counters are exported as totals, never
//! counted a second time. `server` serves the page.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use ringfence_common::drop_reason::DropReason;
use ringfence_common::mode::{Direction, Mode};

use super::flow::{FlowRecord, FlowVerdict};
use crate::model::{NamespaceName, Owner, WorkloadId};

mod collect;

/// Totals that the kernel programs keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelTotals {
    /// For each reason: packets dropped, and packets that passed in `observe` mode.
    pub drops: Vec<(DropReason, u64, u64)>,
    /// Flow events lost because the ring was full.
    pub events_lost: u64,
    /// Denied packets whose deny aggregate was evicted before an event reported them.
    pub denies_lost: u64,
    /// Rejected packets by the outcome of their reject packet.
    pub rejects: [(&'static str, u64); 3],
    /// Unreplied flows whose entry was replaced or not stored.
    pub forgotten: [(&'static str, u64); 2],
    /// Looked-up records that were given to another key while they were read.
    pub records_recycled: u64,
    /// Discovery messages and ARP packets of workloads that passed.
    pub discovery_passed: u64,
    /// Entries and capacity of maps, by name.
    pub maps: Vec<(&'static str, u64, u64)>,
}

/// Sizes of the applied state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Endpoints for each namespace and mode.
    pub endpoints: Vec<(NamespaceName, Mode, u64)>,
    /// Identities.
    pub identities: u64,
    /// Policies in force.
    pub policies: u64,
    /// Policies that are not, because the kernel's maps have no room for them.
    pub policies_without_room: u64,
    /// Namespaces whose Services are denied for the same reason.
    pub services_without_room: u64,
    /// Addresses that several claim, none of them with more right.
    pub unknown_addresses: u64,
    /// Rows in the kernel's policy map.
    pub policy_rows: u64,
    /// The revision in force.
    pub revision: u64,
}

/// Where the agent itself loses flow records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossStage {
    /// The decoder refused the event.
    Decode,
    /// A follower was too slow.
    Follower,
    /// The flow log could not be written.
    Log,
}

/// Flow records of one workload.
type Flows = BTreeMap<(Direction, FlowVerdict), u64>;
type SourceLabel = [(&'static str, &'static str); 1];

#[derive(Debug, Clone, Default)]
struct Totals {
    kernel: KernelTotals,
    state: State,
    /// `None` are records without a workload.
    flows: HashMap<Option<WorkloadId>, Flows>,
    lost: HashMap<LossStage, u64>,
    unfenced: Vec<(&'static str, u64)>,
    degraded: Vec<(&'static str, u64)>,
    repairs: Vec<(&'static str, u64)>,
    refused_files: [(&'static str, u64); 3],
}

/// Every metric of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    totals: Arc<Mutex<Totals>>,
    publish: Histogram,
    reload_errors: Family<SourceLabel, Counter>,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::default();
        let totals = Arc::new(Mutex::new(Totals::default()));
        let publish = Histogram::new(exponential_buckets(0.000_25, 2.0, 14));
        let reload_errors = Family::<SourceLabel, Counter>::default();
        registry.register(
            "ringfence_build",
            "Version of this agent",
            Info::new([("version", version)]),
        );
        registry.register(
            "ringfence_publish_seconds",
            "Time from a change of the desired state to its enforcement",
            publish.clone(),
        );
        registry.register(
            "ringfence_reload_errors",
            "Refused changes of source files",
            reload_errors.clone(),
        );
        registry.register_collector(Box::new(Snapshot(Arc::clone(&totals))));
        Self {
            registry,
            totals,
            publish,
            reload_errors,
        }
    }

    /// Counts a batch of flow records.
    pub fn count_flows(&self, batch: &[Arc<FlowRecord>]) {
        let mut totals = lock(&self.totals);
        for record in batch {
            let owner = record.local().owner.as_ref().and_then(Owner::workload);
            let owner = owner.map(|workload| workload.id.clone());
            let flows = totals.flows.entry(owner).or_default();
            *flows.entry((record.direction, record.verdict)).or_default() += 1;
        }
    }

    /// Removes the series of workloads that are gone.
    pub fn remove_workloads(&self, gone: impl IntoIterator<Item = WorkloadId>) {
        let mut totals = lock(&self.totals);
        for workload in gone {
            totals.flows.remove(&Some(workload));
        }
    }

    /// Sets the kernel's totals.
    pub fn set_kernel(&self, kernel: KernelTotals) {
        lock(&self.totals).kernel = kernel;
    }

    /// Sets the sizes of the applied state.
    pub fn set_state(&self, state: State) {
        lock(&self.totals).state = state;
    }

    /// Sets the number of workloads of this node without a fence, by reason.
    pub fn set_unfenced(&self, unfenced: Vec<(&'static str, u64)>) {
        lock(&self.totals).unfenced = unfenced;
    }

    /// Sets the number of degraded fences, by reason.
    pub fn set_degraded(&self, degraded: Vec<(&'static str, u64)>) {
        lock(&self.totals).degraded = degraded;
    }

    /// Sets how often something was put right that was changed behind the agent's back, by kind.
    pub fn set_repairs(&self, repairs: Vec<(&'static str, u64)>) {
        lock(&self.totals).repairs = repairs;
    }

    /// Sets the number of source files that are refused now, by what of them is in force.
    pub fn set_refused_files(&self, refused: [(&'static str, u64); 3]) {
        lock(&self.totals).refused_files = refused;
    }

    /// Sets the total number of records that a stage has lost.
    pub fn set_lost(&self, stage: LossStage, total: u64) {
        lock(&self.totals).lost.insert(stage, total);
    }

    /// Records how long a publish took.
    pub fn observe_publish(&self, took: Duration) {
        self.publish.observe(took.as_secs_f64());
    }

    /// Counts a refused change; `source` is a fixed word such as `policies`, never a path.
    pub fn count_reload_error(&self, source: &'static str) {
        self.reload_errors
            .get_or_create(&[("source", source)])
            .inc();
    }

    /// The page that Prometheus reads.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut page, &self.registry) {
            tracing::error!("cannot encode metrics: {error}");
        }
        page
    }
}

fn lock(totals: &Mutex<Totals>) -> MutexGuard<'_, Totals> {
    totals.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Snapshot(Arc<Mutex<Totals>>);

impl Collector for Snapshot {
    fn encode(
        &self,
        encoder: prometheus_client::encoding::DescriptorEncoder,
    ) -> Result<(), std::fmt::Error> {
        // A copy: counting does not wait until a page is written.
        let totals = lock(&self.0).clone();
        collect::encode(&totals, encoder)
    }
}

#[cfg(test)]
mod tests;
