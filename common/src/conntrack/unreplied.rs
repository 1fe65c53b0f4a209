//! `CT_UNREPLIED4` and `CT_UNREPLIED6`: the entries of flows that are not assured, in sets of eight.
//!
//! A flow's key decides its set; within the set it may be in any way. The header of a set has a word
//! for each way with what a search or a replacement needs, in one cache line. Invariants: an
//! endpoint over its share replaces its own entries and leaves free ways to others; an endpoint
//! within its share never loses an entry to another, and may replace those of endpoints over
//! theirs. So no flood costs another endpoint its flows. A way's word says nothing about verdicts:
//! key and seal of its body are checked.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{CtEntry, CtKey4, CtKey6, coarse_expiry};
use crate::layout::shared_layout;

/// Ways of a set.
pub const WAYS: usize = 8;
/// The same as a number of map entries.
pub const WAYS_OF_SET: u32 = 8;
/// Free ways of a set that an endpoint over its share leaves to others.
pub const RESERVED_WAYS: u32 = 2;
/// Bits of an endpoint number in a word.
pub const OWNER_BITS: u32 = 14;

/// A way of `CT_UNREPLIED4`, 88 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtWay4 {
    /// The flow's key.
    pub key: CtKey4,
    /// Zero.
    pub reserved: u32,
    /// Its entry.
    pub entry: CtEntry,
}
shared_layout!(CtWay4, size 88, key at 0, entry at 24);

/// A way of `CT_UNREPLIED6`, 112 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtWay6 {
    /// The flow's key.
    pub key: CtKey6,
    /// Its entry.
    pub entry: CtEntry,
}
shared_layout!(CtWay6, size 112, key at 0, entry at 48);

/// Value of `CT_UNREPLIED4`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtSet4 {
    /// A [`WayWord`] for each way.
    pub words: [WayWord; WAYS],
    /// The ways.
    pub ways: [CtWay4; WAYS],
}
shared_layout!(CtSet4, size 768, words at 0, ways at 64);

/// Value of `CT_UNREPLIED6`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtSet6 {
    /// A [`WayWord`] for each way.
    pub words: [WayWord; WAYS],
    /// The ways.
    pub ways: [CtWay6; WAYS],
}
shared_layout!(CtSet6, size 960, words at 0, ways at 64);

/// How much an entry is worth, from the lowest; a replacement takes the lowest class, and in it the
/// entry that expires first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Worth {
    /// No reply, or a handshake that is not complete.
    Unreplied = 0,
    /// Replied, or closing.
    Replied = 1,
    /// An open TCP connection.
    Open = 2,
}

/// What a search needs to know of a way, 8 bytes: from the lowest bit, expiry in units of
/// [`super::COARSE`] (32 bits), [`Worth`] (2), number of the endpoint (14), tag (16). 0 is a free
/// way.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct WayWord(pub u64);
shared_layout!(WayWord, size 8);

impl WayWord {
    /// The word of an entry. `expires` is a tick-clock time in nanoseconds.
    #[must_use]
    #[inline(always)]
    pub const fn new(place: u64, owner: u32, worth: Worth, expires: u64) -> Self {
        let owner = (owner as u64 & ((1 << OWNER_BITS) - 1)) << 34;
        Self(Self::tag(place) << 48 | owner | (worth as u64) << 32 | coarse_expiry(expires))
    }

    /// The tag of a key's place hash: 16 bits, never 0.
    #[must_use]
    #[inline(always)]
    pub const fn tag(place: u64) -> u64 {
        (place & 0xffff) | 1
    }

    /// Whether the way may hold the key of this place hash.
    #[must_use]
    #[inline(always)]
    pub const fn matches(self, place: u64) -> bool {
        self.0 >> 48 == Self::tag(place)
    }

    /// Whether the way is free or its entry is dead at a tick-clock time.
    #[must_use]
    #[inline(always)]
    pub const fn is_free(self, now: u64) -> bool {
        self.0 == 0 || (self.0 & 0xffff_ffff) << super::COARSE_BITS <= now
    }

    /// The endpoint whose entry it is.
    #[must_use]
    #[inline(always)]
    pub const fn owner(self) -> u32 {
        (self.0 >> 34) as u32 & ((1 << OWNER_BITS) - 1)
    }

    /// The order of replacement: worth, then expiry; the lowest goes first.
    #[must_use]
    #[inline(always)]
    pub const fn rank(self) -> u64 {
        self.0 & 0x3_ffff_ffff
    }
}

