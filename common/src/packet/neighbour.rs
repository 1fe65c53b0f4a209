//! Neighbour discovery (RFC 4861) and redirects: which addresses a workload may announce.
//!
//! Invariants: a workload advertises only its own addresses, and a link-local address that is
//! derived from its hardware address ([`link_local`]); it is never a router. Discovery passes
//! without policy, so it must stay on the link in both directions and carries nothing further. What
//! arrives at a workload is not checked otherwise: the sender's own fence did that.

use super::{Frame, Kind, Packet, link_local, transport::icmp4, transport::icmp6};
use crate::{
    drop_reason::DropReason,
    endpoint::{Endpoint, Owns},
    net::{Address, Ip4, Ip6},
};

/// Checks ICMP messages from a workload that can change how others reach addresses.
pub trait Announce: Address {
    /// Whether the workload may send this packet. Passes every packet that is not about
    /// announcements.
    ///
    /// # Errors
    /// The drop reason.
    fn may_announce<F: Frame>(
        frame: &F,
        packet: &Packet<Self>,
        endpoint: &Endpoint,
    ) -> Result<(), DropReason>;

    /// Whether a discovery packet may arrive at a workload.
    ///
    /// # Errors
    /// The drop reason.
    fn may_arrive(packet: &Packet<Self>) -> Result<(), DropReason>;
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

    #[inline(always)]
    fn may_arrive(_packet: &Packet<Self>) -> Result<(), DropReason> {
        Ok(())
    }
}

/// Whether a discovery packet comes from the link and stays on it. Listener messages go to groups,
/// from link-local addresses or the unspecified address (RFC 2710 §3, RFC 3810 §5.2.13). Everything
/// else has hop limit 255, which no router has decremented (RFC 4861 §6.1, §7.1, §8.1), and goes to
/// a group if its sender has no address yet.
#[inline(always)]
fn stays_on_link(packet: &Packet<Ip6>) -> bool {
    let unspecified = packet.source == Ip6::UNSPECIFIED;
    let to_group = packet.destination.is_multicast();
    match packet.icmp_type {
        icmp6::ROUTER_SOLICITATION..=icmp6::REDIRECT => {
            packet.hop_limit == 255 && (!unspecified || to_group)
        }
        _ => to_group && (unspecified || packet.source.is_link_local()),
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
            icmp6::ROUTER_ADVERTISEMENT => {
                return Err(DropReason::RouterAdvertisement);
            }
            icmp6::REDIRECT => {
                return Err(DropReason::Redirect);
            }
            _ if !stays_on_link(packet) => return Err(DropReason::NeighbourSpoof),
            icmp6::ROUTER_SOLICITATION => {
                let to = packet.destination;
                return if to.is_multicast() || to.is_link_local() {
                    Ok(())
                } else {
                    Err(DropReason::NeighbourSpoof)
                };
            }
            icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT => {}
            _ => return Ok(()),
        }
        if packet.end - packet.transport < 24 {
            return Err(DropReason::NeighbourSpoof);
        }
        if packet.icmp_type == icmp6::NEIGHBOUR_ADVERTISEMENT {
            let mut target = [0u8; 16];
            if !frame.load(packet.transport + 8, &mut target) {
                return Err(DropReason::Truncated);
            }
            let target = Ip6::from_wire(target);
            if !may_name(frame, packet, endpoint, target) {
                return Err(DropReason::NeighbourSpoof);
            }
        }
        // A receiver of a solicitation caches its source with the hardware address in it.
        if packet.source.is_link_local() && !may_name(frame, packet, endpoint, packet.source) {
            return Err(DropReason::NeighbourSpoof);
        }
        Ok(())
    }

    #[inline(always)]
    fn may_arrive(packet: &Packet<Self>) -> Result<(), DropReason> {
        if packet.kind == Kind::Discovery && !stays_on_link(packet) {
            return Err(DropReason::NeighbourSpoof);
        }
        Ok(())
    }
}

/// Whether a solicitation or advertisement may name this address.
#[inline(always)]
fn may_name<F: Frame>(frame: &F, packet: &Packet<Ip6>, endpoint: &Endpoint, address: Ip6) -> bool {
    endpoint.owns(address) || link_local::may_claim(frame, address, packet.transport, packet.end)
}

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
        && packet.protocol == super::protocol::UDP
        && packet.source_port.number() == from
        && packet.destination_port.number() == to
}
