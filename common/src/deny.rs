//! Deny aggregation: one record per kind of denied packet, so that a flood makes one line.
//!
//! Invariants: counts are totals and never reset in the kernel; a kind is reported with its first
//! packet and then at most once per [`REPORT_INTERVAL`]; what comes after the last report is in
//! `STATS`, which counts every packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    SECOND,
    ids::RuleSlot,
    net::{Ip6, Port},
    pod::shared_layout,
};

/// Least time between two reports of one kind.
pub const REPORT_INTERVAL: u64 = 5 * SECOND;

/// What makes two denied packets the same kind, 32 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DenyKey {
    /// The peer, widened to sixteen bytes.
    pub peer: Ip6,
    /// The endpoint's interface.
    pub ifindex: u32,
    /// The rule, or default, that decided.
    pub rule: RuleSlot,
    /// Destination port of the original direction.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`crate::reason::DropReason`].
    pub reason: u8,
    /// A [`crate::mode::Direction`].
    pub direction: u8,
    /// A [`crate::mode::Action`]: dropped, or passed by `observe`.
    pub action: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
shared_layout!(
    DenyKey, size 32, peer at 0, ifindex at 16, rule at 20, port at 24, protocol at 26,
    reason at 27, direction at 28, action at 29,
);

/// Totals of one kind, 32 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DenyCount {
    /// Packets.
    pub packets: u64,
    /// Bytes (frame length).
    pub bytes: u64,
    /// Boot-clock time of the first.
    pub first: u64,
    /// Boot-clock time of the last report.
    pub reported: u64,
}
shared_layout!(DenyCount, size 32, packets at 0, bytes at 8, first at 16, reported at 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_key_names_nothing() {
        let key = DenyKey::default();
        assert_eq!((key.rule, key.reason, key.ifindex), (RuleSlot::NONE, 0, 0));
    }
}
