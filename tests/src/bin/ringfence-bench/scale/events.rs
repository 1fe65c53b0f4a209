//! What one event costs, from the object that comes, changes or goes to the list of map writes.
//!
//! The object goes among the objects of all sources, and the reconciler publishes the result into a datapath
//! that keeps nothing. Every size has the same label sets, policies and local endpoints. Retiring what an
//! event left is not measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use ringfence::model::{
    DEFAULT_BUDGET, InventoryChanges, Labels, Namespace, NamespaceName, WallTime, Workload,
};
use ringfence::plan::GRACE;
use ringfence::policy::Modes;
use ringfence::reconcile::{Desired, Ledger, Published, Reconciler};
use ringfence::source::interfaces::Links;
use ringfence::source::{ObjectChanges, Objects, SourceId};
use ringfence_common::SECOND;
use ringfence_common::mode::Mode;
use ringfence_testbed::interrupt;
use tempfile::TempDir;

use super::measure::CpuTimer;
use super::recording::Recording;
use super::shown;
use super::world::{Edit, World, policy, workload};
use crate::report::{heading, percentile, table};

/// Numbers of workloads in the cluster.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Label sets at every size.
const SETS: usize = 1_000;
/// Workloads of the namespace that gets other labels.
const RESIDENTS: usize = 10;
/// The most CPU time of an event at the largest size.
const GOAL: Duration = Duration::from_millis(1);
/// The most that an event at the largest size may cost, relative to the smallest.
const RATIO: f64 = 1.5;
/// Events for each second of CPU time at the largest size.
const RATE: f64 = 1_000.0;
const CROWD: &str = "crowd";
/// The wall clock at the beginning.
const NOW: i64 = 1_700_000_000_000_000_000;

