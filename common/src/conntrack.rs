//! Conntrack: key, entry, and the pure state transition.
//!
//! Invariants: one entry per endpoint and connection serves both directions, because the key holds
//! the workload's end before the peer's, whichever of them sent the packet; so an entry is about
//! the peer in its key and no other. The entry's verdict is valid for one policy table, one peer
//! epoch and until its recheck time; otherwise the flow is re-evaluated. Lookups, inserts and
//! clocks are the caller's. State transitions are in [`next_state`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod description;
pub mod originator;
mod place;
pub mod seal;
pub mod state;
pub mod timeouts;
pub mod unreplied;

pub use place::PlacedKey;
pub use seal::SealedKey;
pub use state::{
    StateBytes, is_assured, is_open, is_replied, is_steady, next_state, opens, restarts,
    shows_originator, steady_timeout,
};
pub use timeouts::{Timeout, Timeouts, timeout};

use crate::{
    SECOND,
    drop_reason::DropReason,
    ids::{IdentityId, RuleSlot, TableId},
    layout::shared_layout,
    mode::{Direction, Verdict},
    net::{Ip4, Ip6, Port},
    policy::{Decision, FOREVER},
};

/// Key of `CT4`, 20 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtKey4 {
    /// The workload's end.
    pub local: Ip4,
    /// The peer's end.
    pub peer: Ip4,
    /// The endpoint's interface.
    pub ifindex: u32,
    /// Port of `local`.
    pub local_port: Port,
    /// Port of `peer`.
    pub peer_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
shared_layout!(
    CtKey4, size 20, local at 0, peer at 4, ifindex at 8, local_port at 12, peer_port at 14,
    protocol at 16,
);

/// Key of `CT6`, 48 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtKey6 {
    /// The workload's end.
    pub local: Ip6,
    /// The peer's end.
    pub peer: Ip6,
    /// The endpoint's interface.
    pub ifindex: u32,
    /// Port of `local`.
    pub local_port: Port,
    /// Port of `peer`.
    pub peer_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 7],
}
shared_layout!(
    CtKey6, size 48, local at 0, peer at 16, ifindex at 32, local_port at 36, peer_port at 38,
    protocol at 40,
);

/// Bits of [`CtEntry::flags`].
pub mod flags {
    /// The workload sent the first packet: the flow is evaluated as its egress.
    pub const FROM_WORKLOAD: u8 = 1;
    /// The first packet came from a socket of this host: allowed before every tier.
    pub const HOST_INGRESS: u8 = 2;
    /// The direction is a guess: the connection was picked up mid-flow, within the pick-up window.
    /// It is evaluated in the other direction too before it is denied.
    pub const PICKED_UP: u8 = 4;
    /// The rule rejects: the sender of a packet of the flow gets a reject packet.
    pub const REJECTED: u8 = 8;
    /// The entry is in the assured map ([`super::is_assured`]).
    pub const ASSURED: u8 = 16;
    /// The rule that denies the other direction rejects.
    pub const REVERSE_REJECTED: u8 = 64;
    /// Policy allowed the recorded originator since the peer's address has its present owner. Such an
    /// originator stays recorded after a revocation, until it is silent ([`super::originator`]).
    pub const WAS_ALLOWED: u8 = 32;
    /// The peer's address is one that the node gave to another sender: the workload itself, whose packets
    /// came back to it ([`RuleSlot::OWN_ADDRESS`]), or an unknown client.
    pub const TRANSLATED: u8 = 128;
}

