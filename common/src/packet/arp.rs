//! ARP (RFC 826) over Ethernet and IPv4: a workload may announce its own addresses only.
//!
//! Invariants: the sender address is the workload's, or unspecified in a probe (RFC 5227 §2.1.1).
//! Hardware addresses are not checked, because the interface identifies the sender.

use super::{ETHERNET, Frame, be16};
use crate::{
    drop_reason::DropReason,
    endpoint::{Endpoint, Owns},
    net::{Address, Ip4},
};

/// Whether the workload may send the ARP packet of this frame.
///
/// # Errors
/// The drop reason.
#[inline(always)]
pub fn may_send<F: Frame>(frame: &F, endpoint: &Endpoint) -> Result<(), DropReason> {
    let mut h = [0u8; 28];
    if !frame.load(ETHERNET, &mut h) {
        return Err(DropReason::Truncated);
    }
    let ethernet_over_ip = be16(h[0], h[1]) == 1
        && be16(h[2], h[3]) == super::ethertype::IPV4
        && h[4] == 6
        && h[5] == 4;
    if !ethernet_over_ip || !matches!(be16(h[6], h[7]), 1 | 2) {
        return Err(DropReason::ArpHeader);
    }
    let sender = Ip4::from_wire([h[14], h[15], h[16], h[17]]);
    let is_probe = sender == Ip4::UNSPECIFIED && be16(h[6], h[7]) == 1;
    if endpoint.owns(sender) || is_probe {
        Ok(())
    } else {
        Err(DropReason::ArpSpoof)
    }
}
