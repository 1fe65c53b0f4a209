//! Which source addresses a workload may use.
//!
//! Invariant: its own addresses, and what address configuration needs: none at all, or a link-local
//! one, in discovery and DHCP requests to the link. Such packets pass without policy.

use super::{Kind, Packet, dhcp::Dhcp as _};
use crate::{
    endpoint::{Endpoint, Owns},
    net::{Address, Ip4, Ip6},
};

/// Whether the workload may use this source address: an own address, or what address configuration
/// needs.
pub trait OwnSource: Address {
    /// True if the workload may use the packet's source address.
    fn is_own(packet: &Packet<Self>, endpoint: &Endpoint) -> bool;
}

impl OwnSource for Ip4 {
    #[inline(always)]
    fn is_own(packet: &Packet<Self>, endpoint: &Endpoint) -> bool {
        endpoint.owns(packet.source) || Self::is_request(packet)
    }
}

impl OwnSource for Ip6 {
    #[inline(always)]
    fn is_own(packet: &Packet<Self>, endpoint: &Endpoint) -> bool {
        if endpoint.owns(packet.source) {
            return true;
        }
        if packet.source == Self::UNSPECIFIED {
            // Duplicate address detection and its listener reports.
            return packet.kind == Kind::Discovery;
        }
        packet.source.is_link_local()
            && (packet.kind == Kind::Discovery || Self::is_request(packet))
    }
}
