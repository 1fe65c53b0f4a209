//! Quota: how much of conntrack one endpoint may hold.
//!
//! Invariants: an endpoint's attempts are booked for as long as an attempt may be silent, so that
//! without any clean-up no endpoint has more than [`Quota::attempts`] on the books; answers take a
//! booking back. What is in the map is a limit, not a statistic: two CPUs may lose each other's
//! booking, which costs precision and no more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{SECOND, layout::shared_layout};

/// For how long an attempt is booked: as long as one may be silent.
pub const UNREPLIED_TIMEOUT: u64 = 30 * SECOND;
/// One endpoint may hold this part of a map of proven flows.
const ASSURED_SHARE: u32 = 4;
/// One endpoint may hold this part of a map of attempts.
const UNREPLIED_SHARE: u32 = 8;
/// How much smaller the place of attempts is than that of proven flows.
pub const ASSURED_PER_UNREPLIED: u32 = 2;
/// Kinds of denials of one endpoint that are told of one by one, in a burst.
pub const AGGREGATE_BURST: u64 = 1024;
/// And in the long run.
pub const AGGREGATES_PER_SECOND: u64 = 128;
/// A flow of one question and one answer keeps its entry, so one part in so many of its booking stays.
const RETAINED_SHARE: u64 = 64;

/// What one endpoint may hold, fixed when the programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Attempts of its own that nobody answered.
    pub unreplied: u32,
    /// Flows that both ends took part in, whoever opened them.
    pub assured: u32,
}

impl Quota {
    /// The quota with this capacity of the maps of proven flows.
    #[must_use]
    pub const fn of(capacity: u32) -> Self {
        Self {
            unreplied: or_one(unreplied_capacity(capacity) / UNREPLIED_SHARE),
            assured: or_one(capacity / ASSURED_SHARE),
        }
    }

    /// How far ahead one attempt is booked, in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn cost(self) -> u64 {
        UNREPLIED_TIMEOUT / self.unreplied as u64
    }
}

/// Entries of the maps of attempts, for a capacity of the maps of proven flows.
#[must_use]
pub const fn unreplied_capacity(capacity: u32) -> u32 {
    or_one(capacity / ASSURED_PER_UNREPLIED)
}

const fn or_one(number: u32) -> u32 {
    if number == 0 { 1 } else { number }
}

/// Value of `CT_USAGE`: what an endpoint holds, 24 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Usage {
    /// Tick-clock time up to which its attempts are booked.
    pub charged_until: u64,
    /// Proven entries added for it less those removed, as far as the kernel programs know: two CPUs
    /// may lose each other's count, and the agent removes entries too.
    pub assured: u64,
    /// Tick-clock time up to which kinds of its denials have been named.
    pub aggregated_until: u64,
}
shared_layout!(Usage, size 24, charged_until at 0, assured at 8, aggregated_until at 16);

/// Moves a time stamp ahead by a cost, unless it would then run further ahead of the clock than it
/// may.
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
    /// Books one attempt, if there is room.
    #[inline(always)]
    pub const fn charge(&mut self, now: u64, cost: u64) -> bool {
        charge_time(&mut self.charged_until, now, cost, UNREPLIED_TIMEOUT)
    }

    /// Whether one more kind of denial may have a line of its own.
    #[inline(always)]
    pub const fn may_aggregate(&mut self, now: u64) -> bool {
        charge_time(
            &mut self.aggregated_until,
            now,
            SECOND / AGGREGATES_PER_SECOND,
            AGGREGATE_BURST * (SECOND / AGGREGATES_PER_SECOND),
        )
    }

    /// Takes a booking back, because the attempt was answered. All of it if a connection `is_open`:
    /// the next packet moves its entry, unless that ends it.
    #[inline(always)]
    pub const fn refund(&mut self, cost: u64, is_open: bool) {
        let back = if is_open {
            cost
        } else {
            cost - cost / RETAINED_SHARE
        };
        self.charged_until = self.charged_until.saturating_sub(back);
    }

    /// By how much the count exceeds the truth, for `CT_USAGE_SWEEP`; wraps when it falls short of it.
    #[must_use]
    pub const fn excess(&self, really: u64) -> u64 {
        self.assured.wrapping_sub(really)
    }

    /// Whether one more proven entry is within the quota. `sweep_excess` is the excess at the last sweep.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(&self, sweep_excess: u64, quota: u32) -> bool {
        // Less than none is possible for a moment, while both sides count.
        self.assured.wrapping_sub(sweep_excess).cast_signed() < quota as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota::of(131_072);
    const COST: u64 = QUOTA.cost();
    const NOW: u64 = 1000 * SECOND;

    fn booked(usage: &mut Usage, now: u64) -> u32 {
        (0..2 * QUOTA.unreplied)
            .map(|_| u32::from(usage.charge(now, COST)))
            .sum()
    }

    #[test]
    fn attempts_are_limited_and_forgotten_with_time() {
        let mut usage = Usage::default();
        assert_eq!(QUOTA.unreplied, 8192);
        assert_eq!(booked(&mut usage, NOW), QUOTA.unreplied);
        assert_eq!(booked(&mut usage, NOW), 0);
        let later = NOW + UNREPLIED_TIMEOUT / 2;
        assert!(booked(&mut usage, later).abs_diff(QUOTA.unreplied / 2) <= 1);
        assert_eq!(
            booked(&mut usage, later + UNREPLIED_TIMEOUT),
            QUOTA.unreplied
        );
    }

    #[test]
    fn kinds_are_named_in_a_burst_and_then_slowly() {
        let mut usage = Usage::default();
        let mut named = |now| (0..5000).filter(|_| usage.may_aggregate(now)).count() as u64;
        assert_eq!(named(NOW), AGGREGATE_BURST);
        assert_eq!(named(NOW + SECOND), AGGREGATES_PER_SECOND);
    }

    #[test]
    fn answered_connections_cost_nothing() {
        let mut usage = Usage::default();
        for _ in 0..10 * QUOTA.unreplied {
            assert!(usage.charge(NOW, COST));
            usage.refund(COST, true);
        }
    }

    #[test]
    fn questions_and_answers_cost_little() {
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
    fn proven_entries_are_limited_less_those_swept() {
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
