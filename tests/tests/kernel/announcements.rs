//! ARP and neighbour discovery: a workload may announce its own addresses only, and never act as a
//! router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{drop_reason::DropReason, mode::Mode};
use ringfence_testbed::frame::ARP;

use crate::discovery::{
    ALL_NODES, ALL_ROUTERS, LINK_LOCAL, MAC, UNSPECIFIED, about, listener, message, option, report,
    solicited_node,
};
use crate::fence::{
    Arriving, Dropped, FRIEND, Fence, FromHost, LOCAL, Leaving, OTHER, UNKNOWN_PEER,
};
use crate::frames::{ICMP, IP, TCP, frame, framed, icmp_error, packet, tcp, with};

/// Another host's link-local address, for example a router's.
const FOREIGN: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// A neighbour discovery message about `target`.
fn discovery(from: IpAddr, to: IpAddr, kind: u8, target: IpAddr) -> Vec<u8> {
    message(from, to, &about(kind, target, &[]))
}

/// A router solicitation.
fn solicitation(from: IpAddr, to: IpAddr) -> Vec<u8> {
    message(from, to, &[133, 0, 0, 0, 0, 0, 0, 0])
}

#[test]
fn neighbour_advertisements_are_limited_to_own_addresses() {
    let (own, other) = (LOCAL.ip(true), OTHER.ip(true));
    let mut fence = Fence::new();
    for (what, frame) in [
        ("advertising itself", discovery(own, FOREIGN, 136, own)),
        (
            "advertising itself to all",
            discovery(own, ALL_NODES, 136, own),
        ),
        (
            "advertising its link-local",
            discovery(LINK_LOCAL, ALL_NODES, 136, LINK_LOCAL),
        ),
        ("soliciting", discovery(own, ALL_NODES, 135, other)),
        (
            "soliciting from link-local",
            discovery(LINK_LOCAL, ALL_NODES, 135, other),
        ),
        (
            "detecting a duplicate",
            discovery(UNSPECIFIED, solicited_node(own), 135, own),
        ),
        ("looking for routers", solicitation(LINK_LOCAL, ALL_ROUTERS)),
        (
            "reporting groups",
            listener(LINK_LOCAL, ALL_ROUTERS, &report(&[ALL_NODES], 0)),
        ),
    ] {
        fence.passes(Leaving, &frame, what);
    }
    let solicited = discovery(own, ALL_NODES, 136, own);
    let forwarded = with(solicited.clone(), IP + 7, &[254]);
    for (what, frame) in [
        (
            "advertising another workload's address",
            discovery(own, ALL_NODES, 136, other),
        ),
        (
            "advertising an unknown address",
            discovery(own, ALL_NODES, 136, UNKNOWN_PEER.ip(true)),
        ),
        ("a hop limit below 255", forwarded),
    ] {
        fence.denies(Leaving, &frame, DropReason::NeighbourSpoof, what);
    }
    let short = message(own, ALL_NODES, &[136, 0, 0, 0, 0, 0, 0, 0]);
    let header = DropReason::DiscoveryHeader;
    fence.denies(Leaving, &short, header, "without a target");
    let forged = discovery(other, ALL_NODES, 136, own);
    fence.denies(
        Leaving,
        &forged,
        DropReason::SpoofedSource,
        "from another workload's address",
    );
}

/// Like [`discovery`], with a link-layer address option.
fn with_option(from: IpAddr, kind: u8, target: IpAddr, hardware: [u8; 6]) -> Vec<u8> {
    let link = option(if kind == 136 { 2 } else { 1 }, hardware);
    message(from, ALL_NODES, &about(kind, target, &link))
}

