//! Neighbour discovery (RFC 4861), listener discovery and redirects: which messages pass without
//! policy.
//!
//! Invariants: a workload advertises only its own addresses, and a link-local address that is
//! derived from its hardware address ([`link_local`]); it is never a router, and sends no listener
//! queries, which would silence the listeners of a link. Discovery passes without policy, so it must stay on
//! the link, go only to where it is of use, and carry nothing further ([`discovery`], [`listener`]).
//! How many messages a workload may send is limited elsewhere.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    Frame, Kind, Packet,
    discovery::{Message, SOLICITED},
    link_local, listener,
    transport::{icmp4, icmp6},
};
use crate::{
    SECOND,
    drop_reason::DropReason,
    endpoint::{Endpoint, Owns},
    layout::shared_layout,
    net::{Address, Ip4, Ip6},
};

/// A family with redirects.
pub trait Redirects: Address {
    /// Whether the workload may send this packet, as far as it is a redirect. Of IPv6 they are
    /// discovery.
    ///
    /// # Errors
    /// The drop reason.
    fn may_redirect(packet: &Packet<Self>) -> Result<(), DropReason>;
}

impl Redirects for Ip4 {
    #[inline(always)]
    fn may_redirect(packet: &Packet<Self>) -> Result<(), DropReason> {
        if packet.kind == Kind::Error && packet.icmp_type == icmp4::REDIRECT {
            return Err(DropReason::Redirect);
        }
        Ok(())
    }
}

impl Redirects for Ip6 {
    #[inline(always)]
    fn may_redirect(_packet: &Packet<Self>) -> Result<(), DropReason> {
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

/// What a solicitation or advertisement says, if it has the form of its type and may go to the group
/// that it goes to.
#[inline(always)]
fn read<F: Frame>(frame: &F, packet: &Packet<Ip6>) -> Result<Message, DropReason> {
    let has_flags = packet.icmp_type == icmp6::NEIGHBOUR_ADVERTISEMENT;
    let has_target = packet.icmp_type != icmp6::ROUTER_SOLICITATION;
    let Some(message) = Message::read(frame, packet, has_flags, has_target) else {
        return Err(DropReason::DiscoveryHeader);
    };
    let to = packet.destination;
    let has_source = packet.source != Ip6::UNSPECIFIED;
    // There is no address to store a hardware address for (RFC 4861 §6.1.1, §7.1.1).
    let binds_nothing = !has_source && message.hardware.is_some();
    let fits = match packet.icmp_type {
        icmp6::ROUTER_SOLICITATION => to == Ip6::ALL_ROUTERS,
        icmp6::NEIGHBOUR_SOLICITATION => {
            to == message.target.solicited_node() || to == Ip6::ALL_NODES && has_source
        }
        _ => to == Ip6::ALL_NODES && message.flags & SOLICITED == 0,
    };
    if message.target.is_multicast() || binds_nothing || to.is_multicast() && !fits {
        return Err(DropReason::NeighbourSpoof);
    }
    Ok(message)
}

/// Whether a message to a workload asks for its hardware address, from an address that the answer goes
/// to and that has to be noted for it: link-local ones need not be.
#[inline(always)]
#[must_use]
pub fn solicits(packet: &Packet<Ip6>) -> bool {
    packet.icmp_type == icmp6::NEIGHBOUR_SOLICITATION
        && packet.source != Ip6::UNSPECIFIED
        && !packet.source.is_link_local()
}

/// Key of `SOLICITORS`: who asked at an interface, 24 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Solicitor {
    /// The source of the solicitation.
    pub address: Ip6,
    /// The workload's interface.
    pub ifindex: u32,
    /// Zero.
    pub reserved: u32,
}
shared_layout!(Solicitor, size 24, address at 0, ifindex at 16);

impl Solicitor {
    /// A source at an interface.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Ip6, ifindex: u32) -> Self {
        Self {
            address,
            ifindex,
            reserved: 0,
        }
    }
}

