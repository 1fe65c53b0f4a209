//! DHCP over IPv4 (RFC 2131) and IPv6 (RFC 8415): a client's requests to the link, and their answers.
//!
//! Invariants: both pass without policy. A request goes to the broadcast address or to the group of
//! servers, so it stays on the link. An answer is one only to the request that the workload sent
//! last, in the [`ANSWER_TIME`] after it: with its transaction number, and to the hardware address or
//! link-local address that sent it. What else is in the messages is not looked at; how many a
//! workload may send is limited elsewhere.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Frame, Kind, Packet, protocol};
use crate::{
    SECOND,
    endpoint::{Endpoint, Owns},
    layout::shared_layout,
    net::{Address, Ip4, Ip6},
};

/// How long an answer may take, in nanoseconds of the tick clock.
pub const ANSWER_TIME: u64 = 10 * SECOND;

/// Value of `DHCP_REQUESTS`: the last request of an endpoint over each family, 48 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DhcpRequest {
    /// Tick-clock time of the request over IPv4, in nanoseconds; 0 for none.
    pub sent4: u64,
    /// The same over IPv6.
    pub sent6: u64,
    /// The transaction number over IPv4, wire bytes.
    pub xid4: [u8; 4],
    /// Its first byte 0, then the transaction number over IPv6.
    pub xid6: [u8; 4],
    /// The client's hardware address over IPv4.
    pub hardware4: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
    /// The client's link-local address.
    pub source6: Ip6,
}
shared_layout!(
    DhcpRequest, size 48, sent4 at 0, sent6 at 8, xid4 at 16, xid6 at 20, hardware4 at 24,
    source6 at 32,
);

/// A family over which addresses are configured.
pub trait Dhcp: Address {
    /// Whether a packet from a workload is a request by its addresses and ports.
    fn is_request(packet: &Packet<Self>) -> bool;

    /// Whether a packet to a workload may be an answer by its ports.
    fn may_answer(packet: &Packet<Self>) -> bool;

    /// Notes a request that was sent at a tick-clock time, if it has the form of one. Otherwise it has
    /// no answer.
    fn note<F: Frame>(frame: &F, packet: &Packet<Self>, now: u64, into: &mut DhcpRequest);

    /// Whether a packet with these ports answers the request.
    fn answers<F: Frame>(
        frame: &F,
        packet: &Packet<Self>,
        endpoint: &Endpoint,
        request: &DhcpRequest,
        now: u64,
    ) -> bool;
}

#[inline(always)]
fn is_udp<A>(packet: &Packet<A>, from: u16, to: u16) -> bool {
    packet.kind == Kind::Flow
        && packet.protocol == protocol::UDP
        && packet.source_port.number() == from
        && packet.destination_port.number() == to
}

#[inline(always)]
fn is_in_time(sent: u64, now: u64) -> bool {
    sent != 0 && now.saturating_sub(sent) < ANSWER_TIME
}

/// Operation, hardware type and length, and transaction number of a message, and the address that it
/// assigns and the client's hardware address; of Ethernet alone (RFC 2131 §2).
#[inline(always)]
fn read4<F: Frame>(frame: &F, packet: &Packet<Ip4>) -> Option<([u8; 8], [u8; 4], [u8; 6])> {
    let message = packet.transport + 8;
    let mut head = [0u8; 8];
    let mut assigned = [0u8; 4];
    let mut hardware = [0u8; 6];
    let is_read = message + 236 <= packet.end
        && frame.load(message, &mut head)
        && frame.load(message + 16, &mut assigned)
        && frame.load(message + 28, &mut hardware);
    let is_ethernet = matches!(head, [_, 1, 6, ..]);
    (is_read && is_ethernet).then_some((head, assigned, hardware))
}

impl Dhcp for Ip4 {
    #[inline(always)]
    fn is_request(packet: &Packet<Self>) -> bool {
        // A client that has no address yet (RFC 2131 §4.1).
        packet.source == Self::UNSPECIFIED
            && packet.destination == Self::BROADCAST
            && is_udp(packet, 68, 67)
    }

    #[inline(always)]
    fn may_answer(packet: &Packet<Self>) -> bool {
        is_udp(packet, 67, 68)
    }

    #[inline(always)]
    fn note<F: Frame>(frame: &F, packet: &Packet<Self>, now: u64, into: &mut DhcpRequest) {
        if let Some(([1, _, _, _, a, b, c, d], _, hardware)) = read4(frame, packet) {
            into.xid4 = [a, b, c, d];
            into.hardware4 = hardware;
            into.sent4 = now;
        }
    }

    #[inline(always)]
    fn answers<F: Frame>(
        frame: &F,
        packet: &Packet<Self>,
        endpoint: &Endpoint,
        request: &DhcpRequest,
        now: u64,
    ) -> bool {
        let Some(([2, _, _, _, a, b, c, d], assigned, hardware)) = read4(frame, packet) else {
            return false;
        };
        let to = packet.destination;
        let is_to_it =
            to == Self::BROADCAST || to == Self::from_wire(assigned) || endpoint.owns(to);
        is_to_it
            && is_in_time(request.sent4, now)
            && request.xid4 == [a, b, c, d]
            && request.hardware4 == hardware
    }
}

/// Advertise and Reply (RFC 8415 §7.3).
const SERVER_MESSAGES: [u8; 2] = [2, 7];

#[inline(always)]
fn read6<F: Frame>(frame: &F, packet: &Packet<Ip6>) -> Option<[u8; 4]> {
    let message = packet.transport + 8;
    let mut head = [0u8; 4];
    (message + 4 <= packet.end && frame.load(message, &mut head)).then_some(head)
}

impl Dhcp for Ip6 {
    #[inline(always)]
    fn is_request(packet: &Packet<Self>) -> bool {
        // RFC 8415 §7.
        packet.source.is_link_local()
            && packet.destination == Self::DHCP_SERVERS
            && is_udp(packet, 546, 547)
    }

    #[inline(always)]
    fn may_answer(packet: &Packet<Self>) -> bool {
        is_udp(packet, 547, 546)
    }

    #[inline(always)]
    fn note<F: Frame>(frame: &F, packet: &Packet<Self>, now: u64, into: &mut DhcpRequest) {
        if let Some([_, a, b, c]) = read6(frame, packet) {
            into.xid6 = [0, a, b, c];
            into.source6 = packet.source;
            into.sent6 = now;
        }
    }

    #[inline(always)]
    fn answers<F: Frame>(
        frame: &F,
        packet: &Packet<Self>,
        _endpoint: &Endpoint,
        request: &DhcpRequest,
        now: u64,
    ) -> bool {
        let Some([kind, a, b, c]) = read6(frame, packet) else {
            return false;
        };
        SERVER_MESSAGES.contains(&kind)
            && is_in_time(request.sent6, now)
            && request.xid6 == [0, a, b, c]
            && request.source6 == packet.destination
    }
}