/// Value of `CT4` and `CT6`, and the body of a way of `CT_UNREPLIED4` and `CT_UNREPLIED6`; one cache
/// line.
///
/// `expires`, `state` and `originator_seen` change while the entry is in a map, each by a store of its
/// own. Everything else is written once, is covered by `seal`, and is used only if the seal is
/// right for a copy of it and for the key: the memory of an entry may be given to another key while
/// a program reads it (`bpf_mem_alloc`, Linux commit fba1a1c6c912).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtEntry {
    /// Tick-clock time after which the entry is dead.
    pub expires: u64,
    /// Bits of [`state`], one in each byte, so that two CPUs never lose each other's.
    pub state: StateBytes,
    /// [`CtEntry::seal_for`] of key and decision.
    pub seal: u64,
    /// Boot-clock time from which the verdict is stale.
    pub recheck: u64,
    /// The policy table of the last evaluation.
    pub table: TableId,
    /// The policy table of the flow's other end, once one entry serves both; zero until then.
    pub other_table: TableId,
    /// The peer's epoch at the last evaluation.
    pub epoch: u32,
    /// When the recorded originator sent its last packet, dropped ones included, in units of
    /// [`COARSE`]. Of protocols whose packets do not show who opened the flow.
    pub originator_seen: u32,
    /// The [`RuleSlot`] that decided.
    pub rule: u16,
    /// The [`RuleSlot`] that decided the other direction ([`CtEntry::reverse`]).
    pub reverse_rule: u16,
    /// The [`RuleSlot`] that decided at the other end; zero until one entry serves both.
    pub other_rule: u16,
    /// The peer's [`IdentityId`] at the last evaluation.
    pub peer: u16,
    /// Low bits of the owner number of the peer's address at the last evaluation.
    pub owner: u16,
    /// The endpoint number of the other end; zero until one entry serves both.
    pub other_endpoint: u16,
    /// Two bits each, a [`Verdict`] or 0, from the lowest: of the originator's direction, of the other
    /// direction, of the originator's direction at the other end, of a staged policy. The last two are
    /// zero so far.
    pub verdicts: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// The [`crate::drop_reason::DropReason`] of a deny, else 0.
    pub reason: u8,
    /// Zero.
    pub reserved: u8,
}
shared_layout!(
    CtEntry, size 64, expires at 0, state at 8, seal at 16, recheck at 24, table at 32,
    other_table at 36, epoch at 40, originator_seen at 44, rule at 48, reverse_rule at 50,
    other_rule at 52, peer at 54, owner at 56, other_endpoint at 58, verdicts at 60, flags at 61,
    reason at 62,
);

/// Nanoseconds in a unit of [`CtEntry::originator_seen`] and of a way's expiry: 2^26, about 67 ms. 32
/// bits of it last nine years.
pub const COARSE: u64 = 1 << COARSE_BITS;
pub(crate) const COARSE_BITS: u32 = 26;

const VERDICT: u8 = 3;
const REVERSE_SHIFT: u8 = 2;

impl CtEntry {
    /// Makes it an entry without a decision. Field by field, in place: a copy would take 64 bytes of
    /// the programs' stack.
    #[inline(always)]
    pub const fn clear(&mut self, table: TableId, epoch: u32) {
        self.expires = 0;
        self.state = StateBytes(0);
        self.seal = 0;
        self.recheck = 0;
        self.table = table;
        self.other_table = TableId::NONE;
        self.epoch = epoch;
        self.originator_seen = 0;
        self.rule = 0;
        self.reverse_rule = 0;
        self.other_rule = 0;
        self.peer = 0;
        self.owner = 0;
        self.other_endpoint = 0;
        self.verdicts = Verdict::Deny as u8;
        self.flags = 0;
        self.reason = 0;
        self.reserved = 0;
    }

    /// The seal that belongs to this decision under a key.
    #[inline(always)]
    #[must_use]
    pub fn seal_for(&self, key: &impl SealedKey) -> u64 {
        let words: [u64; 8] = zerocopy::transmute!(*self);
        let mut sum = key.sum();
        sum = sum.wrapping_add(seal::mix(words[3], seal::WORDS[6]));
        sum = sum.wrapping_add(seal::mix(words[4], seal::WORDS[7]));
        sum = sum.wrapping_add(seal::mix(words[5] & 0xffff_ffff, seal::WORDS[8]));
        sum = sum.wrapping_add(seal::mix(words[6], seal::WORDS[9]));
        sum.wrapping_add(seal::mix(words[7], seal::WORDS[10]))
    }

    /// Whether decision and key belong together: neither is a mixture of two.
    #[inline(always)]
    #[must_use]
    pub fn is_sealed_for(&self, key: &impl SealedKey) -> bool {
        self.seal == self.seal_for(key)
    }

    /// Whether the entry is live at a tick-clock time.
    #[inline(always)]
    #[must_use]
    pub fn is_live(&self, now: u64) -> bool {
        now < self.expires
    }

