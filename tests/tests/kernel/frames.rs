//! Building frames: transport headers, IP packets of either family, Ethernet.

use std::net::IpAddr;

use ringfence_common::packet::protocol;
pub(crate) use ringfence_common::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use ringfence_testbed::frame::{IPV4, IPV6, ethernet, ipv4, ipv6};

use crate::fence::DualStack;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// Offset of the IP header in a frame.
pub(crate) const IP: usize = 14;
/// Offset of an IPv4 packet's transport header.
pub(crate) const L4_OF_4: usize = IP + 20;
/// Offset of an IPv6 packet's first extension or transport header.
pub(crate) const L4_OF_6: usize = IP + 40;

pub(crate) const fn icmp_of(v6: bool) -> u8 {
    if v6 { ICMPV6 } else { ICMP }
}

/// A TCP segment.
pub(crate) fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        1,
        5 << 4,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    segment
}

/// A UDP datagram with `payload` zero bytes.
pub(crate) fn udp(from: u16, to: u16, payload: usize) -> Vec<u8> {
    let length = u16::try_from(8 + payload).unwrap();
    let mut datagram = [from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes()].concat();
    datagram.resize(8 + payload, 0);
    datagram
}

/// An ICMP message of a type and code; `id` is at the place of the echo identifier.
pub(crate) fn icmp(kind: u8, code: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![kind, code, 0, 0, high, low, 0, 1]
}

/// An echo request.
pub(crate) fn echo(v6: bool, id: u16) -> Vec<u8> {
    icmp(if v6 { 128 } else { 8 }, 0, id)
}

/// An echo reply.
pub(crate) fn echo_reply(v6: bool, id: u16) -> Vec<u8> {
    icmp(if v6 { 129 } else { 0 }, 0, id)
}

/// An SCTP packet with the common header only.
pub(crate) fn sctp(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.resize(12, 0);
    packet
}

/// An ICMP error about an IP packet.
pub(crate) fn icmp_error(kind: u8, code: u8, packet: &[u8]) -> Vec<u8> {
    [&icmp(kind, code, 0), packet].concat()
}

/// An IP packet.
pub(crate) fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, protocol, payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, protocol, payload),
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// An Ethernet frame around any payload.
pub(crate) fn framed(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], ethertype, payload)
}

/// An IP packet in an Ethernet frame.
pub(crate) fn frame(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let kind = if from.is_ipv6() { IPV6 } else { IPV4 };
    framed(kind, &packet(from, to, protocol, payload))
}

/// A flow of the workload: its family, and the addresses and ports of both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) v6: bool,
    pub(crate) local: (DualStack, u16),
    pub(crate) peer: (DualStack, u16),
}

impl Flow {
    /// A frame from the workload.
    pub(crate) fn outbound(&self, protocol: u8, flags: u8) -> Vec<u8> {
        let ends = (self.local.0.ip(self.v6), self.peer.0.ip(self.v6));
        frame(
            ends.0,
            ends.1,
            protocol,
            &segment(protocol, self.local.1, self.peer.1, flags),
        )
    }

    /// A frame to the workload.
    pub(crate) fn inbound(&self, protocol: u8, flags: u8) -> Vec<u8> {
        let ends = (self.peer.0.ip(self.v6), self.local.0.ip(self.v6));
        frame(
            ends.0,
            ends.1,
            protocol,
            &segment(protocol, self.peer.1, self.local.1, flags),
        )
    }
}

/// A transport header; `flags` are the TCP flags.
fn segment(number: u8, from: u16, to: u16, flags: u8) -> Vec<u8> {
    match number {
        protocol::TCP => tcp(from, to, flags),
        protocol::UDP => udp(from, to, 4),
        protocol::SCTP => sctp(from, to),
        _ => vec![0; 8],
    }
}

/// The frame with the bytes at an offset replaced.
pub(crate) fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// An IPv6 extension header of `8 * (words + 1)` bytes.
pub(crate) fn extension(next: u8, words: u8, third: u8) -> Vec<u8> {
    let mut header = vec![next, words, third];
    header.resize(8 * (usize::from(words) + 1), 0);
    header
}

/// A routing header for TCP with an address and segments left.
pub(crate) fn segments(kind: u8, left: u8) -> Vec<u8> {
    let mut header = extension(TCP, 2, kind);
    header[3] = left;
    header
}

/// An IPv6 fragment header.
pub(crate) fn fragment6(next: u8, offset: u16, more: bool, id: u32) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    [[next, 0, field[0], field[1]], id.to_be_bytes()].concat()
}

/// A fragment of a datagram; its offset is in units of eight bytes.
pub(crate) fn fragment(
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    (offset, more, id): (u16, bool, u16),
    payload: &[u8],
) -> Vec<u8> {
    if from.is_ipv6() {
        let header = fragment6(protocol, offset, more, id.into());
        return frame(from, to, 44, &[&header, payload].concat());
    }
    let field = offset | u16::from(more) << 13;
    let bytes = [id.to_be_bytes(), field.to_be_bytes()].concat();
    with(frame(from, to, protocol, payload), IP + 4, &bytes)
}
