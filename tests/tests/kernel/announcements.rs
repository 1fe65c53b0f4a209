//! What a workload may tell its neighbours: about its own addresses, and never as a router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{drop_reason::DropReason, mode::Mode};
use ringfence_testbed::frame::ARP;

use crate::fence::{Arriving, Dropped, FRIEND, Fence, FromNode, LOCAL, Leaving, OTHER, STRANGER};
use crate::frames::{ICMP, ICMPV6, IP, TCP, about, frame, framed, icmp, packet, tcp, with};

const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const ALL_ROUTERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
const UNSPECIFIED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Made from the hardware address [`MAC`].
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// A router's, say.
const FOREIGN: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// A neighbour discovery message about `target`, with the hop limit that makes it valid.
fn discovery(from: IpAddr, to: IpAddr, kind: u8, target: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = target else {
        panic!("{target}")
    };
    let body = [&icmp(kind, 0, 0), target.octets().as_slice()].concat();
    message(from, to, &body)
}

/// Neighbour discovery with a valid hop limit, from the workload's hardware address.
fn message(from: IpAddr, to: IpAddr, body: &[u8]) -> Vec<u8> {
    let routed = frame(from, to, ICMPV6, body);
    with(with(routed, IP + 7, &[255]), 6, &MAC)
}

#[test]
fn neighbours_are_answered_for_own_addresses_only() {
    let (own, other) = (LOCAL.ip(true), OTHER.ip(true));
    let mut fence = Fence::new();
    for (what, frame) in [
        (
            "advertising itself",
            discovery(own, FRIEND.ip(true), 136, own),
        ),
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
            discovery(UNSPECIFIED, ALL_NODES, 135, own),
        ),
        (
            "looking for routers",
            discovery(LINK_LOCAL, ALL_ROUTERS, 133, own),
        ),
        (
            "reporting groups",
            discovery(LINK_LOCAL, ALL_ROUTERS, 143, own),
        ),
    ] {
        fence.passes(Leaving, &frame, what);
    }
    let solicited = discovery(own, ALL_NODES, 136, own);
    let forwarded = with(solicited.clone(), IP + 7, &[254]);
    let short = {
        let body = icmp(136, 0, 0);
        with(frame(own, ALL_NODES, ICMPV6, &body), IP + 7, &[255])
    };
    for (what, frame) in [
        ("advertising another", discovery(own, ALL_NODES, 136, other)),
        (
            "advertising a stranger",
            discovery(own, ALL_NODES, 136, STRANGER.ip(true)),
        ),
        ("a hop limit that says it was routed", forwarded),
        ("without a target", short),
    ] {
        fence.refuses(Leaving, &frame, DropReason::NeighbourSpoof, what);
    }
    let forged = discovery(other, ALL_NODES, 136, own);
    fence.refuses(
        Leaving,
        &forged,
        DropReason::SpoofedSource,
        "from another's address",
    );
}

/// What `discovery` makes, with an option that ties a hardware address to it.
fn tied(from: IpAddr, kind: u8, target: IpAddr, hardware: [u8; 6]) -> Vec<u8> {
    let IpAddr::V6(octets) = target else {
        panic!("{target}")
    };
    let option = [&[if kind == 136 { 2 } else { 1 }, 1], hardware.as_slice()].concat();
    let body = [&icmp(kind, 0, 0), octets.octets().as_slice(), &option].concat();
    message(from, ALL_NODES, &body)
}

#[test]
fn a_link_local_address_is_its_makers() {
    let (own, other) = (LOCAL.ip(true), OTHER.ip(true));
    let mut fence = Fence::new();
    for (what, frame) in [
        ("advertising it", tied(LINK_LOCAL, 136, LINK_LOCAL, MAC)),
        ("soliciting from it", tied(LINK_LOCAL, 135, other, MAC)),
        ("soliciting a foreign one", tied(own, 135, FOREIGN, MAC)),
        (
            "its own at any hardware address",
            tied(own, 136, own, [6; 6]),
        ),
    ] {
        fence.passes(Leaving, &frame, what);
    }
    let double = {
        let once = tied(LINK_LOCAL, 136, LINK_LOCAL, MAC);
        let body = [&once[IP + 40..], &[2, 1, 6, 6, 6, 6, 6, 6]].concat();
        message(LINK_LOCAL, ALL_NODES, &body)
    };
    for (what, frame) in [
        ("advertising a foreign one", tied(own, 136, FOREIGN, MAC)),
        (
            "advertising from a foreign one",
            tied(FOREIGN, 136, own, MAC),
        ),
        (
            "soliciting from a foreign one",
            tied(FOREIGN, 135, other, MAC),
        ),
        (
            "without an option",
            discovery(FOREIGN, ALL_NODES, 135, other),
        ),
        ("tied to another", tied(LINK_LOCAL, 135, other, [6; 6])),
        (
            "from other hardware",
            with(tied(LINK_LOCAL, 136, LINK_LOCAL, MAC), 6, &[6; 6]),
        ),
        ("tied twice", double),
    ] {
        fence.refuses(Leaving, &frame, DropReason::NeighbourSpoof, what);
    }
}

