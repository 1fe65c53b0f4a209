//! Reject packets by the rules alone: which frames may get one, and its bytes.
//!
//! Written from the description of rejects in docs/policy.md, RFC 9293 §3.10.7.1, RFC 1812 §5.2.7.1 and RFC 4443
//! §3.1; it shares no code with the programs. [`about`] also forges reject packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::case::TestFrame;
use super::craft::{self, IP, flag};
use super::fixture::{self, Direction, protocol};
use super::network::Topology;
use crate::frame::{IPV4, IPV6, checksum};

/// Bytes of a packet behind its IP header that an ICMP error quotes.
const QUOTED: usize = 8;

/// The parts of an IP packet in a frame that matter here.
struct Asked<'a> {
    v6: bool,
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    /// The packet from its IP header on, with whatever follows it in the frame.
    packet: &'a [u8],
    /// Bytes after the IP header, by its length field.
    length: u16,
}

impl<'a> Asked<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(IP..)?;
        match word(frame, 12)? {
            IPV4 => {
                let ip = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
                Some(Self {
                    v6: false,
                    from: ip(12)?.into(),
                    to: ip(16)?.into(),
                    protocol: *packet.get(9)?,
                    length: word(packet, 2)?.wrapping_sub(20),
                    packet,
                })
            }
            IPV6 => {
                let ip = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
                Some(Self {
                    v6: true,
                    from: ip(8)?.into(),
                    to: ip(24)?.into(),
                    protocol: *packet.get(6)?,
                    length: word(packet, 4)?,
                    packet,
                })
            }
            _ => None,
        }
    }

    const fn header(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    fn body(&self) -> &'a [u8] {
        self.packet.get(self.header()..).unwrap_or_default()
    }

    /// No options, no extension headers, and the start of the transport header.
    fn is_plain(&self) -> bool {
        let Some([first, ..]) = self.packet.first_chunk::<8>() else {
            return false;
        };
        if self.v6 {
            return first >> 4 == 6 && !matches!(self.protocol, 0 | 43 | 44 | 51 | 60);
        }
        let offset = word(self.packet, 6).unwrap_or(0) & 0x1fff;
        *first == 0x45 && offset == 0
    }

    fn may_cause_one(&self) -> bool {
        match (self.protocol, self.body()) {
            (protocol::TCP, body) => body.get(13).is_some_and(|flags| flags & flag::RST == 0),
            (protocol::ICMP, [kind, ..]) if !self.v6 => !matches!(kind, 3 | 4 | 5 | 11 | 12),
            (protocol::ICMPV6, [kind, ..]) if self.v6 => *kind >= 128,
            _ => true,
        }
    }

    fn port(&self) -> u16 {
        match self.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => word(self.body(), 2).unwrap_or(0),
            _ => 0,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether an address can be that of one host elsewhere (RFC 1122 §3.2.1.3, RFC 4291 §2).
fn is_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            !matches!(first, 0 | 127 | 224..)
        }
        IpAddr::V6(ip) => !(ip.is_multicast() || ip.is_unspecified() || ip.is_loopback()),
    }
}

/// The reject packet that a fence may send about a frame of a direction; `None` if it must be silent.
#[must_use]
pub fn permitted(direction: Direction, frame: &[u8]) -> Option<Vec<u8>> {
    let asked = Asked::read(frame)?;
    let own = fixture::workload(asked.v6);
    let (local, peer) = match direction {
        Direction::Out => (asked.from, asked.to),
        Direction::In => (asked.to, asked.from),
    };
    let to_group = frame.first().is_none_or(|first| first & 1 != 0);
    let rejected = fixture::is_rejected(peer, asked.protocol, asked.port());
    let is_asked = !to_group
        && asked.is_plain()
        && (is_host(asked.from) && is_host(asked.to))
        && local == own
        && asked.may_cause_one()
        && rejected;
    is_asked.then(|| about(frame))?
}

/// The reject packet about a frame, whether or not there may be one: the frame that goes back.
#[must_use]
pub fn about(frame: &[u8]) -> Option<Vec<u8>> {
    let asked = Asked::read(frame)?;
    let quote = asked.packet.get(..asked.header() + QUOTED)?;
    let is_tcp = asked.protocol == protocol::TCP;
    let icmp = craft::icmp_of(asked.v6);
    let (number, mut body) = if is_tcp {
        (protocol::TCP, reset(&asked)?)
    } else {
        (icmp, error(&asked, quote))
    };
    let at = if is_tcp { 16 } else { 2 };
    craft::write(&mut body, at, &[0, 0]);
    let mut packet = craft::ip(asked.to, asked.from, number, &body);
    if !asked.v6 {
        // Never fragmented, without identification.
        craft::write(&mut packet, 4, &[0, 0, 0x40, 0]);
        craft::write(&mut packet, 10, &[0, 0]);
        let sum = checksum(&[packet.get(..20)?]);
        craft::write(&mut packet, 10, &sum.to_be_bytes());
    }
    let length = u16::try_from(body.len()).ok()?.to_be_bytes();
    let ends = packet.get(if asked.v6 { 8 } else { 12 }..asked.header())?;
    let sum = if is_tcp || asked.v6 {
        checksum(&[ends, &[0, number], &length, &body])
    } else {
        checksum(&[&body])
    };
    craft::write(&mut packet, asked.header() + at, &sum.to_be_bytes());
    let macs = [frame.get(6..12)?, frame.get(..6)?, frame.get(12..IP)?];
    Some([&macs.concat(), packet.as_slice()].concat())
}

