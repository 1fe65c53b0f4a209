//! Conntrack: key, entry, and the pure state transition.
//!
//! Invariants: one entry per endpoint and connection serves both directions, because the key holds
//! the workload's end before the peer's, whichever of them sent the packet; so an entry is about
//! the peer in its key and no other. The entry's verdict is valid for one policy table, one peer
//! epoch and until its recheck time; otherwise the flow is re-evaluated. Lookups, inserts and
//! clocks are the caller's. State transitions are in [`next_state`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod state;

pub use state::{is_assured, is_open, is_replied, next_state, opens, restarts, timeout};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
}

/// Value of `CT4` and `CT6`, one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CtEntry {
    /// Tick-clock time after which the entry is dead.
    pub expires: u64,
    /// Boot-clock time from which the verdict is stale.
    pub recheck: u64,
    /// Bytes (IP length), original direction then reply; updated without locks, so approximate.
    pub bytes: [u64; 2],
    /// Packets, in the same order and precision.
    pub packets: [u32; 2],
    /// The policy table of the last evaluation.
    pub table: TableId,
    /// The peer's epoch at the last evaluation.
    pub epoch: u32,
    /// The rule, or default, that decided.
    pub rule: RuleSlot,
    /// The peer's identity at the last evaluation.
    pub peer: IdentityId,
    /// A [`Verdict`].
    pub verdict: u8,
    /// Bits of [`state`].
    pub state: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// The [`crate::drop_reason::DropReason`] of a deny, else 0.
    pub reason: u8,
    /// Zero.
    pub reserved: [u8; 4],
}
shared_layout!(
    CtEntry, size 64, expires at 0, recheck at 8, bytes at 16, packets at 32, table at 40,
    epoch at 44, rule at 48, peer at 52, verdict at 56, state at 57, flags at 58, reason at 59,
);

impl CtEntry {
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

    /// The stored verdict.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        Verdict::from_raw(self.verdict)
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

    /// Whether the entry is in a different map than its state requires.
    #[inline(always)]
    #[must_use]
    pub fn is_misplaced(&self) -> bool {
        self.is_in_assured() != is_assured(self.state)
    }

    /// Stores a decision of policy.
    #[inline(always)]
    pub const fn decide(&mut self, decision: &Decision, peer: IdentityId) {
        self.recheck = decision.recheck;
        self.rule = decision.rule;
        self.peer = peer;
        self.verdict = decision.verdict as u8;
        self.reason = match decision.verdict {
            Verdict::Allow => 0,
            Verdict::Deny => DropReason::Policy as u8,
        };
        self.flags &= !flags::REJECTED;
        if decision.reject {
            self.flags |= flags::REJECTED;
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

#[cfg(test)]
mod tests;
