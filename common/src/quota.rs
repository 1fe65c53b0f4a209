//! Quota: how much of conntrack one endpoint may hold.
//!
//! Invariants: an endpoint's attempts are booked for as long as an attempt may be silent, so that
//! without any clean-up no endpoint has more than [`Quota::attempts`] on the books; answers take a
//! booking back. What is in the map is a limit, not a statistic: two CPUs may lose each other's
//! booking, which costs precision and no more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{SECOND, pod::shared_layout};

/// For how long an attempt is booked: as long as one may be silent.
pub const PATIENCE: u64 = 30 * SECOND;
/// One endpoint may hold this part of a map of proven flows.
const PROVEN_SHARE: u32 = 4;
/// One endpoint may hold this part of a map of attempts.
const ATTEMPTS_SHARE: u32 = 8;
/// How much smaller the place of attempts is than that of proven flows.
pub const PROVEN_PER_ATTEMPT: u32 = 2;
/// Kinds of denials of one endpoint that are told of one by one, in a burst.
pub const KINDS_AT_ONCE: u64 = 1024;
/// And in the long run.
pub const KINDS_PER_SECOND: u64 = 128;
/// A flow of one question and one answer keeps its entry, so one part in so many of its booking stays.
const KEPT: u64 = 64;

/// What one endpoint may hold, fixed when the programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Attempts of its own that nobody answered.
    pub attempts: u32,
    /// Flows that both ends took part in, whoever opened them.
    pub proven: u32,
}

impl Quota {
    /// The quota with this capacity of the maps of proven flows.
    #[must_use]
    pub const fn of(capacity: u32) -> Self {
        Self {
            attempts: or_one(attempts_capacity(capacity) / ATTEMPTS_SHARE),
            proven: or_one(capacity / PROVEN_SHARE),
        }
    }

    /// How far ahead one attempt is booked, in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn price(self) -> u64 {
        PATIENCE / self.attempts as u64
    }
}

/// Entries of the maps of attempts, for a capacity of the maps of proven flows.
#[must_use]
pub const fn attempts_capacity(capacity: u32) -> u32 {
    or_one(capacity / PROVEN_PER_ATTEMPT)
}

const fn or_one(number: u32) -> u32 {
    if number == 0 { 1 } else { number }
}

/// Value of `HOLDINGS`: what an endpoint holds, 24 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Holding {
    /// Tick-clock time up to which its attempts are booked.
    pub booked: u64,
    /// Proven entries added for it less those removed, as far as the kernel programs know: two CPUs
    /// may lose each other's count, and the agent removes entries too.
    pub proven: u64,
    /// Tick-clock time up to which kinds of its denials have been named.
    pub named: u64,
}
shared_layout!(Holding, size 24, booked at 0, proven at 8, named at 16);

/// Moves a time stamp ahead by a price, unless it would then run further ahead of the clock than it
/// may.
#[inline(always)]
const fn ahead(stamp: &mut u64, now: u64, price: u64, most: u64) -> bool {
    let from = if *stamp > now { *stamp } else { now };
    if from + price > now + most {
        return false;
    }
    *stamp = from + price;
    true
}

impl Holding {
    /// Books one attempt, if there is room.
    #[inline(always)]
    pub const fn book(&mut self, now: u64, price: u64) -> bool {
        ahead(&mut self.booked, now, price, PATIENCE)
    }

    /// Whether one more kind of denial may have a line of its own.
    #[inline(always)]
    pub const fn name(&mut self, now: u64) -> bool {
        ahead(
            &mut self.named,
            now,
            SECOND / KINDS_PER_SECOND,
            KINDS_AT_ONCE * (SECOND / KINDS_PER_SECOND),
        )
    }

    /// Takes a booking back, because the attempt was answered. All of it if a connection `has_begun`:
    /// the next packet moves its entry, unless that ends it.
    #[inline(always)]
    pub const fn answered(&mut self, price: u64, has_begun: bool) {
        let back = if has_begun {
            price
        } else {
            price - price / KEPT
        };
        self.booked = self.booked.saturating_sub(back);
    }

    /// By how much the count exceeds the truth, for `SWEPT`; wraps when it falls short of it.
    #[must_use]
    pub const fn excess(&self, really: u64) -> u64 {
        self.proven.wrapping_sub(really)
    }

    /// Whether one more proven entry is within the quota. `swept` is the excess at the last sweep.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(&self, swept: u64, quota: u32) -> bool {
        // Less than none is possible for a moment, while both sides count.
        self.proven.wrapping_sub(swept).cast_signed() < quota as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota::of(131_072);
    const PRICE: u64 = QUOTA.price();
    const NOW: u64 = 1000 * SECOND;

    fn booked(holding: &mut Holding, now: u64) -> u32 {
        (0..2 * QUOTA.attempts)
            .map(|_| u32::from(holding.book(now, PRICE)))
            .sum()
    }

    #[test]
    fn attempts_are_limited_and_forgotten_with_time() {
        let mut holding = Holding::default();
        assert_eq!(QUOTA.attempts, 8192);
        assert_eq!(booked(&mut holding, NOW), QUOTA.attempts);
        assert_eq!(booked(&mut holding, NOW), 0);
        let later = NOW + PATIENCE / 2;
        assert!(booked(&mut holding, later).abs_diff(QUOTA.attempts / 2) <= 1);
        assert_eq!(booked(&mut holding, later + PATIENCE), QUOTA.attempts);
    }

    #[test]
    fn kinds_are_named_in_a_burst_and_then_slowly() {
        let mut holding = Holding::default();
        let mut named = |now| (0..5000).filter(|_| holding.name(now)).count() as u64;
        assert_eq!(named(NOW), KINDS_AT_ONCE);
        assert_eq!(named(NOW + SECOND), KINDS_PER_SECOND);
    }

    #[test]
    fn answered_connections_cost_nothing() {
        let mut holding = Holding::default();
        for _ in 0..10 * QUOTA.attempts {
            assert!(holding.book(NOW, PRICE));
            holding.answered(PRICE, true);
        }
    }

    #[test]
    fn questions_and_answers_cost_little() {
        let mut holding = Holding::default();
        let mut given = 0;
        while holding.book(NOW, PRICE) {
            holding.answered(PRICE, false);
            given += 1;
        }
        assert!(
            (60 * QUOTA.attempts..70 * QUOTA.attempts).contains(&given),
            "{given}"
        );
    }

    #[test]
    fn proven_entries_are_limited_less_those_swept() {
        let holding = Holding {
            proven: 10,
            ..Holding::default()
        };
        assert!(holding.has_room(0, 11) && !holding.has_room(0, 10));
        assert!(holding.has_room(1, 10));
        assert!(holding.has_room(20, 1), "less than none");
        for really in [0_u32, 9, 10, 11] {
            let excess = holding.excess(really.into());
            assert!(holding.has_room(excess, 12) && !holding.has_room(excess, really));
        }
    }

    #[test]
    fn the_smallest_maps_leave_room_for_one() {
        assert_eq!(
            Quota::of(1),
            Quota {
                attempts: 1,
                proven: 1
            }
        );
        assert_eq!(Quota::of(131_072).proven, 32_768);
    }
}