/// The samples of one kind of event.
type Series = (&'static str, Vec<Duration>);

/// Measures and prints.
pub(super) fn measure(rounds: usize) -> Result<()> {
    let mut sizes = Vec::new();
    for workloads in SIZES {
        sizes.push(events(workloads, rounds)?);
    }
    heading("An event, from the object to the map writes: median of the CPU time");
    let columns = [
        "",
        "1,000 workloads",
        "10,000",
        "100,000",
        "100,000 : 1,000",
        "goal",
        "",
    ];
    let mut rows = Vec::new();
    let [small, middle, large] = sizes.as_slice() else {
        return Ok(());
    };
    for (((what, small), (_, middle)), (_, large)) in small.iter().zip(middle).zip(large) {
        let median = |samples: &[Duration]| percentile(samples, 0.5);
        let ratio = median(large).as_secs_f64() / median(small).as_secs_f64();
        let is_met = median(large) <= GOAL && ratio <= RATIO;
        rows.push(vec![
            (*what).to_owned(),
            shown(median(small)),
            shown(median(middle)),
            shown(median(large)),
            format!("{ratio:.2}"),
            format!("{}, {RATIO}", shown(GOAL)),
            super::verdict(is_met),
        ]);
    }
    let rate = |size: &[Series]| {
        let samples = size.iter().flat_map(|(_, samples)| samples);
        let (count, sum) = samples.fold((0_u32, Duration::ZERO), |(count, sum), sample| {
            (count + 1, sum + *sample)
        });
        f64::from(count) / sum.as_secs_f64()
    };
    let rates = [small, middle, large].map(|size| rate(size));
    let mut row = vec!["events for each second of CPU time".to_owned()];
    row.extend(rates.map(|rate| format!("{rate:.0}")));
    row.extend([
        String::new(),
        format!("at least {RATE}"),
        super::verdict(rates.iter().all(|rate| *rate >= RATE)),
    ]);
    rows.push(row);
    table(&columns, &rows);
    Ok(())
}

/// The samples of every kind of event at one size.
fn events(workloads: usize, rounds: usize) -> Result<Vec<Series>> {
    let world = World::generate_with(workloads, SETS)?;
    let mut agent = Agent::new(&world)?;
    let near = world.policy_to_edit(true)?;
    let name = NamespaceName::new(CROWD)?;
    let crowd = |label: usize| {
        let labels = Labels::from_pairs([("env", format!("e{label}"))])?;
        Ok::<_, anyhow::Error>((name.clone(), Some(Namespace::new(name.clone(), labels)?)))
    };
    let residents = (0..RESIDENTS).map(|number| {
        let mut resident = Workload::clone(&*workload(workloads + number, number, false)?);
        resident.id.namespace = name.clone();
        Ok((resident.id.clone(), Some(Arc::new(resident))))
    });
    agent.apply(InventoryChanges {
        namespaces: vec![crowd(0)?],
        workloads: residents.collect::<Result<_>>()?,
        ..InventoryChanges::default()
    })?;
    let mut series: [Series; 6] = [
        "a workload is added",
        "a workload gets other labels",
        "a workload is gone",
        "a namespace of 10 workloads gets other labels",
        "a policy changes",
        "a policy names a new label key",
    ]
    .map(|what| (what, Vec::new()));
    for round in 0..rounds {
        interrupt::check()?;
        let number = workloads + RESIDENTS + round;
        let set = (round * 37 + 8) % SETS;
        let first = workload(number, set, false)?;
        let mut other = Workload::clone(&first);
        other.labels = workload(number, (set + 200) % SETS, false)?.labels.clone();
        let of_workload = |it: Option<Arc<Workload>>| InventoryChanges {
            workloads: vec![(first.id.clone(), it)],
            ..InventoryChanges::default()
        };
        let changes = [
            of_workload(Some(Arc::clone(&first))),
            of_workload(Some(Arc::new(other))),
            of_workload(None),
            InventoryChanges {
                namespaces: vec![crowd(round + 1)?],
                ..InventoryChanges::default()
            },
        ];
        let mut samples = Vec::new();
        for changes in changes {
            samples.push(agent.apply(changes)?);
        }
        for edit in [Edit::Port(round + 1), Edit::Key(round + 1)] {
            samples.push(agent.edit_policy(near, edit)?);
        }
        for ((_, all), sample) in series.iter_mut().zip(samples) {
            all.push(sample);
        }
    }
    Ok(series.into())
}

/// The part of an agent between its sources and the kernel.
struct Agent {
    objects: Objects,
    interfaces: Links,
    modes: Modes,
    reconciler: Reconciler<Recording>,
    /// As the agent keeps it for its listings.
    published: Option<Published>,
    _state: TempDir,
}

impl Agent {
    fn new(world: &World) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let held = &world.inventory;
        let mut objects = Objects::new(DEFAULT_BUDGET);
        let namespaces = held.namespaces.iter();
        let workloads = held.workloads.iter();
        let nodes = held.nodes.iter();
        let policies = world.policies.policies.iter();
        let inventory = InventoryChanges {
            namespaces: namespaces
                .map(|(key, it)| (key.clone(), Some(it.clone())))
                .collect(),
            workloads: workloads
                .map(|(key, it)| (key.clone(), Some(it.clone())))
                .collect(),
            nodes: nodes
                .map(|(key, it)| (key.clone(), Some(it.clone())))
                .collect(),
        };
        let policies = policies.map(|(id, policy)| (id.clone(), Some(Arc::clone(policy))));
        let policies = policies.collect();
        let changes = ObjectChanges {
            inventory,
            policies,
        };
        let applied = objects.apply(SourceId::FILES, changes);
        applied.map_err(|faults| anyhow!("{faults:?}"))?;
        ensure!(objects.over_budget().next().is_none(), "beyond the budget");
        let local = (1..).zip(
            held.workloads
                .values()
                .filter_map(|it| it.interface.clone()),
        );
        let mut agent = Self {
            objects,
            interfaces: Links::ethernet(local.map(|(index, name)| (name, index))),
            modes: Modes {
                default: Mode::Enforce,
                namespaces: BTreeMap::new(),
            },
            reconciler: Reconciler::adopt(Recording::default(), Ledger::in_dir(state.path()))?,
            published: None,
            _state: state,
        };
        agent.publish()?;
        agent.settle()?;
        Ok(agent)
    }

    fn apply(&mut self, inventory: InventoryChanges) -> Result<Duration> {
        self.take(ObjectChanges {
            inventory,
            ..ObjectChanges::default()
        })
    }

    fn edit_policy(&mut self, number: usize, edit: Edit) -> Result<Duration> {
        let edited = policy(number, edit)?;
        self.take(ObjectChanges {
            policies: vec![(edited.id(), Some(edited))],
            ..ObjectChanges::default()
        })
    }

    /// Takes changes of objects up to the map writes; returns the CPU time.
    fn take(&mut self, changes: ObjectChanges) -> Result<Duration> {
        let timer = CpuTimer::start()?;
        let applied = self.objects.apply(SourceId::FILES, changes);
        applied.map_err(|faults| anyhow!("{faults:?}"))?;
        self.publish()?;
        let took = timer.elapsed()?;
        self.settle()?;
        Ok(took)
    }

    fn publish(&mut self) -> Result<()> {
        self.reconciler.retire()?;
        let before = self.reconciler.datapath().writes;
        let passed = i64::try_from(self.reconciler.datapath().elapsed)?;
        let desired = Desired {
            inventory: self.objects.inventory(),
            policies: self.objects.policies(),
            interfaces: &self.interfaces,
            modes: &self.modes,
            locked: &[],
            is_complete: true,
            now: WallTime(NOW + passed),
        };
        let published = self.reconciler.publish(&desired)?;
        ensure!(
            published.writes <= self.reconciler.datapath().writes - before,
            "writes were not counted"
        );
        self.published = Some(published);
        Ok(())
    }

    /// Makes passes until nothing is left to retire.
    fn settle(&mut self) -> Result<()> {
        for _ in 0..5 {
            let published = self.published.as_ref().context("nothing published")?;
            if published.retire_due.is_none() {
                return Ok(());
            }
            self.reconciler.datapath().elapsed += GRACE + SECOND;
            self.publish()?;
        }
        Err(anyhow!("rows are left to retire after 5 passes"))
    }
}