/// Capacity of `SOLICITORS`.
pub const SOLICITORS_CAPACITY: u32 = 1024;
/// How long an answer to a solicitation may take, in nanoseconds.
pub const ANSWER_TIME: u64 = 3 * SECOND;

/// Whether the workload may send this packet, which is discovery. `is_on_node` tells whether an
/// address is one of the node or of its endpoints, `has_solicited` whether a solicitation from it
/// arrived in the [`ANSWER_TIME`] before.
///
/// # Errors
/// The drop reason.
#[inline(always)]
pub fn may_announce<F: Frame>(
    frame: &F,
    packet: &Packet<Ip6>,
    endpoint: &Endpoint,
    is_on_node: impl FnOnce(Ip6) -> bool,
    has_solicited: impl FnOnce(Ip6) -> bool,
) -> Result<(), DropReason> {
    match packet.icmp_type {
        icmp6::ROUTER_ADVERTISEMENT => return Err(DropReason::RouterAdvertisement),
        icmp6::REDIRECT => return Err(DropReason::Redirect),
        icmp6::LISTENER_QUERY => return Err(DropReason::ListenerQuery),
        _ if !stays_on_link(packet) => return Err(DropReason::NeighbourSpoof),
        icmp6::ROUTER_SOLICITATION
        | icmp6::NEIGHBOUR_SOLICITATION
        | icmp6::NEIGHBOUR_ADVERTISEMENT => {}
        _ => return check_listener(frame, packet),
    }
    let message = read(frame, packet)?;
    let to = packet.destination;
    let to_neighbour = to.is_multicast()
        || match packet.icmp_type {
            icmp6::ROUTER_SOLICITATION => to.is_link_local(),
            // It asks the neighbour itself whether it is still there.
            icmp6::NEIGHBOUR_SOLICITATION => {
                to == message.target && (to.is_link_local() || is_on_node(to))
            }
            _ => to.is_link_local() || is_on_node(to) || has_solicited(to),
        };
    // A receiver stores the target of an advertisement, and a solicitation without a source keeps
    // others from using its target. Of another solicitation it stores the source.
    let is_about_target = packet.icmp_type == icmp6::NEIGHBOUR_ADVERTISEMENT
        || packet.icmp_type == icmp6::NEIGHBOUR_SOLICITATION && packet.source == Ip6::UNSPECIFIED;
    let may_name =
        |address| endpoint.owns(address) || link_local::may_claim(frame, address, message.hardware);
    if !to_neighbour
        || is_about_target && !may_name(message.target)
        || packet.source.is_link_local() && !may_name(packet.source)
    {
        return Err(DropReason::NeighbourSpoof);
    }
    Ok(())
}

/// Whether this packet, which is discovery, may arrive at a workload.
///
/// # Errors
/// The drop reason.
#[inline(always)]
pub fn may_arrive<F: Frame>(
    frame: &F,
    packet: &Packet<Ip6>,
    endpoint: &Endpoint,
) -> Result<(), DropReason> {
    let to = packet.destination;
    let is_to_it = to.is_multicast() || to.is_link_local() || endpoint.owns(to);
    if !stays_on_link(packet) || !is_to_it {
        return Err(DropReason::NeighbourSpoof);
    }
    match packet.icmp_type {
        icmp6::ROUTER_ADVERTISEMENT | icmp6::REDIRECT => Ok(()),
        icmp6::ROUTER_SOLICITATION
        | icmp6::NEIGHBOUR_SOLICITATION
        | icmp6::NEIGHBOUR_ADVERTISEMENT => read(frame, packet).map(|_| ()),
        _ => check_listener(frame, packet),
    }
}

/// Not inlined in the programs either, for their 512-byte stack.
#[inline(never)]
fn check_listener<F: Frame>(frame: &F, packet: &Packet<Ip6>) -> Result<(), DropReason> {
    if listener::is_well_formed(frame, packet) {
        Ok(())
    } else {
        Err(DropReason::DiscoveryHeader)
    }
}
