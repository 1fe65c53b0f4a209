//! Deny aggregation: one record per kind of denied packet, so that a flood makes one line.
//!
//! Invariants: counts are totals and never reset in the kernel; a kind is reported with its first
//! packet and then at most once per [`REPORT_INTERVAL`], each time with the packets that no report
//! stands for yet. Every denied packet is therefore counted in a record that was written, or waits
//! in its kind, or is lost because its kind had to make room: [`lost`] says how many. An endpoint whose
//! denials are of too many kinds ([`crate::quota::AGGREGATE_BURST`]) is told of by rule and protocol
//! only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    SECOND,
    ids::RuleSlot,
    layout::shared_layout,
    net::{Ip6, Port},
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
    /// A [`crate::drop_reason::DropReason`].
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

/// Totals of one kind, 40 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DenyCount {
    /// Packets.
    pub packets: u64,
    /// Bytes (frame length).
    pub bytes: u64,
    /// Packets that written records stand for.
    pub reported_packets: u64,
    /// Bytes likewise.
    pub reported_bytes: u64,
    /// Tick-clock time of the last attempt to report.
    pub reported: u64,
}
shared_layout!(
    DenyCount, size 40, packets at 0, bytes at 8, reported_packets at 16, reported_bytes at 24,
    reported at 32,
);

impl DenyCount {
    /// Packets that no record stands for yet.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.packets.saturating_sub(self.reported_packets)
    }
}

/// Of `denied` packets, those that neither a written record nor a kind in the map accounts for.
/// While packets are being denied, read `denied` first, then the map, then what was written: the
/// answer is then too small rather than too large.
#[must_use]
pub const fn lost(denied: u64, waiting: u64, written: u64) -> u64 {
    denied.saturating_sub(waiting).saturating_sub(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_key_names_nothing() {
        let key = DenyKey::default();
        assert_eq!((key.rule, key.reason, key.ifindex), (RuleSlot::NONE, 0, 0));
    }

    #[test]
    fn every_packet_is_written_or_waits_or_is_lost() {
        let count = DenyCount {
            packets: 10,
            reported_packets: 4,
            ..DenyCount::default()
        };
        assert_eq!(count.waiting(), 6);
        assert_eq!(lost(100, 6, 4), 90);
        assert_eq!(lost(10, 6, 5), 0, "more arrived while one counted");
    }
}