fn error(asked: &Asked<'_>, quote: &[u8]) -> Vec<u8> {
    let (kind, code) = unreachable(asked);
    // Without identifier and sequence number.
    craft::with_bytes(craft::icmp_error(kind, code, quote), 4, &[0; 4])
}

/// Type and code: "port unreachable" for UDP, otherwise "administratively prohibited".
const fn unreachable(asked: &Asked<'_>) -> (u8, u8) {
    match (asked.v6, asked.protocol) {
        (false, protocol::UDP) => (3, 3),
        (false, _) => (3, 13),
        (true, protocol::UDP) => (1, 4),
        (true, _) => (1, 1),
    }
}

fn reset(asked: &Asked<'_>) -> Option<Vec<u8>> {
    let tcp: &[u8; 20] = asked.body().first_chunk()?;
    let number = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
    let flags = tcp[13];
    let (flags, numbers) = if flags & flag::ACK != 0 {
        (flag::RST, (number(8)?, 0))
    } else {
        let data = asked.length.wrapping_sub(u16::from(tcp[12] >> 4) * 4);
        let open = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        let next = number(4)?.wrapping_add(u32::from(data)).wrapping_add(open);
        (flag::RST | flag::ACK, (0, next))
    };
    let ports = (word(tcp, 2)?, word(tcp, 0)?);
    let reset = craft::tcp_with_sequence(ports.0, ports.1, flags, numbers);
    // No window.
    Some(craft::with_bytes(reset, 14, &[0, 0]))
}

/// A reject packet as it arrived at the sender of the rejected frame.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its first bytes.
    pub head: &'a [u8],
    /// Its whole length.
    pub length: usize,
}

/// What is wrong with a reject packet about a frame, if anything is.
#[must_use]
pub fn fault(
    topology: Topology,
    sent: &TestFrame,
    received: &Received<'_>,
) -> Option<&'static str> {
    let Some(expected) = permitted(sent.direction, &at_fence(topology, sent)) else {
        return Some("a reject packet about a frame that must get none");
    };
    let v6 = sent.bytes.get(12..IP) == Some(&IPV6.to_be_bytes());
    let is_reset = expected.get(IP + if v6 { 6 } else { 9 }) == Some(&protocol::TCP);
    let more = match (is_reset, v6) {
        (true, _) => 0,
        (false, false) => 28,
        (false, true) => 48,
    };
    if received.length > sent.bytes.len() + more {
        return Some("a reject packet that is larger than it may be");
    }
    let mut expected = expected;
    let mut head = received.head.to_vec();
    if topology == Topology::Routed {
        // The router writes its own hardware addresses; it has forwarded what goes outside.
        for frame in [&mut expected, &mut head] {
            craft::write(frame, 0, &[0; 12]);
        }
        if sent.direction == Direction::In {
            craft::write(&mut expected, IP + 7, &[63]);
        }
    }
    let is_partial = |sent: &TestFrame| sent.offload?.checksum;
    if is_partial(sent).is_some() {
        // The kernel was asked to complete the checksum, and so it is for the reject packet: it may lack
        // the sum of its content, and an error has its inverse in two unused bytes.
        let body = IP + if v6 { 40 } else { 20 };
        let places: &[usize] = if is_reset { &[16] } else { &[2, 6] };
        for at in places {
            craft::write(&mut expected, body + at, &[0; 2]);
            craft::write(&mut head, body + at, &[0; 2]);
        }
    }
    (expected != head).then_some("not the reject packet of its frame")
}

/// A frame as it reaches the fence: a router takes one hop from what comes from outside.
fn at_fence(topology: Topology, sent: &TestFrame) -> Vec<u8> {
    let mut frame = sent.bytes.clone();
    if (topology, sent.direction) == (Topology::Routed, Direction::In)
        && let Some(hops) = frame.get_mut(IP + 7)
    {
        *hops = hops.saturating_sub(1);
    }
    frame
}
