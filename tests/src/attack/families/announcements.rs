//! Announcements that a workload must not send: of another's address, or as a router.

use std::net::{IpAddr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::{
    ArpHeader, ArpSpoof, DiscoveryHeader, IcmpErrorUnmatched, NeighbourSpoof, OrphanFragment,
    Redirect, RouterAdvertisement, SpoofedSource, TinyFragment, Truncated,
};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, IP, LINK_LOCAL};
use crate::attack::family::{Family, IN4, IN6, Member, OUT4, OUT6};
use crate::attack::fixture::{self, Direction, protocol};
use crate::frame::ARP as ARP_TYPE;

pub(super) const ROUTER: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
pub(super) const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));

/// ARP with another's address.
pub(super) const ARP: Family = Family {
    name: "arp",
    members: &[
        Member::new("a reply for another workload", OUT4, |s| {
            deny_arp(s, 2, fixture::other_workload(false));
        }),
        Member::new("a reply for the node", OUT4, |s| {
            deny_arp(s, 2, fixture::node(false));
        }),
        Member::new("a request as another workload", OUT4, |s| {
            deny_arp(s, 1, fixture::other_workload(false));
        }),
        Member::new("a reply for the unspecified address", OUT4, |s| {
            deny_arp(s, 2, IpAddr::from([0, 0, 0, 0]));
        }),
        Member::new("a probe for another workload's address", OUT4, |s| {
            let nowhere = IpAddr::from([0, 0, 0, 0]);
            let body = craft::arp(1, nowhere, fixture::other_workload(false));
            s.deny(ArpSpoof, craft::broadcast(ARP_TYPE, &body));
        }),
        Member::new("gratuitous, for another workload", OUT4, |s| {
            let other = fixture::other_workload(false);
            let operation = s.rng.between(1, 2);
            s.deny(
                ArpSpoof,
                craft::broadcast(ARP_TYPE, &craft::arp(operation, other, other)),
            );
        }),
        Member::new("an invalid operation", OUT4, |s| {
            let operation = s.rng.between(3, 9);
            let body = craft::arp(operation, s.workload(), s.peer);
            s.deny(ArpHeader, craft::ethernet(ARP_TYPE, &body));
        }),
        Member::new("other address types", OUT4, |s| {
            let body = craft::arp(2, s.workload(), s.peer);
            let (at, byte) = s.rng.choose(&[(1, 6), (3, 6), (4, 8), (5, 16)], (1, 6));
            let frame = craft::ethernet(ARP_TYPE, &body);
            s.deny(ArpHeader, craft::with_bytes(frame, IP + at, &[byte]));
        }),
        Member::new("truncated", OUT4, |s| {
            let body = craft::arp(2, s.workload(), s.peer);
            let length = 8 + s.rng.below(20);
            let cut = body.get(..length).unwrap_or_default();
            s.deny(Truncated, craft::ethernet(ARP_TYPE, cut));
        }),
        Member::new("control: its own address", OUT4, |s| {
            let operation = s.rng.between(1, 2);
            s.permit(craft::ethernet(
                ARP_TYPE,
                &craft::arp(operation, s.workload(), s.peer),
            ));
        }),
        Member::new("control: a probe", OUT4, |s| {
            let body = craft::arp(1, IpAddr::from([0, 0, 0, 0]), s.workload());
            s.permit(craft::broadcast(ARP_TYPE, &body));
        }),
        Member::new("control: a request to it", IN4, |s| {
            s.permit(craft::broadcast(
                ARP_TYPE,
                &craft::arp(1, s.peer, s.workload()),
            ));
        }),
    ],
};

fn deny_arp(s: &mut CaseBuilder<'_>, operation: u16, sender: IpAddr) {
    let body = craft::arp(operation, sender, s.peer);
    s.deny(ArpSpoof, craft::ethernet(ARP_TYPE, &body));
}

