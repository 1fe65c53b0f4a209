//! Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, RFC 3810): what passes
//! without a rule, because it says nothing but what the link needs, to where the link needs it.

use std::net::{IpAddr, Ipv6Addr};

use super::{Packet, Part, ip6, word};
use crate::attack::fixture::{self, Direction};

const NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// RFC 4861: advertisements and solicitations of routers and neighbours, redirects.
const NEIGHBOUR: std::ops::RangeInclusive<u8> = 133..=137;

/// Whether ICMPv6 messages of this type belong to neighbour or multicast listener discovery.
pub(super) const fn is_discovery(kind: u8) -> bool {
    matches!(kind, 130..=137 | 143)
}

/// Whether a discovery message may pass.
pub(super) fn is_allowed(direction: Direction, packet: &Packet, sender: [u8; 6]) -> Option<()> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (packet.from, packet.to) else {
        return None;
    };
    let kind = *packet.payload.first()?;
    let leaves = direction == Direction::Out;
    let known = to.is_multicast() || is_link_local(to) || IpAddr::V6(to) == fixture::workload(true);
    if packet.part != Part::Whole || !leaves && !known {
        return None;
    }
    if !NEIGHBOUR.contains(&kind) {
        // RFC 2710 §3, RFC 3810 §5: from a link-local or unspecified address, to a multicast group.
        let local = from == Ipv6Addr::UNSPECIFIED || is_link_local(from);
        let stays = local && to.is_multicast();
        return (stays && !(leaves && kind == 130) && is_listener(packet)).then_some(());
    }
    if packet.hops != 255 || (from == Ipv6Addr::UNSPECIFIED && !to.is_multicast()) {
        return None;
    }
    if matches!(kind, 134 | 137) {
        return (!leaves).then_some(());
    }
    let said = read(packet, kind)?;
    fits_group(kind, &said, from, to)?;
    if !leaves {
        return Some(());
    }
    let near = is_link_local(to)
        || kind != 133 && [fixture::node(true), fixture::workload(true)].contains(&IpAddr::V6(to));
    let unicast = near && (kind != 135 || said.target == Some(to));
    if !to.is_multicast() && !unicast {
        return None;
    }
    let own = |ip: Ipv6Addr| {
        IpAddr::V6(ip) == fixture::workload(true)
            || ip == derived(sender) && said.hardware.is_none_or(|bound| bound == sender)
    };
    let claims = kind == 136 || kind == 135 && from == Ipv6Addr::UNSPECIFIED;
    let target = said.target.filter(|_| claims);
    let source = Some(from).filter(|from| is_link_local(*from));
    target.into_iter().chain(source).all(own).then_some(())
}

/// What a solicitation or advertisement says.
struct Said {
    target: Option<Ipv6Addr>,
    hardware: Option<[u8; 6]>,
    is_answer: bool,
}

/// Reads a message that has the form of its type and nothing else.
fn read(packet: &Packet, kind: u8) -> Option<Said> {
    let message = packet.payload;
    let length = if kind == 133 { 8 } else { 24 };
    let (head, mut options) = message.split_at_checked(length)?;
    let [_, code, _, _, flags, a, b, c, ..] = *head else {
        return None;
    };
    let others = if kind == 136 { flags & 0x1f } else { flags };
    if !packet.ends_the_frame || !packet.extensions.is_empty() || [code, others, a, b, c] != [0; 5]
    {
        return None;
    }
    let mut said = Said {
        target: if kind == 133 {
            None
        } else {
            Some(ip6(head, 8)?)
        },
        hardware: None,
        is_answer: flags & 0x40 != 0,
    };
    let mut has_nonce = false;
    while let Some((option, rest)) = options.split_first_chunk::<8>() {
        let [kind, 1, hardware @ ..] = *option else {
            return None;
        };
        let repeated = match kind {
            1 | 2 => said.hardware.replace(hardware).is_some(),
            14 => std::mem::replace(&mut has_nonce, true),
            _ => true,
        };
        if repeated {
            return None;
        }
        options = rest;
    }
    options.is_empty().then_some(said)
}

/// Whether a message may go to its group, and is about a host.
fn fits_group(kind: u8, said: &Said, from: Ipv6Addr, to: Ipv6Addr) -> Option<()> {
    let has_source = from != Ipv6Addr::UNSPECIFIED;
    let group = match (kind, said.target) {
        (133, _) => to == ROUTERS,
        (135, Some(target)) => to == fixture::solicited_node(target) || to == NODES && has_source,
        _ => to == NODES && !said.is_answer,
    };
    let about_host = said.target.is_none_or(|target| !target.is_multicast());
    let binds = has_source || said.hardware.is_none();
    ((group || !to.is_multicast()) && about_host && binds).then_some(())
}

/// Whether a listener message has a router alert, and exactly what it states.
fn is_listener(packet: &Packet) -> bool {
    let alerts = match *packet.extensions {
        [_, 0, 5, 2, 0, 0, padding, 0] | [_, 0, padding, 0, 5, 2, 0, 0] => padding < 2,
        _ => false,
    };
    let message = packet.payload;
    let says = match message.first() {
        Some(143) => has_records(message),
        Some(130) if message.len() > 24 => {
            let sources = word(message, 26).map_or(0, usize::from);
            message.len() == 28 + 16 * sources
        }
        _ => message.len() == 24,
    };
    let has_form = packet.first_header == 0 && packet.hops == 1 && packet.ends_the_frame;
    has_form && alerts && message.len() >= 24 && message.get(1) == Some(&0) && says
}

fn has_records(message: &[u8]) -> bool {
    let (Some(count), Some(mut rest)) = (word(message, 6), message.get(8..)) else {
        return false;
    };
    for _ in 0..count {
        let [_, 0, high, low, 0xff, ..] = *rest else {
            return false;
        };
        let length = 20 + 16 * usize::from(u16::from_be_bytes([high, low]));
        match rest.get(length..) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    count <= 72 && rest.is_empty()
}

/// The link-local address derived from a hardware address (EUI-64).
const fn derived([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let words = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]];
    let [k, l, m, n] = [
        u16::from_be_bytes(words[0]),
        u16::from_be_bytes(words[1]),
        u16::from_be_bytes(words[2]),
        u16::from_be_bytes(words[3]),
    ];
    Ipv6Addr::new(0xfe80, 0, 0, 0, k, l, m, n)
}

pub(super) const fn is_link_local(ip: Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    first & 0xffc0 == 0xfe80
}
