//! Multicast listener discovery (RFC 2710, RFC 3810): the form of reports and queries.
//!
//! Invariant: as in [`super::discovery`], a message that has its form carries nothing else. It has hop
//! limit 1 and a router alert, as both RFCs demand (RFC 2710 §3, RFC 3810 §5): a query without it is
//! one that no router sent.

use super::{ETHERNET, Frame, Packet, transport::icmp6};
use crate::net::Ip6;

/// Offset of a message after the hop-by-hop options of eight bytes.
const AFTER_OPTIONS: u32 = ETHERNET + 40 + 8;
/// The next header of hop-by-hop options.
const HOP_BY_HOP: u8 = 0;
/// Bytes of a message of version 1.
const VERSION_1: u32 = 24;
/// Bytes of a query of version 2 before its sources.
const QUERY: u32 = 28;
/// Bytes of a report of version 2 before its records, and of a record before its sources.
const REPORT: u32 = 8;
const RECORD: u32 = 20;
const ADDRESS: u32 = 16;
/// Records of a report at most: as many as fit into a packet of 1500 bytes. Linux puts all of its groups
/// into one report, as far as the link has room.
const RECORDS: u32 = 72;

/// Whether a listener message has the form of its type.
#[inline(always)]
pub(super) fn is_well_formed<F: Frame>(frame: &F, packet: &Packet<Ip6>) -> bool {
    let is_whole = packet.transport == AFTER_OPTIONS
        && packet.end == frame.len()
        && packet.hop_limit == 1
        && !frame.is_gso();
    if !is_whole || !has_router_alert(frame) {
        return false;
    }
    let length = packet.end - packet.transport;
    let mut head = [0u8; 8];
    if length < VERSION_1 || !frame.load(AFTER_OPTIONS, &mut head) {
        return false;
    }
    let [_, code, _, _, _, _, high, low] = head;
    if code != 0 {
        return false;
    }
    match packet.icmp_type {
        icmp6::LISTENER_REPORT_V2 => has_records(frame, packet.end, super::be16(high, low)),
        icmp6::LISTENER_QUERY => length == VERSION_1 || has_sources(frame, length),
        _ => length == VERSION_1,
    }
}

/// Whether the packet begins with hop-by-hop options, which are a router alert of value 0 and padding
/// (RFC 2711 §2.1). Routers look at no other header.
#[inline(always)]
fn has_router_alert<F: Frame>(frame: &F) -> bool {
    let mut first = [0u8; 1];
    let mut options = [0u8; 8];
    if !frame.load(ETHERNET + 6, &mut first) || !frame.load(ETHERNET + 40, &mut options) {
        return false;
    }
    if first != [HOP_BY_HOP] {
        return false;
    }
    matches!(
        options,
        [_, 0, 5, 2, 0, 0, 1 | 0, 0] | [_, 0, 1 | 0, 0, 5, 2, 0, 0]
    )
}

/// Whether a query of version 2 ends after as many sources as it states.
#[inline(always)]
fn has_sources<F: Frame>(frame: &F, length: u32) -> bool {
    let mut tail = [0u8; 4];
    if length < QUERY || !frame.load(AFTER_OPTIONS + QUERY - 4, &mut tail) {
        return false;
    }
    let [_, _, high, low] = tail;
    length == QUERY + ADDRESS * u32::from(super::be16(high, low))
}

/// Whether a report of version 2 ends after as many records as it states.
#[inline(always)]
fn has_records<F: Frame>(frame: &F, end: u32, records: u16) -> bool {
    let mut at = AFTER_OPTIONS + REPORT;
    let records = u32::from(records);
    for record in 0..RECORDS {
        if record >= records {
            return at == end;
        }
        match record_length(frame, at, end) {
            Some(length) => at += length,
            None => return false,
        }
    }
    records == RECORDS && at == end
}

/// The length of the record at an offset, which is about a group.
#[inline(always)]
fn record_length<F: Frame>(frame: &F, at: u32, end: u32) -> Option<u32> {
    let mut head = [0u8; 5];
    if at + RECORD > end || !frame.load(at, &mut head) {
        return None;
    }
    let [_, auxiliary, high, low, group] = head;
    let length = RECORD + ADDRESS * u32::from(super::be16(high, low));
    (auxiliary == 0 && group == 0xff && length <= end - at).then_some(length)
}