/// Neighbour solicitations and advertisements.
pub(super) const NEIGHBOURS: Family = Family {
    name: "neighbours",
    members: &[
        Member::new("advertising another workload", OUT6, |s| {
            let frame = discovery(s.workload(), ALL_NODES, 136, fixture::other_workload(true));
            s.deny(NeighbourSpoof, frame);
        }),
        Member::new("advertising the node", OUT6, |s| {
            let frame = discovery(s.workload(), s.peer, 136, fixture::node(true));
            s.deny(NeighbourSpoof, frame);
        }),
        Member::new("advertising as another workload", OUT6, |s| {
            let frame = discovery(
                fixture::other_workload(true),
                ALL_NODES,
                136,
                fixture::other_workload(true),
            );
            s.deny(SpoofedSource, frame);
        }),
        Member::new("advertising from link-local", OUT6, |s| {
            let frame = discovery(LINK_LOCAL, ALL_NODES, 136, fixture::other_workload(true));
            s.deny(NeighbourSpoof, frame);
        }),
        Member::new("soliciting as another workload", OUT6, |s| {
            let frame = discovery(fixture::other_workload(true), ALL_NODES, 135, s.peer);
            s.deny(SpoofedSource, frame);
        }),
        Member::new("from beyond the link", OUT6, |s| {
            let hops = s.rng.between(1, 254).to_be_bytes()[1];
            let kind = s.rng.choose(&[135, 136], 136);
            let frame = discovery(s.workload(), ALL_NODES, kind, s.workload());
            s.deny(NeighbourSpoof, craft::with_bytes(frame, IP + 7, &[hops]));
        }),
        Member::new("without a target", OUT6, |s| {
            let frame = craft::ip_frame(
                s.workload(),
                ALL_NODES,
                protocol::ICMPV6,
                &craft::icmp(136, 0, 0),
            );
            s.deny(DiscoveryHeader, craft::with_bytes(frame, IP + 7, &[255]));
        }),
        Member::new(
            "from the unspecified address to a unicast address",
            OUT6,
            |s| {
                let nowhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
                let frame = discovery(nowhere, s.peer, 135, s.workload());
                s.deny(NeighbourSpoof, frame);
            },
        ),
        Member::new("soliciting as a router's link-local", OUT6, |s| {
            let frame = discovery(ROUTER, ALL_NODES, 135, s.peer);
            s.deny(NeighbourSpoof, frame);
        }),
        Member::new("advertising a router's link-local", OUT6, |s| {
            let from = s
                .rng
                .choose(&[ROUTER, LINK_LOCAL, fixture::workload(true)], ROUTER);
            s.deny(NeighbourSpoof, discovery(from, ALL_NODES, 136, ROUTER));
        }),
        Member::new(
            "its link-local, bound to another's hardware address",
            OUT6,
            |s| {
                let frame = discovery(LINK_LOCAL, ALL_NODES, 136, LINK_LOCAL);
                let option = craft::AFTER_IP6 + 26;
                s.deny(
                    NeighbourSpoof,
                    craft::with_bytes(frame, option, &[2, 0, 0, 0, 0, 9]),
                );
            },
        ),
        Member::new("control: its link-local", OUT6, |s| {
            let kind = s.rng.choose(&[135, 136], 136);
            s.permit(discovery(LINK_LOCAL, ALL_NODES, kind, LINK_LOCAL));
        }),
        Member::new("control: its own address", OUT6, |s| {
            let kind = s.rng.choose(&[135, 136], 136);
            s.permit(discovery(s.workload(), ALL_NODES, kind, s.workload()));
        }),
        Member::new("control: soliciting a neighbour", OUT6, |s| {
            s.permit(discovery(LINK_LOCAL, solicited_node(s.peer), 135, s.peer));
        }),
    ],
};