    /// Whether the stored verdict is current. The boot clock is read only if the verdict has a
    /// recheck time.
    #[inline(always)]
    #[must_use]
    pub fn is_fresh(&self, table: TableId, epoch: u32, boot: impl FnOnce() -> u64) -> bool {
        self.table.0 == table.0
            && self.epoch == epoch
            && (self.recheck == FOREVER || boot() < self.recheck)
    }

    /// The stored verdict of the originator's direction.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        Verdict::from_raw(self.verdicts & VERDICT)
    }

    /// The stored verdict of the other direction as an originator; `None` if it was not evaluated.
    #[inline(always)]
    #[must_use]
    pub const fn reverse(&self) -> Option<Verdict> {
        match (self.verdicts >> REVERSE_SHIFT) & VERDICT {
            0 => None,
            raw => Some(Verdict::from_raw(raw)),
        }
    }

    /// The rule that decided.
    #[inline(always)]
    #[must_use]
    pub const fn rule(&self) -> RuleSlot {
        RuleSlot(self.rule as u32)
    }

    /// The rule that decided the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reverse_rule(&self) -> RuleSlot {
        RuleSlot(self.reverse_rule as u32)
    }

    /// The peer's identity at the last evaluation.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self) -> IdentityId {
        IdentityId(self.peer as u32)
    }

    /// Whether the sender gets a reject packet, if the mode sends them ([`Mode::sends_rejects`]).
    #[inline(always)]
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        self.flags & flags::REJECTED != 0
    }

    /// Whether the entry is in the assured map.
    #[inline(always)]
    #[must_use]
    pub const fn is_in_assured(&self) -> bool {
        self.flags & flags::ASSURED != 0
    }

    /// Whether an entry with this state is in a different map than the state requires. A flow with
    /// an own address is never assured: it needs no entry to be allowed, and costs others no room.
    #[inline(always)]
    #[must_use]
    pub fn is_misplaced(&self, state: u8) -> bool {
        let wanted = is_assured(state) && self.rule != RuleSlot::OWN_ADDRESS.narrow();
        self.is_in_assured() != wanted
    }

    /// Stores a decision of policy for the originator's direction.
    #[inline(always)]
    pub const fn decide(&mut self, decision: &Decision, peer: IdentityId) {
        self.recheck = decision.recheck;
        self.rule = decision.rule.narrow();
        self.reverse_rule = 0;
        self.peer = peer.narrow();
        self.verdicts = decision.verdict as u8;
        self.reason = match decision.verdict {
            Verdict::Allow => 0,
            Verdict::Deny => DropReason::Policy as u8,
        };
        self.flags &= !flags::REJECTED;
        if decision.reject {
            self.flags |= flags::REJECTED;
        }
    }

    /// Stores a decision about the other direction, in addition to that of the originator's.
    #[inline(always)]
    pub const fn decide_reverse(&mut self, of: &Self) {
        if of.recheck < self.recheck {
            self.recheck = of.recheck;
        }
        self.reverse_rule = of.rule;
        self.verdicts = (self.verdicts & VERDICT) | ((of.verdicts & VERDICT) << REVERSE_SHIFT);
        self.flags &= !flags::REVERSE_REJECTED;
        if of.is_rejected() {
            self.flags |= flags::REVERSE_REJECTED;
        }
    }

    /// Stores a deny because no decision could be made.
    #[inline(always)]
    pub const fn fail_closed(&mut self, reason: DropReason, peer: IdentityId) {
        self.decide(&Decision::lasting(Verdict::Deny, RuleSlot::NONE), peer);
        self.reason = reason as u8;
    }

    /// Direction in which the flow is evaluated.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.flags & flags::FROM_WORKLOAD != 0 {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }
}

/// Whether a new expiry is worth a store: at least a second later, or earlier.
#[inline(always)]
#[must_use]
pub const fn worth_storing(stored: u64, wanted: u64) -> bool {
    wanted < stored || wanted - stored >= SECOND
}

/// An expiry in units of [`COARSE`], rounded up, so that a way is not free before its entry is dead.
#[inline(always)]
const fn coarse_expiry(expires: u64) -> u64 {
    ((expires + COARSE - 1) >> COARSE_BITS) & 0xffff_ffff
}

#[cfg(test)]
mod tests;
