//! Indices of `STATS`, the per-CPU counters.
//!
//! Invariants: every drop reason has a counter, and a second one for packets that `observe` let
//! pass; every place where telemetry can be lost has one too. Counters only grow.

use crate::{drop_reason::DropReason, mode::Action};

/// Upper bound of reason numbers.
pub const REASONS: u8 = 64;

/// Counters other than drop reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Flow events lost because the ring buffer was full. The packets of a lost deny event wait for
    /// the next report of their aggregate.
    EventsLost = 128,
    /// Denied packets that written flow events cover.
    DeniesWritten = 129,
    /// New flows that policy allowed.
    FlowsAllowed = 130,
    /// New flows that policy denied.
    FlowsDenied = 131,
    /// Flows that were re-evaluated.
    FlowsReevaluated = 132,
    /// Flow events written.
    EventsWritten = 133,
    /// Rejected packets whose sender got a reject packet.
    RejectsSent = 134,
    /// Rejected packets whose reject packet exceeded the rate limit.
    RejectsLimited = 135,
    /// Rejected packets for which no reject packet could be sent.
    RejectsFailed = 136,
    /// Live unreplied entries that were replaced by another flow's.
    FlowsRecycled = 137,
    /// Allowed flows without an entry, because their set had no room. Their replies are denied.
    FlowsNotStored = 138,
    /// Looked-up records that were given to another key while they were read.
    RecordsRecycled = 139,
    /// Discovery messages and ARP packets from workloads that passed.
    DiscoveryPassed = 140,
}

impl Counter {
    /// Every counter with its name.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::EventsLost, "events-lost"),
        (Self::DeniesWritten, "denies-written"),
        (Self::FlowsAllowed, "flows-allowed"),
        (Self::FlowsDenied, "flows-denied"),
        (Self::FlowsReevaluated, "flows-reevaluated"),
        (Self::EventsWritten, "events-written"),
        (Self::RejectsSent, "rejects-sent"),
        (Self::RejectsLimited, "rejects-limited"),
        (Self::RejectsFailed, "rejects-failed"),
        (Self::FlowsRecycled, "flows-recycled"),
        (Self::FlowsNotStored, "flows-not-stored"),
        (Self::RecordsRecycled, "records-recycled"),
        (Self::DiscoveryPassed, "discovery-passed"),
    ];
}

/// Entries of `STATS`.
pub const STATS: u32 = 160;

/// Index of the counter of a reason.
#[must_use]
#[inline(always)]
pub const fn of_reason(reason: DropReason, action: Action) -> u32 {
    let twin = match action {
        Action::Drop => 0,
        Action::Pass => REASONS as u32,
    };
    reason as u32 + twin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_counters_share_an_index() {
        let mut seen = std::collections::HashSet::new();
        for reason in DropReason::ALL {
            assert!(seen.insert(of_reason(*reason, Action::Drop)));
            assert!(seen.insert(of_reason(*reason, Action::Pass)));
        }
        for (counter, _) in Counter::ALL {
            assert!(seen.insert(counter as u32) && (counter as u32) < STATS);
        }
    }
}
