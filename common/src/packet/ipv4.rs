//! IPv4 (RFC 791), options and fragments included.
//!
//! Invariants: the header length comes from the header. The packet ends where its total length
//! says, whatever padding the frame has. A fragment that could overwrite a TCP header is refused
//! (RFC 3128). Options are skipped, not interpreted.

use super::{ETHERNET, Frame, Kind, Packet, Parse, be16, protocol, transport};
use crate::{drop_reason::DropReason, net::Ip4};

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

impl Parse for Ip4 {
    #[inline(always)]
    fn parse<F: Frame>(frame: &F, packet: &mut Packet<Self>) -> Result<(), DropReason> {
        let mut h = [0u8; 20];
        if !frame.peek::<20, ETHERNET>(&mut h) {
            return Err(DropReason::Truncated);
        }
        let header = u32::from(h[0] & 0xf) * 4;
        if h[0] >> 4 != 4 || header < 20 {
            return Err(DropReason::Ipv4Header);
        }
        let available = frame.len().wrapping_sub(ETHERNET);
        let mut total = u32::from(be16(h[2], h[3]));
        if total == 0 && frame.is_gso() {
            total = available;
        }
        if total < header || total > available {
            return Err(DropReason::IpLength);
        }
        packet.source = Self::from_wire([h[12], h[13], h[14], h[15]]);
        packet.destination = Self::from_wire([h[16], h[17], h[18], h[19]]);
        packet.protocol = h[9];
        packet.hop_limit = h[8];
        packet.length = total;
        packet.transport = ETHERNET + header;
        packet.end = ETHERNET + total;
        packet.fragment_id = u32::from(be16(h[4], h[5]));
        let fragment = be16(h[6], h[7]);
        if fragment & OFFSET != 0 {
            if fragment & OFFSET == 1 && packet.protocol == protocol::TCP {
                return Err(DropReason::TinyFragment);
            }
            packet.kind = Kind::LaterFragment;
            packet.datagram_offset = u32::from(fragment & OFFSET) * 8;
            return Ok(());
        }
        if fragment & MORE_FRAGMENTS != 0 {
            packet.kind = Kind::FirstFragment;
        }
        transport::parse(frame, packet)
    }

    #[inline(always)]
    fn parse_quoted<F: Frame>(
        frame: &F,
        at: u32,
        packet: &mut Packet<Self>,
    ) -> Result<(), DropReason> {
        let mut h = [0u8; 20];
        if !frame.load(at, &mut h) || h[0] >> 4 != 4 || h[0] & 0xf < 5 {
            return Err(DropReason::IcmpErrorUnmatched);
        }
        if be16(h[6], h[7]) & OFFSET != 0 {
            return Err(DropReason::IcmpErrorUnmatched);
        }
        packet.source = Self::from_wire([h[12], h[13], h[14], h[15]]);
        packet.destination = Self::from_wire([h[16], h[17], h[18], h[19]]);
        packet.protocol = h[9];
        packet.transport = at + u32::from(h[0] & 0xf) * 4;
        transport::parse_quoted(frame, packet)
    }
}
