//! ARP (RFC 826) over Ethernet and IPv4: a workload may announce its own addresses only.
//!
//! Invariants: the sender address is the workload's, or unspecified in a probe for an
//! own address (RFC 5227 §2.1.1): a host that receives one for its address gives it up. A
//! packet has 28 bytes, and after it at most the padding of the shortest Ethernet frame, which is zero
//! from a workload: ARP passes without policy, so it carries nothing else. Hardware addresses are not
//! checked, because the interface identifies the sender.

use super::{ETHERNET, Frame, be16};
use crate::{
    drop_reason::DropReason,
    endpoint::{Endpoint, Owns},
    net::{Address, Ip4},
};

/// Bytes of a packet.
const PACKET: u32 = 28;
/// Bytes that fill the shortest Ethernet frame, 60 bytes without its checksum.
const PADDING: u32 = 60 - ETHERNET - PACKET;

/// Whether the workload may send the ARP packet of this frame.
///
/// # Errors
/// The drop reason.
#[inline(always)]
pub fn may_send<F: Frame>(frame: &F, endpoint: &Endpoint) -> Result<(), DropReason> {
    let h = read(frame)?;
    if !is_padding_zero(frame) {
        return Err(DropReason::ArpHeader);
    }
    let sender = Ip4::from_wire([h[14], h[15], h[16], h[17]]);
    let target = Ip4::from_wire([h[24], h[25], h[26], h[27]]);
    let is_probe = sender == Ip4::UNSPECIFIED && be16(h[6], h[7]) == 1 && endpoint.owns(target);
    if endpoint.owns(sender) || is_probe {
        Ok(())
    } else {
        Err(DropReason::ArpSpoof)
    }
}

/// Whether the ARP packet of this frame may arrive at a workload. Padding may have any content:
/// network cards pad with what they sent before.
///
/// # Errors
/// The drop reason.
#[inline(always)]
pub fn may_arrive<F: Frame>(frame: &F) -> Result<(), DropReason> {
    read(frame).map(|_| ())
}

/// Reads a request or reply for IPv4 over Ethernet.
#[inline(always)]
fn read<F: Frame>(frame: &F) -> Result<[u8; PACKET as usize], DropReason> {
    let mut h = [0u8; PACKET as usize];
    if !frame.load(ETHERNET, &mut h) {
        return Err(DropReason::Truncated);
    }
    let ethernet_over_ip = be16(h[0], h[1]) == 1
        && be16(h[2], h[3]) == super::ethertype::IPV4
        && h[4] == 6
        && h[5] == 4;
    let fits = frame.len() <= ETHERNET + PACKET + PADDING;
    if !ethernet_over_ip || !matches!(be16(h[6], h[7]), 1 | 2) || !fits {
        return Err(DropReason::ArpHeader);
    }
    Ok(h)
}

#[inline(always)]
fn is_padding_zero<F: Frame>(frame: &F) -> bool {
    for at in ETHERNET + PACKET..ETHERNET + PACKET + PADDING {
        let mut byte = [0u8; 1];
        if at < frame.len() && (!frame.load(at, &mut byte) || byte != [0]) {
            return false;
        }
    }
    true
}