/// Listener reports and router solicitations, used to carry data to denied destinations.
pub(super) const SMUGGLING: Family = Family {
    name: "discovery-smuggling",
    members: &[
        Member::new("a listener report to a denied host", OUT6, |s| {
            let to = fixture::unlisted_host(true);
            let message = report(s);
            s.deny(
                NeighbourSpoof,
                craft::listener_frame(s.workload(), to, &message),
            );
        }),
        Member::new(
            "a listener report from link-local to a denied host",
            OUT6,
            |s| {
                let to = fixture::unlisted_host(true);
                let message = report(s);
                s.deny(
                    NeighbourSpoof,
                    craft::listener_frame(LINK_LOCAL, to, &message),
                );
            },
        ),
        Member::new("a router solicitation to a denied host", OUT6, |s| {
            s.deny(
                NeighbourSpoof,
                discovery(
                    s.workload(),
                    fixture::unlisted_host(true),
                    133,
                    s.workload(),
                ),
            );
        }),
        Member::new("a listener report to the workload", IN6, |s| {
            let from = fixture::unlisted_host(true);
            let message = report(s);
            s.deny(
                NeighbourSpoof,
                craft::listener_frame(from, s.workload(), &message),
            );
        }),
        Member::new("discovery from beyond the link to the workload", IN6, |s| {
            let kind = s.rng.choose(&[133, 134, 135, 136, 137], 135);
            let frame = discovery(
                fixture::unlisted_host(true),
                s.workload(),
                kind,
                s.workload(),
            );
            s.deny(NeighbourSpoof, craft::with_bytes(frame, IP + 7, &[64]));
        }),
        Member::new("DHCPv6 to another group", OUT6, |s| {
            let group = IpAddr::V6(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 0x99));
            let datagram = craft::udp(546, 547, b"carried");
            s.deny(
                SpoofedSource,
                craft::ip_frame(LINK_LOCAL, group, protocol::UDP, &datagram),
            );
        }),
        Member::new("control: a listener report", OUT6, |s| {
            let group = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
            let message = report(s);
            s.permit(craft::listener_frame(LINK_LOCAL, group, &message));
        }),
        Member::new("control: a router solicitation", OUT6, |s| {
            let routers = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
            s.permit(discovery(LINK_LOCAL, routers, 133, s.workload()));
        }),
        Member::new("control: DHCPv6", OUT6, |s| {
            let servers = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));
            let datagram = craft::udp(546, 547, b"solicit");
            s.permit(craft::ip_frame(
                LINK_LOCAL,
                servers,
                protocol::UDP,
                &datagram,
            ));
        }),
    ],
};

/// A listener message of the workload.
fn report(s: &mut CaseBuilder<'_>) -> Vec<u8> {
    let group = solicited_node(s.workload());
    match s.rng.choose(&[131, 132, 143], 143) {
        143 => craft::listener_report(group, 1),
        kind => craft::listener(kind, group),
    }
}

/// The solicited-node group of an IPv6 address.
pub(super) const fn solicited_node(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) => IpAddr::V6(fixture::solicited_node(ip)),
        IpAddr::V4(_) => ip,
    }
}

/// Router advertisements and redirects.
pub(super) const ROUTERS: Family = Family {
    name: "router-messages",
    members: &[
        Member::new("an advertisement to all", OUT6, |s| {
            let from = s
                .rng
                .choose(&[LINK_LOCAL, fixture::workload(true)], LINK_LOCAL);
            s.deny(
                RouterAdvertisement,
                discovery(from, ALL_NODES, 134, s.workload()),
            );
        }),
        Member::new("an advertisement to a peer", OUT6, |s| {
            s.deny(
                RouterAdvertisement,
                discovery(s.workload(), s.peer, 134, s.workload()),
            );
        }),
        Member::new("an advertisement as the node", OUT6, |s| {
            s.deny(
                SpoofedSource,
                discovery(fixture::node(true), ALL_NODES, 134, s.workload()),
            );
        }),
        Member::new("a redirect", OUT6, |s| {
            let from = s
                .rng
                .choose(&[LINK_LOCAL, fixture::workload(true)], LINK_LOCAL);
            s.deny(
                Redirect,
                discovery(from, s.peer, 137, fixture::other_workload(true)),
            );
        }),
        Member::new("an IPv4 redirect", OUT4, |s| {
            let inside = craft::ip(
                s.peer,
                s.workload(),
                protocol::UDP,
                &craft::udp(1, 2, b"redirected"),
            );
            s.deny(
                Redirect,
                s.frame(protocol::ICMP, &craft::icmp_error(5, 1, &inside)),
            );
        }),
        Member::new("an IPv4 redirect about an allowed flow", OUT4, |s| {
            let datagram = craft::udp(
                s.port,
                fixture::allowed_port(Direction::In, protocol::UDP),
                b"in",
            );
            let quoted = craft::ip(s.peer, s.workload(), protocol::UDP, &datagram);
            s.permit_back(craft::ethernet(crate::frame::IPV4, &quoted));
            s.deny(
                Redirect,
                s.frame(protocol::ICMP, &craft::icmp_error(5, 1, &quoted)),
            );
        }),
        Member::new("an IPv4 redirect to it", IN4, |s| {
            let inside = craft::ip(
                s.workload(),
                s.peer,
                protocol::UDP,
                &craft::udp(1, 2, b"redirected"),
            );
            s.deny(
                IcmpErrorUnmatched,
                s.frame(protocol::ICMP, &craft::icmp_error(5, 1, &inside)),
            );
        }),
    ],
};

