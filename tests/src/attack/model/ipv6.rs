//! IPv6: the header and the chain of extension headers.

use std::net::IpAddr;

use super::{Packet, Part, ip6, word};

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
        first_header: *body.get(6)?,
        extensions: payload.get(..chain.at)?,
        ends_the_frame: !segmented && body.len() == 40 + length,
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
        if kind == 43 && (third == 0 || fourth != 0) {
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
