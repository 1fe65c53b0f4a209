//! IPv6: the chain of extension headers, and neighbour and multicast listener discovery.

use std::net::{IpAddr, Ipv6Addr};

use super::{Packet, Part, ip6, word};
use crate::attack::fixture::{self, Direction};

/// Parses a packet up to the first header that is not an extension header, or to a later fragment's
/// payload.
pub(super) fn read(body: &[u8], segmented: bool) -> Option<Packet<'_>> {
    let first = *body.get(..40)?.first()?;
    let stated = usize::from(word(body, 4)?);
    let length = if stated == 0 && segmented {
        body.len() - 40
    } else {
        stated
    };
    if first >> 4 != 6 {
        return None;
    }
    let payload = body.get(40..40 + length)?;
    let chain = walk(*body.get(6)?, payload, body.get(40..)?)?;
    Some(Packet {
        from: IpAddr::V6(ip6(body, 8)?),
        to: IpAddr::V6(ip6(body, 24)?),
        hops: *body.get(7)?,
        part: chain.part,
        protocol: chain.next,
        before: chain.before,
        payload: payload.get(chain.at..)?,
    })
}

pub(super) struct Chain {
    pub(super) next: u8,
    pub(super) at: usize,
    pub(super) part: Part,
    /// Bytes from the start of the fragmentable part.
    pub(super) before: usize,
}

/// Walks a chain of at most eight extension headers, with hop-by-hop options only first and at most
/// one fragment header. Eight bytes of each header are read from the frame, whatever its length:
/// `beyond` extends past the packet.
pub(super) fn walk(first: u8, payload: &[u8], beyond: &[u8]) -> Option<Chain> {
    let mut chain = Chain {
        next: first,
        at: 0,
        part: Part::Whole,
        before: 0,
    };
    let mut fragmentable = None;
    for count in 0.. {
        let kind = chain.next;
        if !matches!(kind, 0 | 43 | 44 | 51 | 60) || matches!(chain.part, Part::Later { .. }) {
            break;
        }
        if count == 8 || (kind == 0 && count != 0) {
            return None;
        }
        let header: &[u8; 8] = beyond.get(chain.at..)?.first_chunk()?;
        let [next, length, third, fourth, id @ ..] = *header;
        let size = match kind {
            44 => 8,
            51 => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if kind == 43 && third == 0 {
            return None;
        }
        chain.next = next;
        chain.at += size;
        payload.get(..chain.at)?;
        if kind == 44 {
            if fragmentable.replace(chain.at).is_some() {
                return None;
            }
            let field = u16::from_be_bytes([third, fourth]);
            let id = u32::from_be_bytes(id);
            let offset = usize::from(field & 0xfff8);
            chain.part = match (offset, field & 1 != 0) {
                (0, false) => Part::Whole,
                (0, true) => Part::First(id),
                _ => Part::Later { id, offset },
            };
        }
    }
    chain.before = fragmentable.map_or(0, |start| chain.at - start);
    Some(chain)
}

/// Whether ICMPv6 messages of this type belong to neighbour or multicast listener discovery.
pub(super) const fn is_discovery(kind: u8) -> bool {
    matches!(kind, 130..=137 | 143)
}

/// Whether a discovery message may pass: only within the link, only about the sender, and not a
/// router's.
pub(super) fn discovery_is_allowed(
    direction: Direction,
    packet: &Packet,
    sender: [u8; 6],
) -> Option<()> {
    if packet.part != Part::Whole {
        return None;
    }
    let (IpAddr::V6(from), IpAddr::V6(to)) = (packet.from, packet.to) else {
        return None;
    };
    let kind = *packet.payload.first()?;
    let unspecified = from == Ipv6Addr::UNSPECIFIED;
    if !matches!(kind, 133..=137) {
        // RFC 2710 §3, RFC 3810 §5: from a link-local or unspecified address, to a multicast group.
        let local = unspecified || is_link_local(from);
        return (local && to.is_multicast()).then_some(());
    }
    if packet.hops != 255 || (unspecified && !to.is_multicast()) {
        return None;
    }
    if direction == Direction::In {
        return Some(());
    }
    match kind {
        133 => (to.is_multicast() || is_link_local(to)).then_some(()),
        135 | 136 => {
            let target = ip6(packet.payload.get(..24)?, 8)?;
            let about = if kind == 136 { target } else { from };
            let fits = |ip| is_own_address(packet.payload, sender, ip);
            let link_local = is_link_local(from);
            ((kind == 135 || fits(about)) && (!link_local || fits(from))).then_some(())
        }
        _ => None,
    }
}

/// Whether the workload may announce this address: its own address, or the link-local address
/// derived from the hardware address that it sends from (EUI-64), unless the message binds another
/// hardware address to it.
fn is_own_address(message: &[u8], sender: [u8; 6], ip: Ipv6Addr) -> bool {
    if fixture::workload(true) == IpAddr::V6(ip) {
        return true;
    }
    let [a, b, c, d, e, f] = sender;
    let derived = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ];
    let options = message.get(24..).unwrap_or_default();
    let bound = match options {
        [] => true,
        [1 | 2, 1, hardware @ ..] => hardware == sender,
        _ => false,
    };
    ip.octets() == derived && bound
}

pub(super) const fn is_link_local(ip: Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    first & 0xffc0 == 0xfe80
}
