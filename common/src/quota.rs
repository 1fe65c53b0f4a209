//! Quota: how much of conntrack one endpoint may use.
//!
//! Every entry that the hooks of an endpoint store is counted as the endpoint's, whichever end sent the
//! packet. Invariants: shares add up to half of a table, so that an endpoint within its share finds room
//! in nearly every set; a set that is full of entries within their shares stores no further flow. Over its
//! share an endpoint may use what others leave. Counts are changed by
//! atomic additions only. Nothing is denied because of a quota.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{SECOND, conntrack::unreplied::WAYS_OF_SET, layout::shared_layout};

/// How much smaller an unreplied table is than an assured map.
pub const ASSURED_PER_UNREPLIED: u32 = 4;
/// Deny aggregates with peer and port of one endpoint in a burst.
pub const AGGREGATE_BURST: u64 = 1024;
/// Deny aggregates with peer and port of one endpoint per second, in the long run.
pub const AGGREGATES_PER_SECOND: u64 = 128;
/// Discovery messages and ARP packets that a workload may send in a burst.
pub const DISCOVERY_BURST: u64 = 1024;
/// Discovery messages and ARP packets that a workload may send per second, in the long run.
pub const DISCOVERIES_PER_SECOND: u64 = 128;

/// Sets of an unreplied table for a capacity of the assured maps: a power of two, at least 16.
#[must_use]
pub const fn unreplied_sets(capacity: u32) -> u32 {
    let sets = capacity / ASSURED_PER_UNREPLIED / WAYS_OF_SET;
    if sets < 16 {
        16
    } else {
        1 << (31 - sets.leading_zeros())
    }
}

/// Value of `CT_SHARE`: what one endpoint may use, of both address families together, 16 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Share {
    /// Unreplied entries.
    pub unreplied: u32,
    /// Assured entries.
    pub assured: u32,
    /// Assured entries of all endpoints up to which an endpoint may exceed its share.
    pub assured_total: u32,
    /// Zero.
    pub reserved: u32,
}
shared_layout!(Share, size 16, unreplied at 0, assured at 4, assured_total at 8);

impl Share {
    /// The share of each of this many endpoints, for a capacity of each assured map. It is computed from
    /// the tables of one family, so that one family alone cannot exceed half of its table.
    #[must_use]
    pub const fn of(capacity: u32, endpoints: u32) -> Self {
        let endpoints = or_one(endpoints);
        let ways = unreplied_sets(capacity) * WAYS_OF_SET;
        Self {
            unreplied: or_one(ways / 2 / endpoints),
            assured: or_one(capacity / 2 / endpoints),
            assured_total: capacity / 2,
            reserved: 0,
        }
    }
}

const fn or_one(number: u32) -> u32 {
    if number == 0 { 1 } else { number }
}

/// Value of `CT_USAGE`: an endpoint's account of conntrack entries of both families, 32 bytes. That
/// of endpoint number 0 counts the assured entries of all.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Usage {
    /// Ways of the unreplied tables that hold an entry of the endpoint, dead ones included.
    pub unreplied: u64,
    /// Assured entries.
    pub assured: u64,
    /// Tick-clock time up to which its deny aggregates are charged.
    pub aggregated_until: u64,
    /// Tick-clock time at which a live unreplied entry of the endpoint was last replaced, or a flow that
    /// is allowed could not be stored.
    pub recycled: u64,
}
shared_layout!(
    Usage, size 32, unreplied at 0, assured at 8, aggregated_until at 16, recycled at 24,
);

/// Value of `CT_USAGE_SWEEP`: by how much a [`Usage`] exceeded the entries that the agent's last
/// sweep found, 16 bytes. Wraps if it was smaller.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Excess {
    /// Of [`Usage::unreplied`].
    pub unreplied: u64,
    /// Of [`Usage::assured`].
    pub assured: u64,
}
shared_layout!(Excess, size 16, unreplied at 0, assured at 8);

/// Whether a count, corrected by the excess that the last sweep found, has reached a limit. Less
/// than zero is possible for a moment, while both sides count.
#[inline(always)]
#[must_use]
pub const fn is_over(counted: u64, excess: u64, limit: u32) -> bool {
    counted.wrapping_sub(excess).cast_signed() >= limit as i64
}

/// How far one more deny aggregate with its own peer and port moves [`Usage::aggregated_until`];
/// `None` if the rate is exceeded. Several CPUs may exceed it by one aggregate each.
#[inline(always)]
#[must_use]
pub const fn charge_aggregate(until: u64, now: u64) -> Option<u64> {
    charge(until, now, AGGREGATES_PER_SECOND, AGGREGATE_BURST)
}

/// The same for one more discovery message or ARP packet of a workload, and its value of
/// `DISCOVERY_LIMITS`. A neighbour is asked for again every 15 seconds at most, so the rate is that
/// of 1,900 neighbours.
#[inline(always)]
#[must_use]
pub const fn charge_discovery(until: u64, now: u64) -> Option<u64> {
    charge(until, now, DISCOVERIES_PER_SECOND, DISCOVERY_BURST)
}

/// How far one more event moves the tick-clock time up to which an account is charged; `None` if it is
/// not allowed.
#[inline(always)]
const fn charge(until: u64, now: u64, per_second: u64, burst: u64) -> Option<u64> {
    let cost = SECOND / per_second;
    let from = if until > now { until } else { now };
    if from + cost > now + burst * cost {
        return None;
    }
    Some(from + cost - until)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1000 * SECOND;

    #[test]
    fn shares_add_up_to_half_of_each_table() {
        for endpoints in [1, 2, 30, 110, 4096] {
            let share = Share::of(131_072, endpoints);
            assert!(share.assured * endpoints <= 65_536 && share.assured > 0);
            assert!(share.unreplied * endpoints <= 16_384 && share.unreplied > 0);
        }
        assert_eq!(Share::of(131_072, 0), Share::of(131_072, 1));
        assert_eq!(Share::of(1, 4096).unreplied, 1, "the smallest table");
    }

    #[test]
    fn the_sets_of_a_table_are_a_power_of_two() {
        assert_eq!(unreplied_sets(131_072), 4096);
        assert_eq!(unreplied_sets(1), 16);
        assert_eq!(unreplied_sets(100_000), 2048);
    }

    #[test]
    fn a_count_is_corrected_by_what_the_sweep_found() {
        assert!(is_over(10, 0, 10) && !is_over(10, 0, 11));
        assert!(!is_over(10, 1, 10));
        assert!(!is_over(10, 20, 1), "less than none");
        assert!(
            is_over(5, 0_u64.wrapping_sub(5), 10),
            "more than were counted"
        );
    }

    #[test]
    fn deny_aggregates_are_limited_to_a_burst_and_then_a_rate() {
        let mut until = 0;
        let mut named = |now| {
            let mut given = 0;
            while let Some(step) = charge_aggregate(until, now) {
                until += step;
                given += 1;
            }
            given
        };
        assert_eq!(named(NOW), AGGREGATE_BURST);
        assert_eq!(named(NOW + SECOND), AGGREGATES_PER_SECOND);
    }
}
