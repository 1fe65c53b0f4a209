//! Deny aggregates: denied packets counted under one key, so that a flood makes one line.
//!
//! Invariants: counts are totals and are never reset in the kernel. An aggregate is reported with
//! its first packet and then at most once per [`REPORT_INTERVAL`], each time with the packets that
//! no report covers yet. So every denied packet is covered by a written record, waits in its
//! aggregate, or is lost because its aggregate was evicted; [`lost`] gives the number. The denials
//! of an endpoint with too many aggregates ([`crate::quota::AGGREGATE_BURST`]) are aggregated by
//! rule and protocol only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    SECOND,
    ids::RuleSlot,
    layout::shared_layout,
    net::{Ip6, Port},
};

/// Least time between two reports of one aggregate.
pub const REPORT_INTERVAL: u64 = 5 * SECOND;

/// Key of a deny aggregate, 32 bytes.
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

/// Totals of one aggregate, 40 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DenyCount {
    /// Packets.
    pub packets: u64,
    /// Bytes (frame length).
    pub bytes: u64,
    /// Packets that written records cover.
    pub reported_packets: u64,
    /// Bytes that written records cover.
    pub reported_bytes: u64,
    /// Tick-clock time of the last report, written or lost.
    pub reported: u64,
}
shared_layout!(
    DenyCount, size 40, packets at 0, bytes at 8, reported_packets at 16, reported_bytes at 24,
    reported at 32,
);

impl DenyCount {
    /// Packets that no record covers yet.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.packets.saturating_sub(self.reported_packets)
    }
}

/// The number of `denied` packets that neither a written record nor an aggregate in the map covers.
/// While packets are being denied, read `denied` first, then the map, then the written count: the
/// result is then too small rather than too large.
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
    fn every_denied_packet_is_reported_or_waiting_or_lost() {
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
