//! Quota: how much of conntrack one endpoint may use.
//!
//! Invariants: an unreplied flow stays charged for its timeout, so that no endpoint exceeds
//! [`Quota::unreplied`] even if nothing is cleaned up. A reply refunds the charge. The map holds a
//! limit, not a statistic: two CPUs may overwrite each other's charge, which only costs precision.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{SECOND, layout::shared_layout};

/// How long an unreplied flow stays charged: its timeout.
pub const UNREPLIED_TIMEOUT: u64 = 30 * SECOND;
/// One endpoint may use this part of an assured map.
const ASSURED_SHARE: u32 = 4;
/// One endpoint may use this part of an unreplied map.
const UNREPLIED_SHARE: u32 = 8;
/// How much smaller an unreplied map is than an assured map.
pub const ASSURED_PER_UNREPLIED: u32 = 2;
/// Deny aggregates with peer and port of one endpoint in a burst.
pub const AGGREGATE_BURST: u64 = 1024;
/// Deny aggregates with peer and port of one endpoint per second, in the long run.
pub const AGGREGATES_PER_SECOND: u64 = 128;
/// A flow of one request and one reply keeps its entry, so this part of its charge is kept.
const RETAINED_SHARE: u64 = 64;

/// What one endpoint may use; fixed when the programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Unreplied flows that the endpoint opened.
    pub unreplied: u32,
    /// Assured entries, whichever end opened the flow.
    pub assured: u32,
}

impl Quota {
    /// The quota for this capacity of the assured maps.
    #[must_use]
    pub const fn of(capacity: u32) -> Self {
        Self {
            unreplied: or_one(unreplied_capacity(capacity) / UNREPLIED_SHARE),
            assured: or_one(capacity / ASSURED_SHARE),
        }
    }

    /// The charge for one unreplied flow, in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn cost(self) -> u64 {
        UNREPLIED_TIMEOUT / self.unreplied as u64
    }
}

/// Capacity of the unreplied maps, for a capacity of the assured maps.
#[must_use]
pub const fn unreplied_capacity(capacity: u32) -> u32 {
    or_one(capacity / ASSURED_PER_UNREPLIED)
}

const fn or_one(number: u32) -> u32 {
    if number == 0 { 1 } else { number }
}

/// Value of `CT_USAGE`: an endpoint's account of conntrack entries, 24 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Usage {
    /// Tick-clock time up to which its unreplied flows are charged.
    pub charged_until: u64,
    /// Assured entries added for it less those removed, as counted by the kernel programs. Two CPUs
    /// may overwrite each other's count, and the agent removes entries too.
    pub assured: u64,
    /// Tick-clock time up to which its deny aggregates are charged.
    pub aggregated_until: u64,
}
shared_layout!(Usage, size 24, charged_until at 0, assured at 8, aggregated_until at 16);

/// Advances a time by a cost, unless it would then be further ahead of the clock than allowed.
#[inline(always)]
const fn charge_time(stamp: &mut u64, now: u64, cost: u64, most: u64) -> bool {
    let from = if *stamp > now { *stamp } else { now };
    if from + cost > now + most {
        return false;
    }
    *stamp = from + cost;
    true
}

impl Usage {
    /// Charges one unreplied flow, if the quota allows it.
    #[inline(always)]
    pub const fn charge(&mut self, now: u64, cost: u64) -> bool {
        charge_time(&mut self.charged_until, now, cost, UNREPLIED_TIMEOUT)
    }

    /// Whether one more deny aggregate may have its own peer and port.
    #[inline(always)]
    pub const fn may_aggregate(&mut self, now: u64) -> bool {
        charge_time(
            &mut self.aggregated_until,
            now,
            SECOND / AGGREGATES_PER_SECOND,
            AGGREGATE_BURST * (SECOND / AGGREGATES_PER_SECOND),
        )
    }

    /// Refunds the charge of a flow that got a reply. In full if the connection `is_open`: its next
    /// packet moves the entry, unless that packet ends the connection.
    #[inline(always)]
    pub const fn refund(&mut self, cost: u64, is_open: bool) {
        let back = if is_open {
            cost
        } else {
            cost - cost / RETAINED_SHARE
        };
        self.charged_until = self.charged_until.saturating_sub(back);
    }

    /// By how much the count exceeds the actual number, for `CT_USAGE_SWEEP`; wraps if it is
    /// smaller.
    #[must_use]
    pub const fn excess(&self, really: u64) -> u64 {
        self.assured.wrapping_sub(really)
    }

    /// Whether one more assured entry is within the quota. `sweep_excess` is the excess at the last
    /// usage sweep.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(&self, sweep_excess: u64, quota: u32) -> bool {
        // Less than zero is possible for a moment, while both sides count.
        self.assured.wrapping_sub(sweep_excess).cast_signed() < quota as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota::of(131_072);
    const COST: u64 = QUOTA.cost();
    const NOW: u64 = 1000 * SECOND;

    fn charged(usage: &mut Usage, now: u64) -> u32 {
        (0..2 * QUOTA.unreplied)
            .map(|_| u32::from(usage.charge(now, COST)))
            .sum()
    }

    #[test]
    fn unreplied_flows_are_limited_until_they_time_out() {
        let mut usage = Usage::default();
        assert_eq!(QUOTA.unreplied, 8192);
        assert_eq!(charged(&mut usage, NOW), QUOTA.unreplied);
        assert_eq!(charged(&mut usage, NOW), 0);
        let later = NOW + UNREPLIED_TIMEOUT / 2;
        assert!(charged(&mut usage, later).abs_diff(QUOTA.unreplied / 2) <= 1);
        assert_eq!(
            charged(&mut usage, later + UNREPLIED_TIMEOUT),
            QUOTA.unreplied
        );
    }

    #[test]
    fn deny_aggregates_are_limited_to_a_burst_and_then_a_rate() {
        let mut usage = Usage::default();
        let mut named = |now| (0..5000).filter(|_| usage.may_aggregate(now)).count() as u64;
        assert_eq!(named(NOW), AGGREGATE_BURST);
        assert_eq!(named(NOW + SECOND), AGGREGATES_PER_SECOND);
    }

    #[test]
    fn the_charge_of_an_open_connection_is_refunded_in_full() {
        let mut usage = Usage::default();
        for _ in 0..10 * QUOTA.unreplied {
            assert!(usage.charge(NOW, COST));
            usage.refund(COST, true);
        }
    }

    #[test]
    fn the_charge_of_one_request_and_reply_is_mostly_refunded() {
        let mut usage = Usage::default();
        let mut given = 0;
        while usage.charge(NOW, COST) {
            usage.refund(COST, false);
            given += 1;
        }
        assert!(
            (60 * QUOTA.unreplied..70 * QUOTA.unreplied).contains(&given),
            "{given}"
        );
    }

    #[test]
    fn assured_entries_are_limited_after_the_sweep_excess_is_subtracted() {
        let usage = Usage {
            assured: 10,
            ..Usage::default()
        };
        assert!(usage.has_room(0, 11) && !usage.has_room(0, 10));
        assert!(usage.has_room(1, 10));
        assert!(usage.has_room(20, 1), "less than none");
        for really in [0_u32, 9, 10, 11] {
            let excess = usage.excess(really.into());
            assert!(usage.has_room(excess, 12) && !usage.has_room(excess, really));
        }
    }

    #[test]
    fn the_smallest_maps_leave_room_for_one() {
        assert_eq!(
            Quota::of(1),
            Quota {
                unreplied: 1,
                assured: 1
            }
        );
        assert_eq!(Quota::of(131_072).assured, 32_768);
    }
}
