//! Transport headers, and the packets that ICMP errors quote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{End, Packet, Part, discovery, ip4, ip6, ipv6, word};
use crate::attack::fixture::protocol;

/// A parsed transport header.
pub(super) struct Message {
    pub(super) ports: (u32, u32),
    /// Length of the header.
    pub(super) headers: usize,
    pub(super) opens: bool,
    pub(super) is_error: bool,
    pub(super) is_discovery: bool,
}

impl Message {
    const fn of(ports: (u32, u32), headers: usize) -> Self {
        Self {
            ports,
            headers,
            opens: false,
            is_error: false,
            is_discovery: false,
        }
    }

    /// Whether it configures an address, so that its source may be unspecified or link-local.
    pub(super) fn configures(&self, packet: &Packet) -> bool {
        let dhcp = |from, to| {
            packet.part == Part::Whole
                && packet.protocol == protocol::UDP
                && self.ports == (from, to)
        };
        match (packet.from, packet.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                from == Ipv4Addr::UNSPECIFIED && to == Ipv4Addr::BROADCAST && dhcp(68, 67)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let local = discovery::is_link_local(from);
                let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
                (local && to == servers && dhcp(546, 547))
                    || (self.is_discovery && (local || from == Ipv6Addr::UNSPECIFIED))
            }
            _ => false,
        }
    }
}

/// Parses the transport header of a whole packet or of a first fragment, which must contain all of
/// it.
pub(super) fn read(packet: &Packet, segmented: bool) -> Option<Message> {
    let payload = packet.payload;
    let ports = || Some((word(payload, 0)?.into(), word(payload, 2)?.into()));
    match packet.protocol {
        protocol::TCP => {
            let fixed: &[u8; 20] = payload.first_chunk()?;
            let length = usize::from(fixed[12] >> 4) * 4;
            payload.get(..length)?;
            let flags = fixed[13];
            let mut message = Message::of(ports()?, length);
            message.opens = flags & 0x17 == 0x02;
            (length >= 20 && flags_are_valid(flags)).then_some(message)
        }
        protocol::UDP => {
            payload.get(..8)?;
            let stated = usize::from(word(payload, 4)?);
            let whole = packet.part == Part::Whole && !segmented;
            let fits = stated >= 8 && (!whole || stated <= payload.len());
            fits.then_some(Message::of(ports()?, 8))
        }
        protocol::SCTP => payload.get(..12).and(Some(Message::of(ports()?, 12))),
        protocol::ICMP if !packet.to.is_ipv6() => icmp(packet),
        protocol::ICMPV6 if packet.to.is_ipv6() => icmp(packet),
        _ => Some(Message::of((0, 0), 0)),
    }
}

/// Valid flags: SYN, SYN+ACK, RST, RST+ACK, FIN+ACK, ACK; URG also with those without RST or
/// SYN+ACK.
fn flags_are_valid(flags: u8) -> bool {
    matches!(
        flags & 0x37,
        0x02 | 0x22 | 0x12 | 0x04 | 0x14 | 0x11 | 0x31 | 0x10 | 0x30
    )
}

fn icmp(packet: &Packet) -> Option<Message> {
    let head: &[u8; 8] = packet.payload.first_chunk()?;
    let [kind, _, _, _, high, low, ..] = *head;
    let v6 = packet.to.is_ipv6();
    let mut message = Message::of(echo_ports(v6, kind, u16::from_be_bytes([high, low])), 8);
    message.is_error = is_error(v6, kind);
    message.is_discovery = v6 && discovery::is_discovery(kind);
    let special = message.is_error || message.is_discovery;
    (!special || packet.part == Part::Whole).then_some(message)
}

const fn is_error(v6: bool, kind: u8) -> bool {
    if v6 {
        kind < 128
    } else {
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    }
}

/// Substitutes for the responder's port, for echo and for other messages; no identifier is as
/// large.
const ECHO: u32 = 1 << 16;
const OTHER: u32 = 2 * ECHO;

/// Echo requests with one identifier and their replies are one flow; so is every other type of
/// request with its replies, whose type is the next one.
fn echo_ports(v6: bool, kind: u8, id: u16) -> (u32, u32) {
    match (v6, kind) {
        (false, 8) | (true, 128) => (id.into(), ECHO),
        (false, 0) | (true, 129) => (ECHO, id.into()),
        (false, 14 | 16 | 18) | (true, 140) => (OTHER, ECHO + u32::from(kind)),
        _ => (ECHO + u32::from(kind) + 1, OTHER),
    }
}

/// The packet quoted in an ICMP error, as far as it was quoted.
pub(super) struct Quoted {
    pub(super) protocol: u8,
    pub(super) from: End,
    pub(super) to: End,
}

pub(super) fn quoted(packet: &Packet) -> Option<Quoted> {
    let inside = packet.payload.get(8..)?;
    let v6 = packet.to.is_ipv6();
    let (protocol, from, to, transport) = if v6 {
        let chain = ipv6::walk(*inside.get(6)?, inside.get(40..)?, inside.get(40..)?)?;
        if inside.first()? >> 4 != 6 || matches!(chain.part, Part::Later { .. }) {
            return None;
        }
        let (from, to) = (IpAddr::V6(ip6(inside, 8)?), IpAddr::V6(ip6(inside, 24)?));
        (chain.next, from, to, inside.get(40 + chain.at..)?)
    } else {
        let [version, ..] = *inside.get(..20)? else {
            return None;
        };
        let header = usize::from(version & 15) * 4;
        if version >> 4 != 4 || header < 20 || word(inside, 6)? & 0x1fff != 0 {
            return None;
        }
        let (from, to) = (ip4(inside, 12)?, ip4(inside, 16)?);
        (*inside.get(9)?, from, to, inside.get(header..)?)
    };
    let head: &[u8; 8] = transport.first_chunk()?;
    let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
    let [kind, _, _, _, high, low, ..] = *head;
    let (source, destination) = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            (word(head, 0)?.into(), word(head, 2)?.into())
        }
        own if own == icmp && is_error(v6, kind) => return None,
        own if own == icmp => echo_ports(v6, kind, u16::from_be_bytes([high, low])),
        _ => (0, 0),
    };
    Some(Quoted {
        protocol,
        from: (from, source),
        to: (to, destination),
    })
}