#[test]
fn a_link_local_address_must_be_derived_from_the_senders_hardware_address() {
    let (own, other) = (LOCAL.ip(true), OTHER.ip(true));
    let mut fence = Fence::new();
    for (what, frame) in [
        (
            "advertising it",
            with_option(LINK_LOCAL, 136, LINK_LOCAL, MAC),
        ),
        (
            "soliciting from it",
            with_option(LINK_LOCAL, 135, other, MAC),
        ),
        (
            "soliciting another host's",
            with_option(own, 135, FOREIGN, MAC),
        ),
        (
            "an own address with any hardware address",
            with_option(own, 136, own, [6; 6]),
        ),
    ] {
        fence.passes(Leaving, &frame, what);
    }
    for (what, frame) in [
        (
            "advertising another host's",
            with_option(own, 136, FOREIGN, MAC),
        ),
        (
            "advertising from another host's",
            with_option(FOREIGN, 136, own, MAC),
        ),
        (
            "soliciting from another host's",
            with_option(FOREIGN, 135, other, MAC),
        ),
        (
            "without an option",
            discovery(FOREIGN, ALL_NODES, 135, other),
        ),
        (
            "an option with another hardware address",
            with_option(LINK_LOCAL, 135, other, [6; 6]),
        ),
        (
            "from another hardware address",
            with(with_option(LINK_LOCAL, 136, LINK_LOCAL, MAC), 6, &[6; 6]),
        ),
    ] {
        fence.denies(Leaving, &frame, DropReason::NeighbourSpoof, what);
    }
}

#[test]
fn discovery_messages_must_stay_on_the_link() {
    let (own, far) = (LOCAL.ip(true), UNKNOWN_PEER.ip(true));
    let mut fence = Fence::new();
    let reason = DropReason::NeighbourSpoof;
    for kind in [131, 132, 143] {
        let body = match kind {
            143 => report(&[ALL_NODES], 0),
            _ => about(kind, ALL_NODES, &[]),
        };
        let report = |from, to| listener(from, to, &body);
        fence.denies(
            Leaving,
            &report(own, far),
            reason,
            "a listener report to a host",
        );
        fence.denies(Leaving, &report(own, ALL_NODES), reason, "not link-local");
        fence.denies(Leaving, &report(LINK_LOCAL, far), reason, "to a host");
        fence.denies(
            Arriving,
            &report(far, own),
            reason,
            "a listener report from a host",
        );
        fence.passes(Leaving, &report(LINK_LOCAL, ALL_NODES), "control: a group");
        fence.passes(Arriving, &report(LINK_LOCAL, ALL_NODES), "control: a group");
    }
    let far_away = solicitation(own, far);
    fence.denies(
        Leaving,
        &far_away,
        reason,
        "a router solicitation off the link",
    );
    let unspecified = discovery(UNSPECIFIED, far, 135, own);
    fence.denies(
        Leaving,
        &unspecified,
        reason,
        "duplicate address detection to a host",
    );
    for kind in [133, 134, 135, 136, 137] {
        let routed = with(discovery(far, own, kind, far), IP + 7, &[254]);
        fence.denies(Arriving, &routed, reason, "from beyond the link");
    }
}

#[test]
fn router_advertisements_and_redirects_from_a_workload_are_denied() {
    let mut fence = Fence::new();
    fence.allow_friends();
    for from in [LOCAL.ip(true), LINK_LOCAL] {
        let advertisement = discovery(from, ALL_NODES, 134, LOCAL.ip(true));
        let reason = DropReason::RouterAdvertisement;
        fence.denies(Leaving, &advertisement, reason, "router advertisement");
        let redirect = discovery(from, FRIEND.ip(true), 137, LOCAL.ip(true));
        fence.denies(Leaving, &redirect, DropReason::Redirect, "redirect");
    }
    let (own, friend) = (LOCAL.ip(false), FRIEND.ip(false));
    let quoted = packet(friend, own, TCP, &tcp(1, 2, 2));
    let redirect = frame(own, friend, ICMP, &icmp_error(5, 1, &quoted));
    fence.denies(Leaving, &redirect, DropReason::Redirect, "redirect");
}