/// The same messages behind extension headers and in fragments.
pub(super) const HIDDEN: Family = Family {
    name: "hidden-discovery",
    members: &[
        Member::new("a router advertisement behind options", OUT6, |s| {
            let frame = behind_options(s, LINK_LOCAL, 134, fixture::workload(true));
            s.deny(RouterAdvertisement, frame);
        }),
        Member::new("a redirect behind options", OUT6, |s| {
            let frame = behind_options(s, LINK_LOCAL, 137, fixture::workload(true));
            s.deny(Redirect, frame);
        }),
        Member::new(
            "an advertisement of another workload behind options",
            OUT6,
            |s| {
                let frame = behind_options(
                    s,
                    fixture::workload(true),
                    136,
                    fixture::other_workload(true),
                );
                s.deny(DiscoveryHeader, frame);
            },
        ),
        Member::new("a router advertisement in an atomic fragment", OUT6, |s| {
            let header = craft::fragment_header(protocol::ICMPV6, (0, false), 7);
            let payload = [header, craft::discovery(134, s.workload())].concat();
            let frame = craft::ip_frame(LINK_LOCAL, ALL_NODES, 44, &payload);
            s.deny(
                RouterAdvertisement,
                craft::with_bytes(frame, IP + 7, &[255]),
            );
        }),
        Member::new("a router advertisement in a first fragment", OUT6, |s| {
            let ends = (s.workload(), ALL_NODES);
            let frame = craft::fragment(
                ends,
                protocol::ICMPV6,
                (0, true),
                s.port,
                &craft::discovery(134, s.workload()),
            );
            s.deny(NeighbourSpoof, craft::with_bytes(frame, IP + 7, &[255]));
        }),
        Member::new(
            "an advertisement of another workload, its target in the second fragment",
            OUT6,
            split_advertisement,
        ),
        Member::new(
            "a router advertisement, options in the first fragment and its type in the second",
            OUT6,
            |s| {
                let ends = (s.workload(), ALL_NODES);
                let id = s.port;
                let options = craft::extension(protocol::ICMPV6, 0);
                s.deny(
                    TinyFragment,
                    craft::fragment(ends, 60, (0, true), id, &options),
                );
                let rest = craft::fragment(
                    ends,
                    60,
                    (1, false),
                    id,
                    &craft::discovery(134, s.workload()),
                );
                s.deny(OrphanFragment, rest);
            },
        ),
    ],
};

fn split_advertisement(s: &mut CaseBuilder<'_>) {
    let ends = (s.workload(), ALL_NODES);
    let message = craft::discovery(136, fixture::other_workload(true));
    let (head, rest) = message.split_at_checked(8).unwrap_or_default();
    let id = s.port;
    let first = craft::fragment(ends, protocol::ICMPV6, (0, true), id, head);
    s.deny(NeighbourSpoof, craft::with_bytes(first, IP + 7, &[255]));
    let second = craft::fragment(ends, protocol::ICMPV6, (1, false), id, rest);
    s.deny(OrphanFragment, craft::with_bytes(second, IP + 7, &[255]));
}

fn behind_options(s: &mut CaseBuilder<'_>, from: IpAddr, kind: u8, target: IpAddr) -> Vec<u8> {
    let count = 1 + s.rng.below(7);
    let mut payload = Vec::new();
    for index in 0..count {
        let next = if index + 1 == count {
            protocol::ICMPV6
        } else {
            60
        };
        payload.extend(craft::extension(next, 0));
    }
    payload.extend(craft::discovery(kind, target));
    let first = if s.rng.one_in(2) { 0 } else { 60 };
    let frame = craft::ip_frame(from, ALL_NODES, first, &payload);
    craft::with_bytes(frame, IP + 7, &[255])
}

pub(super) fn discovery(from: IpAddr, to: IpAddr, kind: u8, target: IpAddr) -> Vec<u8> {
    let frame = craft::ip_frame(from, to, protocol::ICMPV6, &craft::discovery(kind, target));
    craft::with_bytes(frame, IP + 7, &[255])
}
