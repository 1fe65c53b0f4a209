//! The flow event: the kernel's record in `EVENTS` of a new, changed or denied flow.
//!
//! Invariants: fixed size; addresses are sixteen bytes (IPv4 mapped); "local" is the workload the
//! interface belongs to, whatever the packet's direction. Names are looked up by the agent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    ids::{IdentityId, RuleSlot, TableId},
    layout::shared_layout,
    net::{Ip6, Port},
};

/// The kind of a flow event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A new flow was evaluated.
    New = 1,
    /// A flow was re-evaluated and its verdict changed.
    Changed = 2,
    /// A packet was denied (or would have been); `packets` counts the packets of its aggregate that
    /// no earlier event covers.
    Denied = 3,
}

impl EventKind {
    /// From a record's byte.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::New),
            2 => Some(Self::Changed),
            3 => Some(Self::Denied),
            _ => None,
        }
    }
}

/// One flow event, 96 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FlowEvent {
    /// Tick-clock time.
    pub time: u64,
    /// Packets this event covers: any number for [`EventKind::Denied`], else 1.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// The workload's address in the packet.
    pub local: Ip6,
    /// The peer's address; unspecified, with both ports, when the event covers many peers.
    pub peer: Ip6,
    /// The endpoint's interface.
    pub ifindex: u32,
    /// The workload's identity.
    pub identity: IdentityId,
    /// The peer's identity.
    pub peer_identity: IdentityId,
    /// The rule, or default, that decided.
    pub rule: RuleSlot,
    /// The policy table that was used.
    pub table: TableId,
    /// The workload's port.
    pub local_port: Port,
    /// The peer's port.
    pub peer_port: Port,
    /// IP protocol number; 0 when the packet could not be parsed that far.
    pub protocol: u8,
    /// 4, 6, or 0 for frames that are neither.
    pub family: u8,
    /// The [`crate::mode::Direction`] in which the flow was evaluated.
    pub direction: u8,
    /// A [`crate::mode::Verdict`].
    pub verdict: u8,
    /// A [`crate::mode::Action`].
    pub action: u8,
    /// A [`crate::drop_reason::DropReason`], or 0.
    pub reason: u8,
    /// An [`EventKind`].
    pub kind: u8,
    /// TCP flags of the packet.
    pub tcp: u8,
    /// 1 if the packet left the workload, 0 if it was addressed to it.
    pub from_workload: u8,
    /// 1 if the rule that denied the packet rejects. Its sender gets a reject packet unless the
    /// mode or the rate limit forbids it.
    pub rejected: u8,
    /// Zero.
    pub reserved: [u8; 6],
}
shared_layout!(
    FlowEvent, size 96, time at 0, local at 24, peer at 40, ifindex at 56, rule at 68,
    local_port at 76, protocol at 80, kind at 86, from_workload at 88, rejected at 89,
);

impl FlowEvent {
    /// Whether the packet's direction is the flow's reply direction.
    #[must_use]
    pub const fn is_reply(&self) -> bool {
        (self.from_workload == 1) != (self.direction == crate::mode::Direction::Egress as u8)
    }
}
