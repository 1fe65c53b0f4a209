//! ARP and neighbour discovery: a workload may announce its own addresses only, and never act as a
//! router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{drop_reason::DropReason, mode::Mode};
use ringfence_testbed::frame::ARP;

use crate::fence::{
    Arriving, Dropped, FRIEND, Fence, FromHost, LOCAL, Leaving, OTHER, UNKNOWN_PEER,
};
use crate::frames::{ICMP, ICMPV6, IP, TCP, frame, framed, icmp, icmp_error, packet, tcp, with};

const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const ALL_ROUTERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
const UNSPECIFIED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Made from the hardware address [`MAC`].
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Another host's link-local address, for example a router's.
const FOREIGN: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// A neighbour discovery message about `target`, with the hop limit that makes it valid.
fn discovery(from: IpAddr, to: IpAddr, kind: u8, target: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = target else {
        panic!("{target}")
    };
    let body = [&icmp(kind, 0, 0), target.octets().as_slice()].concat();
    message(from, to, &body)
}

/// A neighbour discovery message with a valid hop limit, from the workload's hardware address.
fn message(from: IpAddr, to: IpAddr, body: &[u8]) -> Vec<u8> {
    let ip = frame(from, to, ICMPV6, body);
    with(with(ip, IP + 7, &[255]), 6, &MAC)
}

#[test]
fn neighbour_advertisements_are_limited_to_own_addresses() {
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
        (
            "advertising another workload's address",
            discovery(own, ALL_NODES, 136, other),
        ),
        (
            "advertising an unknown address",
            discovery(own, ALL_NODES, 136, UNKNOWN_PEER.ip(true)),
        ),
        ("a hop limit below 255", forwarded),
        ("without a target", short),
    ] {
        fence.denies(Leaving, &frame, DropReason::NeighbourSpoof, what);
    }
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
    let IpAddr::V6(octets) = target else {
        panic!("{target}")
    };
    let option = [&[if kind == 136 { 2 } else { 1 }, 1], hardware.as_slice()].concat();
    let body = [&icmp(kind, 0, 0), octets.octets().as_slice(), &option].concat();
    message(from, ALL_NODES, &body)
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
    let double = {
        let once = with_option(LINK_LOCAL, 136, LINK_LOCAL, MAC);
        let body = [&once[IP + 40..], &[2, 1, 6, 6, 6, 6, 6, 6]].concat();
        message(LINK_LOCAL, ALL_NODES, &body)
    };
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
        ("two options", double),
    ] {
        fence.denies(Leaving, &frame, DropReason::NeighbourSpoof, what);
    }
}

#[test]
fn discovery_messages_must_stay_on_the_link() {
    let (own, far) = (LOCAL.ip(true), UNKNOWN_PEER.ip(true));
    let mut fence = Fence::new();
    let reason = DropReason::NeighbourSpoof;
    for kind in [130, 131, 132, 143] {
        let report = |from, to| discovery(from, to, kind, own);
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
    let solicitation = discovery(own, far, 133, own);
    fence.denies(
        Leaving,
        &solicitation,
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
    for kind in [133, 134, 135, 136, 137] {
        let frame = discovery(LINK_LOCAL, LOCAL.ip(true), kind, OTHER.ip(true));
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
        ("a request from another's address", arp(1, other), spoof),
        ("a reply from another's address", arp(2, other), spoof),
        ("a reply from 0.0.0.0", arp(2, none), spoof),
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
