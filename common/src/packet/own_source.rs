//! Which source addresses a workload may use.
//!
//! Invariant: its own addresses, and what address configuration needs: none at all, or a link-local
//! one, in discovery and DHCP requests to the link. Such packets pass without policy.

use super::{Kind, Packet, protocol};
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
        endpoint.owns(packet.source) || is_dhcp4(packet)
    }
}

/// A DHCP client that has no address yet (RFC 2131 §4.1).
#[inline(always)]
#[must_use]
pub fn is_dhcp4(packet: &Packet<Ip4>) -> bool {
    packet.source == Ip4::UNSPECIFIED
        && packet.destination == Ip4::BROADCAST
        && is_udp(packet, 68, 67)
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
        packet.source.is_link_local() && (packet.kind == Kind::Discovery || is_dhcp6(packet))
    }
}

/// A DHCPv6 client that sends to ff02::1:2 (RFC 8415 §7).
#[inline(always)]
#[must_use]
pub fn is_dhcp6(packet: &Packet<Ip6>) -> bool {
    packet.source.is_link_local()
        && packet.destination == Ip6::DHCP_SERVERS
        && is_udp(packet, 546, 547)
}

#[inline(always)]
fn is_udp<A>(packet: &Packet<A>, from: u16, to: u16) -> bool {
    packet.kind == Kind::Flow
        && packet.protocol == protocol::UDP
        && packet.source_port.number() == from
        && packet.destination_port.number() == to
}
