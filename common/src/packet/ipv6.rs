//! IPv6 (RFC 8200) with its extension headers.
//!
//! Invariants: at most `MAX_EXTENSIONS` headers are walked, and every one must lie inside the
//! packet. A hop-by-hop header must be the first. A routing header of type 0 (RFC 5095) or with
//! segments left, which name further destinations, a second fragment header and a fragment that could
//! overwrite a TCP header (RFC 3128) are refused. An atomic fragment (RFC 6946) is not treated as a
//! fragment.

use super::{ETHERNET, Frame, Kind, Packet, Parse, be16, protocol, transport};
use crate::{drop_reason::DropReason, net::Ip6};

/// How many extension headers a packet may have.
const MAX_EXTENSIONS: u32 = 8;

const HEADER: u32 = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

#[inline(always)]
pub(super) const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

/// Walks the header chain that starts with `packet.protocol` at `packet.transport`. Sets both to
/// the transport header, or to the payload of a later fragment.
#[inline(always)]
fn walk<F: Frame>(frame: &F, packet: &mut Packet<Ip6>) -> Result<(), DropReason> {
    let mut fragmented = false;
    for seen in 0..=MAX_EXTENSIONS {
        if !is_extension(packet.protocol) || packet.kind == Kind::LaterFragment {
            return Ok(());
        }
        if packet.protocol == HOP_BY_HOP && seen != 0 {
            break;
        }
        step_over(frame, packet, &mut fragmented)?;
    }
    Err(DropReason::ExtensionHeaders)
}

/// Advances by one header. Not inlined in the programs either, so that the loop is not unrolled
/// into eight copies on the 512-byte stack.
#[inline(never)]
fn step_over<F: Frame>(
    frame: &F,
    packet: &mut Packet<Ip6>,
    fragmented: &mut bool,
) -> Result<(), DropReason> {
    let next = packet.protocol;
    let mut h = [0u8; 8];
    if !frame.load(packet.transport, &mut h) {
        return Err(DropReason::Truncated);
    }
    let size = match next {
        FRAGMENT => 8,
        AUTHENTICATION => (u32::from(h[1]) + 2) * 4,
        _ => (u32::from(h[1]) + 1) * 8,
    };
    // The packet goes elsewhere from its destination: type 0, or any type with segments left.
    if next == ROUTING && (h[2] == 0 || h[3] != 0) {
        return Err(DropReason::RoutingHeader);
    }
    packet.protocol = h[0];
    packet.transport += size;
    if packet.transport > packet.end {
        return Err(DropReason::ExtensionHeaders);
    }
    if *fragmented {
        packet.datagram_offset += size;
    }
    if next == FRAGMENT {
        if *fragmented {
            return Err(DropReason::ExtensionHeaders);
        }
        *fragmented = true;
        let field = be16(h[2], h[3]);
        packet.fragment_id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
        if field >> 3 == 1 && packet.protocol == protocol::TCP {
            return Err(DropReason::TinyFragment);
        }
        if field & 0xfff8 != 0 {
            packet.kind = Kind::LaterFragment;
            packet.datagram_offset = u32::from(field & 0xfff8);
        } else if field & 1 != 0 {
            packet.kind = Kind::FirstFragment;
        }
    }
    Ok(())
}

#[inline(always)]
fn set_ends(packet: &mut Packet<Ip6>, h: &[u8; 40]) {
    let words: [u64; 5] = zerocopy::transmute!(*h);
    packet.source = Ip6 {
        first: words[1],
        last: words[2],
    };
    packet.destination = Ip6 {
        first: words[3],
        last: words[4],
    };
    packet.protocol = h[6];
    packet.hop_limit = h[7];
}

impl Parse for Ip6 {
    #[inline(always)]
    fn parse<F: Frame>(frame: &F, packet: &mut Packet<Self>) -> Result<(), DropReason> {
        let mut h = [0u8; 40];
        if !frame.peek::<40, ETHERNET>(&mut h) {
            return Err(DropReason::Truncated);
        }
        if h[0] >> 4 != 6 {
            return Err(DropReason::Ipv6Header);
        }
        let available = frame.len().wrapping_sub(ETHERNET + HEADER);
        let mut payload = u32::from(be16(h[4], h[5]));
        if payload == 0 && frame.is_gso() {
            payload = available;
        }
        if payload > available {
            return Err(DropReason::IpLength);
        }
        set_ends(packet, &h);
        packet.length = HEADER + payload;
        packet.transport = ETHERNET + HEADER;
        packet.end = packet.transport + payload;
        walk(frame, packet)?;
        if packet.kind != Kind::LaterFragment {
            transport::parse(frame, packet)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn parse_quoted<F: Frame>(
        frame: &F,
        at: u32,
        packet: &mut Packet<Self>,
    ) -> Result<(), DropReason> {
        let mut h = [0u8; 40];
        if !frame.load(at, &mut h) || h[0] >> 4 != 6 {
            return Err(DropReason::IcmpErrorUnmatched);
        }
        set_ends(packet, &h);
        packet.transport = at + HEADER;
        packet.end = frame.len();
        if walk(frame, packet).is_err() || packet.kind == Kind::LaterFragment {
            return Err(DropReason::IcmpErrorUnmatched);
        }
        transport::parse_quoted(frame, packet)
    }
}
