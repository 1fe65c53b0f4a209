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

/// Which way a new entry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A free way.
    Free,
    /// The endpoint's own entry of the lowest rank.
    Own,
    /// That of an endpoint over its share, if there is one; else as for [`Choice::Own`].
    OfOverShare,
}

/// The choice of an endpoint that is, or is not, over its share, in a set with this many free ways
/// and with or without an entry of its own.
#[must_use]
#[inline(always)]
pub const fn choose(over_share: bool, free: u32, has_own: bool) -> Choice {
    if free > RESERVED_WAYS || (free > 0 && (!over_share || !has_own)) {
        Choice::Free
    } else if over_share {
        Choice::Own
    } else {
        Choice::OfOverShare
    }
}
