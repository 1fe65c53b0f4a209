//! The families of attacks, in order of the damage that they could do.

mod announcements;
mod datagrams;
mod dhcp;
mod extensions;
mod fragments;
mod icmp;
mod ipv4;
mod large;
mod link;
mod node_address;
mod node_tunnels;
mod odd_sources;
mod own_destination;
mod poisoned;
mod protocols;
mod rejects;
mod routed;
mod spoofing;
mod tcp;
mod traffic;
mod tunnels;
mod world;

use super::family::Family;

/// The families that a node which routes forwards.
pub const ROUTED_FAMILIES: &[Family] = &[
    routed::DISCOVERY,
    world::ROUTED,
    node_tunnels::ROUTED,
    rejects::ROUTED,
];

/// All families on a bridge.
pub const FAMILIES: &[Family] = &[
    spoofing::FORGED_SOURCE,
    spoofing::FORGED_MID_FLOW,
    spoofing::FORGED_MAC,
    announcements::ARP,
    announcements::NEIGHBOURS,
    announcements::ROUTERS,
    announcements::HIDDEN,
    announcements::SMUGGLING,
    tunnels::DISCOVERY,
    tunnels::LISTENER,
    tunnels::ARP,
    tunnels::DUPLICATES,
    own_destination::OWN_DESTINATION,
    node_address::NODE_ADDRESS,
    poisoned::POISONED,
    dhcp::DHCP,
    odd_sources::ODD_SOURCES,
    fragments::TINY,
    fragments::OVERLAPPING,
    fragments::ORPHANS,
    fragments::REUSE,
    fragments::HEADERS,
    fragments::OVERSIZED,
    extensions::ORDER,
    extensions::LENGTHS,
    icmp::ERRORS,
    icmp::ECHO,
    icmp::TOO_BIG,
    rejects::REJECTS,
    tcp::STATES,
    tcp::FLAGS,
    tcp::HEADERS,
    datagrams::REPLIES,
    link::VLANS,
    link::ETHERTYPES,
    ipv4::OPTIONS,
    ipv4::HEADERS,
    ipv4::LENGTHS,
    large::FRAMES,
    large::OFFLOAD,
    protocols::RAW,
    protocols::TUNNELS,
    node_tunnels::NODE_TUNNELS,
    protocols::DESTINATIONS,
    world::WORLD,
    datagrams::DENIED,
    traffic::RECORDED,
];