/// The set of a key with this place hash, among a number of sets that is a power of two.
#[must_use]
#[inline(always)]
pub const fn set_of(place: u64, sets: u32) -> u32 {
    (place >> 32) as u32 & (sets - 1)
}

/// Rank of the cheapest entry of an open connection.
const OPEN: u64 = (Worth::Open as u64) << 32;

/// Which way a new entry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Choice {
    /// A free way.
    Free,
    /// The endpoint's own entry of the lowest rank.
    Own,
    /// The entry of the lowest rank of endpoints over their share.
    Other,
    /// None: there is no room.
    None,
}

/// The choice of an endpoint that is, or is not, over its share, in a set with this many free ways.
/// `own` and `other` are the lowest ranks of its own entries and of those of other endpoints over
/// their share; [`NO_RANK`] if there are none.
#[must_use]
#[inline(always)]
pub fn choose(over_share: bool, free: u32, own: u64, other: u64) -> Choice {
    let own_is_cheap = own < OPEN;
    if free > RESERVED_WAYS || (free > 0 && (!over_share || !own_is_cheap)) {
        return Choice::Free;
    }
    // Over its share an endpoint pays itself, but not with an open connection as long as an entry of
    // another one over its share is worth less.
    let takes = if over_share {
        !own_is_cheap && other < OPEN
    } else {
        other != NO_RANK
    };
    if takes {
        Choice::Other
    } else if own != NO_RANK {
        Choice::Own
    } else {
        Choice::None
    }
}

/// No entry's rank.
pub const NO_RANK: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SECOND;

    const UNREPLIED: u64 = WayWord::new(0, 1, Worth::Unreplied, SECOND).rank();
    const OPEN_ENTRY: u64 = WayWord::new(0, 1, Worth::Open, SECOND).rank();

    #[test]
    fn a_way_is_free_only_after_its_entry_is_dead() {
        let place = 0x1234_5678_9abc_def0;
        for expires in [1, SECOND, 8000 * SECOND + 1] {
            let word = WayWord::new(place, 4096, Worth::Open, expires);
            assert!(!word.is_free(expires - 1), "{expires}");
            assert!(word.is_free(expires + super::super::COARSE), "{expires}");
            assert_eq!(word.owner(), 4096);
            assert!(word.matches(place) && !word.matches(place ^ 0x80));
        }
        assert!(WayWord::default().is_free(0) && !WayWord::default().matches(0));
    }

    #[test]
    fn the_cheapest_entry_goes_first_and_then_the_oldest() {
        let rank = |worth, expires| WayWord::new(7, 3, worth, expires).rank();
        assert!(rank(Worth::Unreplied, 90 * SECOND) < rank(Worth::Replied, SECOND));
        assert!(rank(Worth::Replied, 9000 * SECOND) < rank(Worth::Open, SECOND));
        assert!(rank(Worth::Open, SECOND) < rank(Worth::Open, 2 * SECOND));
    }

    #[test]
    fn an_endpoint_within_its_share_always_finds_room_during_a_flood() {
        for own in [NO_RANK, UNREPLIED, OPEN_ENTRY] {
            assert_eq!(choose(false, 1, own, NO_RANK), Choice::Free);
            for other in [UNREPLIED, OPEN_ENTRY] {
                assert_eq!(choose(false, 0, own, other), Choice::Other);
            }
        }
        assert_eq!(choose(false, 0, UNREPLIED, NO_RANK), Choice::Own);
        assert_eq!(choose(false, 0, NO_RANK, NO_RANK), Choice::None);
    }

    #[test]
    fn an_endpoint_over_its_share_pays_itself_and_leaves_free_ways() {
        assert_eq!(
            choose(true, RESERVED_WAYS + 1, UNREPLIED, UNREPLIED),
            Choice::Free
        );
        for free in 0..=RESERVED_WAYS {
            assert_eq!(choose(true, free, UNREPLIED, UNREPLIED), Choice::Own);
        }
        assert_eq!(
            choose(true, 1, OPEN_ENTRY, UNREPLIED),
            Choice::Free,
            "rather than an open one"
        );
        assert_eq!(choose(true, 0, OPEN_ENTRY, UNREPLIED), Choice::Other);
        assert_eq!(choose(true, 0, OPEN_ENTRY, OPEN_ENTRY), Choice::Own);
        assert_eq!(choose(true, 0, NO_RANK, UNREPLIED), Choice::Other);
        assert_eq!(choose(true, 0, NO_RANK, OPEN_ENTRY), Choice::None);
    }
}
