//! Builders for the parts of hostile frames.
//!
//! The builders produce valid lengths, and checksums where a test needs them; members overwrite
//! what they want to be wrong.

use std::net::{IpAddr, Ipv6Addr};

use super::fixture::protocol;
use crate::frame;

/// TCP flags.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;
}

/// Length of the Ethernet header, where the IP header starts.
pub const IP: usize = 14;
/// Where the transport header of an IPv4 packet without options starts.
pub const AFTER_IP4: usize = IP + 20;
/// Where the header after the IPv6 header starts.
pub const AFTER_IP6: usize = IP + 40;

const TO: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The source hardware address of the frames.
pub const FROM: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The link-local address derived from it.
pub const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2));

/// An Ethernet frame.
#[must_use]
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    frame::ethernet(TO, FROM, ethertype, payload)
}

/// A broadcast frame.
#[must_use]
pub fn broadcast(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    frame::ethernet([0xff; 6], FROM, ethertype, payload)
}

/// The Ethernet type for an address's family.
#[must_use]
pub const fn ethertype_of(ip: IpAddr) -> u16 {
    if ip.is_ipv6() {
        frame::IPV6
    } else {
        frame::IPV4
    }
}

/// An IP packet in a frame. Addresses of different families give an empty packet, which no test
/// uses.
#[must_use]
pub fn ip_frame(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(ethertype_of(to), &ip(from, to, protocol, payload))
}

/// An IP packet.
#[must_use]
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame::ipv4(from, to, protocol, payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => frame::ipv6(from, to, protocol, payload),
        _ => Vec::new(),
    }
}

/// A transport header with some payload, with ports if the protocol has them.
#[must_use]
pub fn transport(protocol: u8, from: u16, to: u16) -> Vec<u8> {
    match protocol {
        protocol::TCP => tcp(from, to, flag::SYN),
        protocol::UDP => udp(from, to, b"attacking"),
        protocol::SCTP => sctp(from, to),
        protocol::ICMP => echo(false, from),
        protocol::ICMPV6 => echo(true, from),
        _ => vec![0xa5; 16],
    }
}

/// A TCP segment without payload.
#[must_use]
pub fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    tcp_with_sequence(from, to, flags, (1, 1))
}

/// A TCP segment with its sequence and acknowledgement numbers.
#[must_use]
pub fn tcp_with_sequence(
    from: u16,
    to: u16,
    flags: u8,
    (sequence, acknowledged): (u32, u32),
) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// A UDP datagram.
#[must_use]
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    udp_with_length(from, to, 8 + payload.len(), payload)
}

/// A UDP datagram with the given length field.
#[must_use]
pub fn udp_with_length(from: u16, to: u16, length: usize, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    let words = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [&words, payload].concat()
}

/// An SCTP packet: the common header and the start of an INIT chunk.
#[must_use]
pub fn sctp(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]);
    packet
}

/// An ICMP message, with an identifier at the place where echo has it.
#[must_use]
pub fn icmp(kind: u8, code: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![kind, code, 0, 0, high, low, 0, 1]
}

/// An echo request of a family.
#[must_use]
pub fn echo(v6: bool, id: u16) -> Vec<u8> {
    icmp(if v6 { 128 } else { 8 }, 0, id)
}

/// An echo reply of a family.
#[must_use]
pub fn echo_reply(v6: bool, id: u16) -> Vec<u8> {
    icmp(if v6 { 129 } else { 0 }, 0, id)
}

/// The ICMP protocol number of a family.
#[must_use]
pub const fn icmp_of(v6: bool) -> u8 {
    if v6 { protocol::ICMPV6 } else { protocol::ICMP }
}

/// An ICMP error that quotes a packet.
#[must_use]
pub fn icmp_error(kind: u8, code: u8, packet: &[u8]) -> Vec<u8> {
    [&icmp(kind, code, 0), packet].concat()
}

/// A message of neighbour discovery (RFC 4861 §4) with its link-layer address option.
#[must_use]
pub fn discovery(kind: u8, target: IpAddr) -> Vec<u8> {
    let option = if matches!(kind, 136 | 137) { 2 } else { 1 };
    discovery_with(kind, target, &link_option(option, FROM))
}

