//! Neighbour discovery (RFC 4861) and redirects: what a workload may say about addresses.
//!
//! Invariants: a workload advertises only its own addresses, and a link-local one that is made from
//! its hardware address ([`link_local`]); it is never a router. What arrives at
//! a workload is not judged here: the sender's own fence did that.

use super::{Frame, Kind, Packet, link_local, transport::icmp4, transport::icmp6};
use crate::{
    endpoint::{Endpoint, Owns},
    net::{Address, Ip4, Ip6},
    reason::DropReason,
};

/// Judges ICMP that a workload sends and that can change how others reach addresses.
pub trait Announce: Address {
    /// Whether the workload may send this packet; anything else is somebody else's decision.
    ///
    /// # Errors
    /// The reason for which it is dropped.
    fn may_announce<F: Frame>(
        frame: &F,
        packet: &Packet<Self>,
        endpoint: &Endpoint,
    ) -> Result<(), DropReason>;
}

impl Announce for Ip4 {
    #[inline(always)]
    fn may_announce<F: Frame>(
        _frame: &F,
        packet: &Packet<Self>,
        _endpoint: &Endpoint,
    ) -> Result<(), DropReason> {
        if packet.kind == Kind::Error && packet.icmp_type == icmp4::REDIRECT {
            return Err(DropReason::Redirect);
        }
        Ok(())
    }
}

impl Announce for Ip6 {
    #[inline(always)]
    fn may_announce<F: Frame>(
        frame: &F,
        packet: &Packet<Self>,
        endpoint: &Endpoint,
    ) -> Result<(), DropReason> {
        if packet.kind != Kind::Discovery {
            return Ok(());
        }
        match packet.icmp_type {
            icmp6::ROUTER_ADVERTISEMENT => return Err(DropReason::RouterAdvertisement),
            icmp6::REDIRECT => return Err(DropReason::Redirect),
            icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT => {}
            _ => return Ok(()),
        }
        // RFC 4861 §7.1: a hop limit below 255 means that a router forwarded it.
        if packet.hop_limit != 255 || packet.end - packet.transport < 24 {
            return Err(DropReason::NeighbourSpoof);
        }
        if packet.icmp_type == icmp6::NEIGHBOUR_ADVERTISEMENT {
            let mut target = [0u8; 16];
            if !frame.load(packet.transport + 8, &mut target) {
                return Err(DropReason::Truncated);
            }
            let target = Ip6::from_wire(target);
            if !may_speak_for(frame, packet, endpoint, target) {
                return Err(DropReason::NeighbourSpoof);
            }
        }
        // Whoever hears a solicitation ties its source to the hardware address in it.
        if packet.source.is_link_local() && !may_speak_for(frame, packet, endpoint, packet.source) {
            return Err(DropReason::NeighbourSpoof);
        }
        Ok(())
    }
}

/// Whether a solicitation or advertisement may be about this address.
#[inline(always)]
fn may_speak_for<F: Frame>(
    frame: &F,
    packet: &Packet<Ip6>,
    endpoint: &Endpoint,
    address: Ip6,
) -> bool {
    endpoint.owns(address) || link_local::may_claim(frame, address, packet.transport, packet.end)
}

/// Whether the workload may use this source address: its own, or what address configuration needs.
pub trait OwnSource: Address {
    /// True when the packet's source is the workload's to use.
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
            // Duplicate address detection and the listener reports that go with it.
            return packet.kind == Kind::Discovery;
        }
        packet.source.is_link_local() && (packet.kind == Kind::Discovery || is_dhcp6(packet))
    }
}

/// A DHCPv6 client speaking to ff02::1:2 (RFC 8415 §7).
#[inline(always)]
#[must_use]
pub fn is_dhcp6(packet: &Packet<Ip6>) -> bool {
    packet.source.is_link_local() && packet.destination.is_multicast() && is_udp(packet, 546, 547)
}

#[inline(always)]
fn is_udp<A>(packet: &Packet<A>, from: u16, to: u16) -> bool {
    packet.kind == Kind::Flow
        && packet.protocol == super::protocol::UDP
        && packet.source_port.number() == from
        && packet.destination_port.number() == to
}
