//! What the kernel tells: flow records, counters, rule hits and sizes of maps.
//!
//! Invariants: reading changes nothing in the kernel but the ring's read position; a record of an
//! unexpected size is counted, not guessed at.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
};
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
    maps::{failed, take},
};

/// Sums over all CPUs since the maps were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By reason: packets dropped, and packets that `observe` let pass.
    pub drops: Vec<(DropReason, u64, u64)>,
    /// Flow records lost because the ring was full.
    pub events_lost: u64,
    /// Flow records written.
    pub events_written: u64,
    /// New flows that policy allowed.
    pub flows_allowed: u64,
    /// New flows that policy denied.
    pub flows_denied: u64,
    /// Flows judged again.
    pub flows_rejudged: u64,
    /// Rejected packets whose sender was told.
    pub rejects_answered: u64,
    /// Rejected packets whose sender had been told too often.
    pub rejects_limited: u64,
    /// Rejected packets that could not be answered.
    pub rejects_unanswered: u64,
}

/// What became of the packets that were denied, dropped or not. The three add up to all of them; a
/// few may be missing from `lost` while packets are being denied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Denials {
    /// Told of in records that were written to the ring.
    pub written: u64,
    /// To be told of in the next record of their kind.
    pub waiting: u64,
    /// Never to be told of: their kind made room for others before its next record.
    pub lost: u64,
}

/// Handles of everything the kernel reports in.
pub struct Telemetry {
    events: RingBuf<MapData>,
    denies: HashMap<MapData, DenyKey, DenyCount>,
    stats: PerCpuArray<MapData, u64>,
    hits: PerCpuArray<MapData, RuleHit>,
    malformed: u64,
}

impl Telemetry {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            events: take(ebpf, maps::EVENTS)?,
            denies: take(ebpf, maps::DENIES)?,
            stats: take(ebpf, maps::STATS)?,
            hits: take(ebpf, maps::RULE_HITS)?,
            malformed: 0,
        })
    }

    /// Takes up to `most` records off the ring.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&FlowEvent)) -> usize {
        let mut taken = 0;
        while taken < most
            && let Some(record) = self.events.next()
        {
            taken += 1;
            match FlowEvent::read_from_bytes(&record) {
                Ok(event) => each(&event),
                Err(_) => self.malformed += 1,
            }
        }
        taken
    }

    /// Records that were not of the expected size.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

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
            flows_rejudged: self.counter(Counter::FlowsReevaluated as u32)?,
            rejects_answered: self.counter(Counter::RejectsSent as u32)?,
            rejects_limited: self.counter(Counter::RejectsLimited as u32)?,
            rejects_unanswered: self.counter(Counter::RejectsFailed as u32)?,
        })
    }

    /// Accounts for every denied packet; walks the map of kinds.
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

    /// Walks the kinds. A walk starts over when the kind it stands at is gone; `None` if it would
    /// not come to an end, because kinds come and go too fast.
    fn waiting(&self) -> Option<u64> {
        let mut seen = std::collections::HashMap::new();
        let mut steps = 0;
        for (key, count) in self.denies.iter().filter_map(Result::ok) {
            seen.insert(key, count.waiting());
            steps += 1;
            if steps > 2 * seen.len() + 1024 {
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

    /// Hits of a rule over all CPUs, and the boot-clock time of the last.
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