#[test]
fn discovery_messages_to_the_workload_pass_except_in_lockdown() {
    let mut fence = Fence::new();
    let own = LOCAL.ip(true);
    let mut frames = vec![solicitation(LINK_LOCAL, own)];
    for kind in [134, 135, 136, 137] {
        frames.push(discovery(LINK_LOCAL, own, kind, OTHER.ip(true)));
    }
    for frame in frames {
        fence.passes(Arriving, &frame, "discovery");
        fence.passes(FromHost, &frame, "discovery from the host");
    }
    fence.set_mode(Mode::Lockdown);
    let frame = discovery(LINK_LOCAL, LOCAL.ip(true), 135, OTHER.ip(true));
    assert_eq!(fence.run(Arriving, &frame), Dropped, "in lockdown");
    assert_eq!(fence.count(DropReason::Lockdown), (1, 0));
}

/// An ARP packet: operation and sender.
fn arp(operation: u8, sender: IpAddr) -> Vec<u8> {
    let IpAddr::V4(sender) = sender else {
        panic!("{sender}")
    };
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 2];
    body.extend(sender.octets());
    body.extend([0; 6]);
    body.extend([10, 0, 0, 1]);
    framed(ARP, &body)
}

#[test]
fn arp_from_a_workload_is_limited_to_own_addresses() {
    let (own, other) = (LOCAL.ip(false), OTHER.ip(false));
    let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let probe = |target| match target {
        IpAddr::V4(target) => with(arp(1, none), IP + 24, &target.octets()),
        IpAddr::V6(target) => panic!("{target}"),
    };
    let mut fence = Fence::new();
    for (what, frame) in [
        ("a request", arp(1, own)),
        ("a reply", arp(2, own)),
        ("a probe", probe(own)),
    ] {
        fence.passes(Leaving, &frame, what);
    }
    // Zeros, and the last byte.
    let padded = |length: usize, last| {
        let zeros = vec![0; length - 1];
        [arp(1, own).as_slice(), &zeros, &[last]].concat()
    };
    fence.passes(Leaving, &padded(18, 0), "the shortest Ethernet frame");
    fence.passes(Arriving, &padded(18, 7), "padding by a network card");
    let reason = DropReason::ArpHeader;
    fence.denies(Arriving, &padded(19, 0), reason, "more than padding");
    let header = |at: usize, byte| with(arp(1, own), IP + at, &[byte]);
    let spoof = DropReason::ArpSpoof;
    for (what, frame, reason) in [
        ("a request from another's address", arp(1, other), spoof),
        ("a reply from another's address", arp(2, other), spoof),
        ("a reply from 0.0.0.0", arp(2, none), spoof),
        ("a probe for another's address", probe(other), spoof),
        ("another operation", arp(3, own), DropReason::ArpHeader),
        ("another hardware type", header(1, 6), DropReason::ArpHeader),
        ("another protocol type", header(3, 6), DropReason::ArpHeader),
        (
            "a long hardware address",
            header(4, 8),
            DropReason::ArpHeader,
        ),
        (
            "a long protocol address",
            header(5, 16),
            DropReason::ArpHeader,
        ),
        (
            "truncated",
            arp(1, own)[..IP + 27].to_vec(),
            DropReason::Truncated,
        ),
        ("data in the padding", padded(17, 1), DropReason::ArpHeader),
        (
            "data in its last byte",
            padded(18, 1),
            DropReason::ArpHeader,
        ),
        (
            "more than the padding",
            padded(19, 0),
            DropReason::ArpHeader,
        ),
        ("a tunnel", padded(1300, 7), DropReason::ArpHeader),
    ] {
        fence.denies(Leaving, &frame, reason, what);
    }
    fence.passes(Arriving, &arp(1, other), "a request to the workload");
    fence.set_mode(Mode::Lockdown);
    for way in [Leaving, Arriving] {
        assert_eq!(fence.run(way, &arp(1, own)), Dropped, "{way:?} in lockdown");
    }
    assert_eq!(fence.count(DropReason::Lockdown), (2, 0));
}