/// The same with other options.
#[must_use]
pub fn discovery_with(kind: u8, target: IpAddr, options: &[u8]) -> Vec<u8> {
    let target = octets(target);
    let (word, rest) = match kind {
        133 => ([0; 4], Vec::new()),
        // Hop limit, flags and lifetime; reachable time and retransmission timer.
        134 => ([64, 0, 0, 30], vec![0; 8]),
        136 => ([0x20, 0, 0, 0], target),
        137 => ([0; 4], [target.clone(), target].concat()),
        _ => ([0; 4], target),
    };
    [&[kind, 0, 0, 0], word.as_slice(), &rest, options].concat()
}

/// An option of eight bytes: a link-layer address (1 or 2) or a nonce (14).
#[must_use]
pub fn link_option(kind: u8, value: [u8; 6]) -> Vec<u8> {
    [&[kind, 1], value.as_slice()].concat()
}

/// A message of multicast listener discovery of version 1 (RFC 2710 §3): a query (130), a report (131)
/// or the end of one (132).
#[must_use]
pub fn listener(kind: u8, group: IpAddr) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], octets(group).as_slice()].concat()
}

/// A listener report of version 2 (RFC 3810 §5.2) about so many groups.
#[must_use]
pub fn listener_report(group: IpAddr, count: u8) -> Vec<u8> {
    let mut report = vec![143, 0, 0, 0, 0, 0, 0, count];
    for _ in 0..count {
        report.extend([4, 0, 0, 0]);
        report.extend(octets(group));
    }
    report
}

/// A frame with a listener message: hop limit 1, behind a router alert.
#[must_use]
pub fn listener_frame(from: IpAddr, to: IpAddr, message: &[u8]) -> Vec<u8> {
    let alert = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let frame = ip_frame(from, to, 0, &[&alert, message].concat());
    with_bytes(frame, IP + 7, &[1])
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An ARP packet.
#[must_use]
pub fn arp(operation: u16, sender: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4];
    body.extend(operation.to_be_bytes());
    for ip in [sender, target] {
        body.extend([6, 0xa7, 0, 0, 0, 9]);
        if let IpAddr::V4(ip) = ip {
            body.extend(ip.octets());
        }
    }
    body
}

/// An IPv6 extension header of `8 * (words + 1)` bytes, padded with an option that is skipped.
#[must_use]
pub fn extension(next: u8, words: u8) -> Vec<u8> {
    let length = 8 * (usize::from(words) + 1);
    let padding = u8::try_from(length.saturating_sub(4).min(255)).unwrap_or(0);
    let mut header = vec![next, words, 1, padding];
    header.resize(length, 0);
    header
}

/// An IPv6 fragment header; the offset is in units of eight bytes.
#[must_use]
pub fn fragment_header(next: u8, (offset, more): (u16, bool), id: u32) -> Vec<u8> {
    let [high, low] = ((offset & 0x1fff) << 3 | u16::from(more)).to_be_bytes();
    [&[next, 0, high, low], id.to_be_bytes().as_slice()].concat()
}

/// A fragment of a packet between two ends of either family.
#[must_use]
pub fn fragment(
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    place: (u16, bool),
    id: u16,
    payload: &[u8],
) -> Vec<u8> {
    if to.is_ipv6() {
        let header = fragment_header(protocol, place, id.into());
        return ip_frame(from, to, 44, &[&header, payload].concat());
    }
    let field = (place.0 & 0x1fff) | u16::from(place.1) << 13;
    let mut frame = ip_frame(from, to, protocol, payload);
    write(&mut frame, IP + 4, &id.to_be_bytes());
    write(&mut frame, IP + 6, &field.to_be_bytes());
    frame
}

/// Overwrites bytes, as far as the frame is long enough.
pub fn write(frame: &mut [u8], at: usize, bytes: &[u8]) {
    for (byte, new) in frame.iter_mut().skip(at).zip(bytes) {
        *byte = *new;
    }
}

/// The frame with these bytes at this offset.
#[must_use]
pub fn with_bytes(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    write(&mut frame, at, bytes);
    frame
}
