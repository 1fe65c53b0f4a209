//! The recorded originator of a flow whose packets do not show who opened it (UDP, SCTP, raw protocols).
//!
//! Each direction is evaluated as an originator. A packet whose own direction is allowed passes; a packet
//! of the other side passes as a reply only if the *recorded* originator is allowed now. Invariants: a
//! revoked originator stays recorded while it sends, so that a server that streams on does not turn the
//! revoked client's packets into replies; an originator that policy never allowed, or that held the
//! address before its present owner, gives way at once. The truth table is ADR 16.

use super::{COARSE_BITS, CtEntry, flags};

/// What becomes of a packet of the side that did not open the flow, when policy denies the originator
/// and allows the sender's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reversal {
    /// It passes, and the sender becomes the originator.
    TakesOver,
    /// It passes by itself; the entry stays as it is.
    PassesAlone,
}

/// Whether the sender takes the flow over. `owner` is the present owner number of the peer's
/// address, `now` the tick clock, `timeout` the entry's timeout; both in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn reversal(entry: &CtEntry, owner: u32, now: u64, timeout: u64) -> Reversal {
    let is_same_owner = entry.owner as u32 == owner & 0xffff;
    let was_allowed = entry.flags & flags::WAS_ALLOWED != 0 && is_same_owner;
    let silent = coarse(now).wrapping_sub(entry.originator_seen);
    // Less than zero if another CPU has just stored a later time.
    let was_silent = silent < u32::MAX / 2 && (silent as u64) << COARSE_BITS >= timeout;
    if was_allowed && !was_silent {
        Reversal::PassesAlone
    } else {
        Reversal::TakesOver
    }
}

/// A tick-clock time in units of [`super::COARSE`].
#[inline(always)]
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    reason = "a time that wraps after nine years"
)]
pub const fn coarse(now: u64) -> u32 {
    (now >> COARSE_BITS) as u32
}

/// Whether a new time of the originator's last packet is worth a store: at most once a second.
#[inline(always)]
#[must_use]
pub const fn worth_storing(stored: u32, now: u32) -> bool {
    now.wrapping_sub(stored) as u64 >= crate::SECOND >> COARSE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SECOND;

    const TIMEOUT: u64 = 180 * SECOND;

    fn entry(flags: u8, seen: u64) -> CtEntry {
        CtEntry {
            flags,
            owner: 7,
            originator_seen: coarse(seen),
            ..CtEntry::default()
        }
    }

    #[test]
    fn a_revoked_originator_stays_recorded_until_it_was_silent_for_a_timeout() {
        let seen = 1000 * SECOND;
        let revoked = entry(flags::WAS_ALLOWED, seen);
        for late in [0, SECOND, TIMEOUT - SECOND] {
            let decided = reversal(&revoked, 7, seen + late, TIMEOUT);
            assert_eq!(decided, Reversal::PassesAlone, "{late}");
        }
        let decided = reversal(&revoked, 7, seen + TIMEOUT + SECOND, TIMEOUT);
        assert_eq!(decided, Reversal::TakesOver);
        let behind = reversal(&revoked, 7, seen - SECOND, TIMEOUT);
        assert_eq!(behind, Reversal::PassesAlone, "another CPU was faster");
    }

    #[test]
    fn an_originator_that_was_never_allowed_or_is_another_owner_gives_way() {
        let now = 1000 * SECOND;
        let observed = entry(0, now);
        assert_eq!(reversal(&observed, 7, now, TIMEOUT), Reversal::TakesOver);
        let former = entry(flags::WAS_ALLOWED, now);
        assert_eq!(reversal(&former, 8, now, TIMEOUT), Reversal::TakesOver);
    }
}
