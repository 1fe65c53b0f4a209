//! IPv6 (RFC 8200) with its extension headers.
//!
//! Invariants: at most `MAX_EXTENSIONS` headers are walked, and every one must lie inside the
//! packet; hop-by-hop options come first or not at all; a routing header of type 0 (RFC 5095) and
//! a second fragment header are refused. An atomic fragment (RFC 6946) is no fragment.

use super::{Frame, Kind, Packet, Parse, be16, transport};
use crate::{net::Ip6, reason::DropReason};

/// How many extension headers a packet may have.
const MAX_EXTENSIONS: u32 = 8;

const HEADER: u32 = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Walks the chain that starts with `packet.protocol` at `packet.transport`; leaves both at the
/// transport header, or at the payload of a later fragment.
#[inline(always)]
fn walk<F: Frame>(frame: &F, packet: &mut Packet<Ip6>) -> Result<(), DropReason> {
    let mut fragmented = false;
    let mut first = true;
    let mut left = MAX_EXTENSIONS;
    loop {
        let next = packet.protocol;
        if !matches!(
            next,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
        ) {
            return Ok(());
        }
        if left == 0 || (next == HOP_BY_HOP && !first) {
            return Err(DropReason::ExtensionHeaders);
        }
        left -= 1;
        first = false;
        let mut h = [0u8; 8];
        if !frame.load(packet.transport, &mut h) {
            return Err(DropReason::Truncated);
        }
        let size = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(h[1]) + 2) * 4,
            _ => (u32::from(h[1]) + 1) * 8,
        };
        if next == ROUTING && h[2] == 0 {
            return Err(DropReason::RoutingHeader);
        }
        packet.protocol = h[0];
        packet.transport += size;
        if packet.transport > packet.end {
            return Err(DropReason::ExtensionHeaders);
        }
        if next == FRAGMENT {
            if fragmented {
                return Err(DropReason::ExtensionHeaders);
            }
            fragmented = true;
            let field = be16(h[2], h[3]);
            packet.fragment_id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
            if field & 0xfff8 != 0 {
                packet.kind = Kind::LaterFragment;
                return Ok(());
            }
            if field & 1 != 0 {
                packet.kind = Kind::FirstFragment;
            }
        }
    }
}

#[inline(always)]
fn ends(h: &[u8; 40]) -> Packet<Ip6> {
    let source = [
        h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19], h[20],
        h[21], h[22], h[23],
    ];
    let destination = [
        h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31], h[32], h[33], h[34], h[35], h[36],
        h[37], h[38], h[39],
    ];
    let mut packet = Packet::between(Ip6::from_wire(source), Ip6::from_wire(destination));
    packet.protocol = h[6];
    packet.hop_limit = h[7];
    packet
}

impl Parse for Ip6 {
    #[inline(always)]
    fn parse<F: Frame>(frame: &F, at: u32) -> Result<Packet<Self>, DropReason> {
        let mut h = [0u8; 40];
        if !frame.load(at, &mut h) {
            return Err(DropReason::Truncated);
        }
        if h[0] >> 4 != 6 {
            return Err(DropReason::Ipv6Header);
        }
        let available = frame.len().wrapping_sub(at + HEADER);
        let mut payload = u32::from(be16(h[4], h[5]));
        if payload == 0 && frame.is_gso() {
            payload = available;
        }
        if payload > available {
            return Err(DropReason::IpLength);
        }
        let mut packet = ends(&h);
        packet.length = HEADER + payload;
        packet.transport = at + HEADER;
        packet.end = packet.transport + payload;
        walk(frame, &mut packet)?;
        if packet.kind != Kind::LaterFragment {
            transport::parse(frame, &mut packet)?;
        }
        Ok(packet)
    }

    #[inline(always)]
    fn parse_quoted<F: Frame>(frame: &F, at: u32) -> Result<Packet<Self>, DropReason> {
        let mut h = [0u8; 40];
        if !frame.load(at, &mut h) || h[0] >> 4 != 6 {
            return Err(DropReason::IcmpErrorUnmatched);
        }
        let mut packet = ends(&h);
        packet.transport = at + HEADER;
        packet.end = frame.len();
        if walk(frame, &mut packet).is_err() || packet.kind == Kind::LaterFragment {
            return Err(DropReason::IcmpErrorUnmatched);
        }
        transport::parse_quoted(frame, &mut packet)?;
        Ok(packet)
    }
}
