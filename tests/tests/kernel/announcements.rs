//! What a workload may tell its neighbours: about its own addresses, and never as a router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{mode::Mode, reason::DropReason};
use ringfence_testbed::frame::ARP;

use crate::fence::{Arriving, Dropped, FRIEND, Fence, FromNode, LOCAL, Leaving, OTHER, STRANGER};
use crate::frames::{ICMP, ICMPV6, IP, TCP, about, frame, framed, icmp, packet, tcp, with};

const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const ALL_ROUTERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
const UNSPECIFIED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));

/// A neighbour discovery message about `target`, with the hop limit that makes it valid.
fn discovery(from: IpAddr, to: IpAddr, kind: u8, target: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = target else {
        panic!("{target}")
    };
    let body = [&icmp(kind, 0, 0), target.octets().as_slice()].concat();
    with(frame(from, to, ICMPV6, &body), IP + 7, &[255])
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
