//! Reads the kernel's telemetry: flow events, counters, rule hits and deny aggregates.
//!
//! Invariants: reading changes nothing in the kernel but the ring's read position; an event of an
//! unexpected size is counted as malformed, never interpreted.

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use ringfence_common::{
    deny_aggregate::{self, DenyCount, DenyKey},
    drop_reason::DropReason,
    event::FlowEvent,
    ids::RuleSlot,
    maps::{self, RuleHit},
    mode::Action,
    stats::{Counter, of_reason},
};
use zerocopy::FromBytes as _;

use super::{
    DatapathError,
    maps::{failed, open},
    pins::Pins,
};

/// Sums over all CPUs since the maps were created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By reason: packets dropped, and packets that passed in `observe` mode.
    pub drops: Vec<(DropReason, u64, u64)>,
    /// Flow events lost because the ring was full.
    pub events_lost: u64,
    /// Flow events written.
    pub events_written: u64,
    /// New flows that policy allowed.
    pub flows_allowed: u64,
    /// New flows that policy denied.
    pub flows_denied: u64,
    /// Flows re-evaluated.
    pub flows_reevaluated: u64,
    /// Rejected packets for which a reject packet was sent.
    pub rejects_sent: u64,
    /// Rejected packets without a reject packet, because the rate limit was reached.
    pub rejects_limited: u64,
    /// Rejected packets without a reject packet, because it could not be sent.
    pub rejects_failed: u64,
    /// Live unreplied entries replaced by another flow's.
    pub flows_recycled: u64,
    /// Allowed flows without an entry, because there was no room for one.
    pub flows_not_stored: u64,
    /// Looked-up records that were given to another key while they were read.
    pub records_recycled: u64,
    /// Discovery messages and ARP packets of workloads that passed.
    pub discovery_passed: u64,
}

/// How denied packets are reported, whether they were dropped or passed. The three numbers add up
/// to all denied packets; `lost` may be a few short while packets are being denied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Denials {
    /// Reported in events written to the ring.
    pub written: u64,
    /// Counted in a deny aggregate, to be reported in its next event.
    pub waiting: u64,
    /// Never reported: their deny aggregate was evicted before its next event.
    pub lost: u64,
}

/// Handles of the maps that the kernel reports in. The two parts are independent of each other, so
/// that a slow reading of the one does not delay the other.
pub struct Telemetry {
    /// The ring of flow events, which has one reader.
    pub events: FlowEvents,
    /// Everything that can be read at any time, by any number of threads.
    pub readings: Readings,
}

/// The ring of flow events.
pub struct FlowEvents {
    ring: RingBuf<MapData>,
    malformed: u64,
}

/// Counters, rule hits and deny aggregates.
pub struct Readings {
    denies: HashMap<MapData, DenyKey, DenyCount>,
    stats: PerCpuArray<MapData, u64>,
    hits: PerCpuArray<MapData, RuleHit>,
}

impl Telemetry {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            events: FlowEvents {
                ring: open(pins, maps::EVENTS)?,
                malformed: 0,
            },
            readings: Readings {
                denies: open(pins, maps::DENIES)?,
                stats: open(pins, maps::STATS)?,
                hits: open(pins, maps::RULE_HITS)?,
            },
        })
    }
}

impl FlowEvents {
    /// Takes up to `most` events off the ring.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&FlowEvent)) -> usize {
        let mut taken = 0;
        while taken < most
            && let Some(record) = self.ring.next()
        {
            taken += 1;
            match FlowEvent::read_from_bytes(&record) {
                Ok(event) => each(&event),
                Err(_) => self.malformed += 1,
            }
        }
        taken
    }

    /// Events that did not have the expected size.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl Readings {
    /// Reads every counter.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        let mut drops = Vec::new();
        for reason in DropReason::ALL {
            let dropped = self.counter(of_reason(*reason, Action::Drop))?;
            let observed = self.counter(of_reason(*reason, Action::Pass))?;
            drops.push((*reason, dropped, observed));
        }
        Ok(Counters {
            drops,
            events_lost: self.counter(Counter::EventsLost as u32)?,
            events_written: self.counter(Counter::EventsWritten as u32)?,
            flows_allowed: self.counter(Counter::FlowsAllowed as u32)?,
            flows_denied: self.counter(Counter::FlowsDenied as u32)?,
            flows_reevaluated: self.counter(Counter::FlowsReevaluated as u32)?,
            rejects_sent: self.counter(Counter::RejectsSent as u32)?,
            rejects_limited: self.counter(Counter::RejectsLimited as u32)?,
            rejects_failed: self.counter(Counter::RejectsFailed as u32)?,
            flows_recycled: self.counter(Counter::FlowsRecycled as u32)?,
            flows_not_stored: self.counter(Counter::FlowsNotStored as u32)?,
            records_recycled: self.counter(Counter::RecordsRecycled as u32)?,
            discovery_passed: self.counter(Counter::DiscoveryPassed as u32)?,
        })
    }

    /// Accounts for every denied packet; walks the map of deny aggregates.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn denials(&self) -> Result<Denials, DatapathError> {
        let mut denied = 0;
        for reason in DropReason::ALL {
            for action in [Action::Drop, Action::Pass] {
                denied += self.counter(of_reason(*reason, action))?;
            }
        }
        let waiting = self.waiting();
        let written = self.counter(Counter::DeniesWritten as u32)?;
        let waiting = waiting.unwrap_or_else(|| denied.saturating_sub(written));
        Ok(Denials {
            written,
            waiting,
            lost: deny_aggregate::lost(denied, waiting, written),
        })
    }

    /// Sums the packets waiting in deny aggregates. A walk starts over if the aggregate it is at is
    /// evicted; `None` if aggregates change so fast that the walk would not end.
    fn waiting(&self) -> Option<u64> {
        let mut seen = std::collections::HashMap::new();
        let mut visits = 0;
        for (key, count) in self.denies.iter().filter_map(Result::ok) {
            seen.insert(key, count.waiting());
            visits += 1;
            if visits > 2 * seen.len() + 1024 {
                return None;
            }
        }
        Some(seen.values().sum())
    }

    fn counter(&self, index: u32) -> Result<u64, DatapathError> {
        let values = self
            .stats
            .get(&index, 0)
            .map_err(failed(maps::STATS, "read a counter"))?;
        Ok(values.iter().sum())
    }

    /// Hits of a rule over all CPUs, and the tick-clock time of the last.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn rule_hits(&self, slot: RuleSlot) -> Result<RuleHit, DatapathError> {
        let values = self
            .hits
            .get(&slot.0, 0)
            .map_err(failed(maps::RULE_HITS, "read a rule"))?;
        Ok(values.iter().fold(RuleHit::default(), |sum, hit| RuleHit {
            hits: sum.hits + hit.hits,
            last: sum.last.max(hit.last),
        }))
    }
}