#[test]
fn discovery_keeps_to_the_link() {
    let (own, far) = (LOCAL.ip(true), STRANGER.ip(true));
    let mut fence = Fence::new();
    let reason = DropReason::NeighbourSpoof;
    for kind in [130, 131, 132, 143] {
        let report = |from, to| discovery(from, to, kind, own);
        fence.refuses(Leaving, &report(own, far), reason, "listeners to a host");
        fence.refuses(Leaving, &report(own, ALL_NODES), reason, "not link-local");
        fence.refuses(Leaving, &report(LINK_LOCAL, far), reason, "to a host");
        fence.refuses(Arriving, &report(far, own), reason, "listeners from a host");
        fence.passes(Leaving, &report(LINK_LOCAL, ALL_NODES), "control: a group");
        fence.passes(Arriving, &report(LINK_LOCAL, ALL_NODES), "control: a group");
    }
    let solicitation = discovery(own, far, 133, own);
    fence.refuses(Leaving, &solicitation, reason, "routers elsewhere");
    let nobody = discovery(UNSPECIFIED, far, 135, own);
    fence.refuses(Leaving, &nobody, reason, "a duplicate at a host");
    for kind in [133, 134, 135, 136, 137] {
        let routed = with(discovery(far, own, kind, far), IP + 7, &[254]);
        fence.refuses(Arriving, &routed, reason, "from further than the link");
    }
}

#[test]
fn a_workload_is_no_router() {
    let mut fence = Fence::new();
    fence.allow_friends();
    for from in [LOCAL.ip(true), LINK_LOCAL] {
        let advertisement = discovery(from, ALL_NODES, 134, LOCAL.ip(true));
        let reason = DropReason::RouterAdvertisement;
        fence.refuses(Leaving, &advertisement, reason, "router advertisement");
        let redirect = discovery(from, FRIEND.ip(true), 137, LOCAL.ip(true));
        fence.refuses(Leaving, &redirect, DropReason::Redirect, "redirect");
    }
    let (own, friend) = (LOCAL.ip(false), FRIEND.ip(false));
    let quoted = packet(friend, own, TCP, &tcp(1, 2, 2));
    let redirect = frame(own, friend, ICMP, &about(5, 1, &quoted));
    fence.refuses(Leaving, &redirect, DropReason::Redirect, "redirect");
}

#[test]
fn what_neighbours_tell_the_workload_is_judged_at_their_own_fence() {
    let mut fence = Fence::new();
    for kind in [133, 134, 135, 136, 137] {
        let frame = discovery(LINK_LOCAL, LOCAL.ip(true), kind, OTHER.ip(true));
        fence.passes(Arriving, &frame, "discovery");
        fence.passes(FromNode, &frame, "discovery from the node");
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
fn arp_speaks_for_own_addresses_only() {
    let (own, other) = (LOCAL.ip(false), OTHER.ip(false));
    let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut fence = Fence::new();
    for (what, frame) in [
        ("a request", arp(1, own)),
        ("a reply", arp(2, own)),
        ("a probe", arp(1, none)),
    ] {
        fence.passes(Leaving, &frame, what);
    }
    let header = |at: usize, byte| with(arp(1, own), IP + at, &[byte]);
    let spoof = DropReason::ArpSpoof;
    for (what, frame, reason) in [
        ("another's request", arp(1, other), spoof),
        ("another's reply", arp(2, other), spoof),
        ("a reply for no address", arp(2, none), spoof),
        ("another operation", arp(3, own), DropReason::ArpHeader),
        ("another hardware", header(1, 6), DropReason::ArpHeader),
        ("another protocol", header(3, 6), DropReason::ArpHeader),
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
            "cut off",
            arp(1, own)[..IP + 27].to_vec(),
            DropReason::Truncated,
        ),
    ] {
        fence.refuses(Leaving, &frame, reason, what);
    }
    fence.passes(Arriving, &arp(1, other), "what others ask the workload");
    fence.set_mode(Mode::Lockdown);
    for way in [Leaving, Arriving] {
        assert_eq!(fence.run(way, &arp(1, own)), Dropped, "{way:?} in lockdown");
    }
    assert_eq!(fence.count(DropReason::Lockdown), (2, 0));
}
