//! Data in what passes without a rule: neighbour discovery, listener discovery and ARP.
//!
//! Each of these reaches others past any policy, so each carries nothing but its own message, and goes
//! only to where that is of use.

use std::net::{IpAddr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::{
    ArpHeader, DiscoveryHeader, ListenerQuery, NeighbourSpoof,
};

use super::announcements::{ALL_NODES, ROUTER, discovery, solicited_node};
use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, AFTER_IP6, FROM, IP, LINK_LOCAL};
use crate::attack::family::{ANY4, ANY6, Family, IN4, IN6, Member, OUT4, OUT6};
use crate::attack::fixture::{self, Direction, protocol};
use crate::frame::ARP as ARP_TYPE;

const GLOBAL_GROUP: IpAddr = group(0xff0e, 0x99);
const LISTENER_ROUTERS: IpAddr = group(0xff02, 0x16);
/// Offset of the first extension header or ICMPv6 message.
const MESSAGE: usize = AFTER_IP6;

const fn group(scope: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(scope, 0, 0, 0, 0, 0, 0, last))
}

/// Neighbour discovery that carries data, or goes where it is of no use.
pub(super) const DISCOVERY: Family = Family {
    name: "discovery-tunnel",
    members: &[
        Member::new("a solicitation to a denied host", OUT6, |s| {
            let to = fixture::unlisted_host(true);
            s.deny(NeighbourSpoof, discovery(s.workload(), to, 135, to));
        }),
        Member::new("an advertisement to a denied host", OUT6, |s| {
            let to = fixture::unlisted_host(true);
            s.deny(
                NeighbourSpoof,
                discovery(s.workload(), to, 136, s.workload()),
            );
        }),
        Member::new("an advertisement to an allowed peer", OUT6, |s| {
            s.deny(
                NeighbourSpoof,
                discovery(s.workload(), s.peer, 136, s.workload()),
            );
        }),
        Member::new("to a denied host, with data after the packet", OUT6, |s| {
            let to = fixture::unlisted_host(true);
            let kind = s.rng.choose(&[135, 136], 135);
            let target = if kind == 135 { to } else { s.workload() };
            let frame = discovery(s.workload(), to, kind, target);
            let data = data(s);
            s.deny(DiscoveryHeader, [frame, data].concat());
        }),
        Member::new("data after the packet", ANY6, |s| {
            let frame = useful(s, &[]);
            let data = data(s);
            s.deny(DiscoveryHeader, [frame, data].concat());
        }),
        Member::new("data after the message", ANY6, |s| {
            let data = [0_u8; 8].repeat(1 + s.rng.below(100));
            let frame = useful(s, &data);
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("data in an option of another type", ANY6, |s| {
            let kind = s.rng.choose(&[3, 5, 24, 25, 31, 253], 253);
            let option = long_option(s, kind);
            let frame = useful(s, &option);
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("data in a long link-layer address or nonce", ANY6, |s| {
            let kind = s.rng.choose(&[1, 2, 14], 14);
            let option = long_option(s, kind);
            let frame = useful(s, &option);
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("an option without a length", ANY6, |s| {
            let frame = useful(s, &[14, 0, 1, 2, 3, 4, 5, 6]);
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("an option again and again", ANY6, |s| {
            let count = 2 + s.rng.below(100);
            let kind = s.rng.choose(&[1, 2, 14], 14);
            let frame = useful(s, &craft::link_option(kind, FROM).repeat(count));
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("two link-layer addresses", ANY6, |s| {
            let both = [craft::link_option(1, FROM), craft::link_option(2, FROM)];
            let frame = useful(s, &both.concat());
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("data in reserved bytes", ANY6, |s| {
            let frame = useful(s, &[]);
            let [a, b] = [s.rng.byte() | 1, s.rng.byte()];
            s.deny(
                DiscoveryHeader,
                craft::with_bytes(frame, MESSAGE + 5, &[a, b, b]),
            );
        }),
        Member::new("data in the code", ANY6, |s| {
            let frame = useful(s, &[]);
            let code = s.rng.byte() | 1;
            s.deny(
                DiscoveryHeader,
                craft::with_bytes(frame, MESSAGE + 1, &[code]),
            );
        }),
        Member::new("data in unknown flags", ANY6, |s| {
            let frame = useful(s, &[]);
            let flags = 1 << s.rng.below(5);
            s.deny(
                DiscoveryHeader,
                craft::with_bytes(frame, MESSAGE + 4, &[flags]),
            );
        }),
        Member::new("behind extension headers with data", ANY6, |s| {
            let frame = behind_data(s);
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("a solicitation to another's group", OUT6, |s| {
            let to = solicited_node(fixture::unlisted_host(true));
            s.deny(NeighbourSpoof, discovery(s.workload(), to, 135, s.peer));
        }),
        Member::new("a solicitation to a neighbour about another", OUT6, |s| {
            let to = s.rng.choose(&[ROUTER, fixture::node(true)], ROUTER);
            s.deny(NeighbourSpoof, discovery(s.workload(), to, 135, s.peer));
        }),
        Member::new("to a group beyond the link", OUT6, |s| {
            let kind = s.rng.choose(&[133, 135, 136], 136);
            let target = s.workload();
            s.deny(
                NeighbourSpoof,
                discovery(s.workload(), GLOBAL_GROUP, kind, target),
            );
        }),
        Member::new("an advertisement to a solicited-node group", OUT6, |s| {
            let to = solicited_node(s.peer);
            s.deny(
                NeighbourSpoof,
                discovery(s.workload(), to, 136, s.workload()),
            );
        }),
        Member::new("a solicited advertisement to all", OUT6, |s| {
            let frame = discovery(s.workload(), ALL_NODES, 136, s.workload());
            s.deny(
                NeighbourSpoof,
                craft::with_bytes(frame, MESSAGE + 4, &[0x60]),
            );
        }),
        Member::new("about a group", OUT6, |s| {
            let target = s.rng.choose(&[ALL_NODES, GLOBAL_GROUP], ALL_NODES);
            s.deny(
                NeighbourSpoof,
                discovery(s.workload(), ALL_NODES, 135, target),
            );
        }),
        Member::new("looking for routers at the node", OUT6, |s| {
            let to = s.rng.choose(&[fixture::node(true), s.peer], s.peer);
            s.deny(NeighbourSpoof, discovery(s.workload(), to, 133, to));
        }),
        Member::new("about another host, to it", IN6, |s| {
            let to = fixture::other_workload(true);
            s.deny(NeighbourSpoof, discovery(s.peer, to, 135, to));
        }),
        Member::new("control: whose address it is", ANY6, |s| {
            let frame = useful(s, &craft::link_option(1, FROM));
            s.permit(frame);
        }),
        Member::new("control: with a nonce", ANY6, |s| {
            let nonce = craft::link_option(14, [7; 6]);
            let frame = useful(s, &[craft::link_option(1, FROM), nonce].concat());
            s.permit(frame);
        }),
        Member::new("control: whether a neighbour is there", OUT6, |s| {
            let to = s.rng.choose(&[ROUTER, fixture::node(true)], ROUTER);
            s.permit(discovery(s.workload(), to, 135, to));
            s.permit_back(discovery(s.peer, s.workload(), 136, s.peer));
        }),
        Member::new("control: the answer that it is there", OUT6, |s| {
            let to = s.rng.choose(&[ROUTER, fixture::node(true)], ROUTER);
            s.permit_back(discovery(to, s.workload(), 135, s.workload()));
            s.permit(discovery(s.workload(), to, 136, s.workload()));
        }),
    ],
};

/// A solicitation with these options that would pass.
fn useful(s: &CaseBuilder<'_>, options: &[u8]) -> Vec<u8> {
    let (from, to) = s.ends();
    let message = craft::discovery_with(135, to, options);
    let frame = craft::ip_frame(from, solicited_node(to), protocol::ICMPV6, &message);
    craft::with_bytes(frame, IP + 7, &[255])
}

fn data(s: &mut CaseBuilder<'_>) -> Vec<u8> {
    let length = 1 + s.rng.below(1300);
    s.rng.bytes(length)
}

/// An option of 16 bytes to 1,304.
fn long_option(s: &mut CaseBuilder<'_>, kind: u8) -> Vec<u8> {
    let units = 2 + s.rng.below(162);
    let value = s.rng.bytes(8 * units - 2);
    [&[kind, u8::try_from(units).unwrap_or(2)], value.as_slice()].concat()
}

fn behind_data(s: &mut CaseBuilder<'_>) -> Vec<u8> {
    let words = s.rng.byte() / 2;
    let mut header = craft::extension(protocol::ICMPV6, words);
    let length = header.len();
    let data = s.rng.bytes(length - 4);
    // An experimental option, which its receiver skips (RFC 4727 §4).
    let size = u8::try_from(data.len()).unwrap_or(u8::MAX);
    craft::write(&mut header, 2, &[0x1e, size]);
    craft::write(&mut header, 4, &data);
    let (from, to) = s.ends();
    let kind = s.rng.choose(&[0, 60], 60);
    let message = craft::discovery(135, to);
    let payload = [header, message].concat();
    let frame = craft::ip_frame(from, solicited_node(to), kind, &payload);
    craft::with_bytes(frame, IP + 7, &[255])
}

/// Listener messages that carry data, or that only a router sends.
pub(super) const LISTENER: Family = Family {
    name: "listener-tunnel",
    members: &[
        Member::new("data after the message", ANY6, |s| {
            let data = [7_u8; 4].repeat(1 + s.rng.below(300));
            let message = [report(s), data].concat();
            s.deny(DiscoveryHeader, from_listener(s, &message));
        }),
        Member::new("data after the packet", ANY6, |s| {
            let frame = from_listener(s, &report(s));
            let data = data(s);
            s.deny(DiscoveryHeader, [frame, data].concat());
        }),
        Member::new("without options", ANY6, |s| {
            let frame = craft::ip_frame(LINK_LOCAL, LISTENER_ROUTERS, 58, &report(s));
            s.deny(DiscoveryHeader, craft::with_bytes(frame, IP + 7, &[1]));
        }),
        Member::new("without a router alert", ANY6, |s| {
            let frame = from_listener(s, &report(s));
            s.deny(
                DiscoveryHeader,
                craft::with_bytes(frame, MESSAGE + 2, &[1, 4, 0, 0]),
            );
        }),
        Member::new("data in its options", ANY6, |s| {
            let frame = from_listener(s, &report(s));
            let [a, b] = [s.rng.byte(), s.rng.byte()];
            s.deny(
                DiscoveryHeader,
                craft::with_bytes(frame, MESSAGE + 2, &[0x1e, 4, a, b, b, a]),
            );
        }),
        Member::new("a router alert that no router looks at", ANY6, |s| {
            let frame = from_listener(s, &report(s));
            let kind = s.rng.choose(&[43, 51, 60], 60);
            s.deny(DiscoveryHeader, craft::with_bytes(frame, IP + 6, &[kind]));
        }),
        Member::new("behind more options", ANY6, |s| {
            let alert = [
                protocol::ICMPV6,
                1,
                5,
                2,
                0,
                0,
                0x1e,
                8,
                1,
                2,
                3,
                4,
                5,
                6,
                7,
                8,
            ];
            let payload = [alert.as_slice(), &report(s)].concat();
            let frame = craft::ip_frame(LINK_LOCAL, LISTENER_ROUTERS, 0, &payload);
            s.deny(DiscoveryHeader, craft::with_bytes(frame, IP + 7, &[1]));
        }),
        Member::new("beyond the link", ANY6, |s| {
            let frame = from_listener(s, &report(s));
            let hops = 2 + s.rng.byte() % 254;
            s.deny(DiscoveryHeader, craft::with_bytes(frame, IP + 7, &[hops]));
        }),
        Member::new("more groups than a host reports at once", ANY6, |s| {
            let count = 73 + s.rng.byte() % 48;
            let message = craft::listener_report(LISTENER_ROUTERS, count);
            s.deny(DiscoveryHeader, from_listener(s, &message));
        }),
        Member::new("fewer groups than it states", ANY6, |s| {
            let mut message = craft::listener_report(LISTENER_ROUTERS, 2);
            craft::write(&mut message, 7, &[3]);
            s.deny(DiscoveryHeader, from_listener(s, &message));
        }),
        Member::new("about a host", ANY6, |s| {
            let message = craft::listener_report(s.peer, 1);
            s.deny(DiscoveryHeader, from_listener(s, &message));
        }),
        Member::new("auxiliary data", ANY6, |s| {
            let mut message = craft::listener_report(LISTENER_ROUTERS, 1);
            craft::write(&mut message, 9, &[4]);
            let data = s.rng.bytes(16);
            message.extend(data);
            s.deny(DiscoveryHeader, from_listener(s, &message));
        }),
        Member::new("data in the code", ANY6, |s| {
            let mut message = report(s);
            let code = s.rng.byte() | 1;
            craft::write(&mut message, 1, &[code]);
            s.deny(DiscoveryHeader, from_listener(s, &message));
        }),
        Member::new("to a host", ANY6, |s| {
            let (_, to) = s.ends();
            let frame = craft::listener_frame(LINK_LOCAL, to, &report(s));
            s.deny(NeighbourSpoof, frame);
        }),
        Member::new("a query", OUT6, |s| {
            let from = s.rng.choose(&[LINK_LOCAL, s.workload()], LINK_LOCAL);
            let group = s.rng.choose(
                &[LISTENER_ROUTERS, IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
                LISTENER_ROUTERS,
            );
            let frame = craft::listener_frame(from, ALL_NODES, &craft::listener(130, group));
            s.deny(ListenerQuery, frame);
        }),
        Member::new("a query of version 2", OUT6, |s| {
            let query = craft::listener(130, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            let query = [query.as_slice(), &[2, 125, 0, 0]].concat();
            s.deny(
                ListenerQuery,
                craft::listener_frame(LINK_LOCAL, ALL_NODES, &query),
            );
        }),
        Member::new("control: a router's query", IN6, |s| {
            let query = craft::listener(130, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            s.permit(craft::listener_frame(ROUTER, ALL_NODES, &query));
        }),
        Member::new("control: a report of version 1", ANY6, |s| {
            let kind = s.rng.choose(&[131, 132], 131);
            let message = craft::listener(kind, solicited_node(s.workload()));
            s.permit(from_listener(s, &message));
        }),
        Member::new("control: a report of version 2", ANY6, |s| {
            let count = 1 + s.rng.byte() % 72;
            let message = craft::listener_report(solicited_node(s.workload()), count);
            s.permit(from_listener(s, &message));
        }),
        Member::new("control: before it has an address", OUT6, |s| {
            let none = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            s.permit(craft::listener_frame(none, LISTENER_ROUTERS, &report(s)));
        }),
    ],
};

fn report(s: &CaseBuilder<'_>) -> Vec<u8> {
    craft::listener_report(solicited_node(s.workload()), 1)
}

fn from_listener(s: &CaseBuilder<'_>, message: &[u8]) -> Vec<u8> {
    let from = match s.direction {
        Direction::Out => LINK_LOCAL,
        Direction::In => ROUTER,
    };
    craft::listener_frame(from, LISTENER_ROUTERS, message)
}

/// ARP that carries data.
pub(super) const ARP: Family = Family {
    name: "arp-tunnel",
    members: &[
        Member::new("data after the packet", ANY4, |s| {
            let count = 19 + s.rng.below(1300);
            let data = s.rng.bytes(count);
            s.deny(ArpHeader, followed(s, &data));
        }),
        Member::new("zeros after the packet", ANY4, |s| {
            let count = 19 + s.rng.below(1300);
            s.deny(ArpHeader, followed(s, &vec![0; count]));
        }),
        Member::new("data in the padding", OUT4, |s| {
            let count = 1 + s.rng.below(18);
            let mut padding = vec![0; count];
            let place = s.rng.below(count);
            let byte = s.rng.byte() | 1;
            craft::write(&mut padding, place, &[byte]);
            s.deny(ArpHeader, followed(s, &padding));
        }),
        Member::new("control: padding", OUT4, |s| {
            let count = s.rng.below(19);
            s.permit(followed(s, &vec![0; count]));
        }),
        Member::new("control: what a network card pads with", IN4, |s| {
            let padding = s.rng.bytes(18);
            s.permit(followed(s, &padding));
        }),
    ],
};

fn followed(s: &CaseBuilder<'_>, more: &[u8]) -> Vec<u8> {
    let (from, to) = s.ends();
    let body = [&craft::arp(1, from, to), more].concat();
    craft::broadcast(ARP_TYPE, &body)
}

/// Duplicate address detection (RFC 4862 §5.4) for the addresses of others, who then do not use them.
pub(super) const DUPLICATES: Family = Family {
    name: "duplicate-address",
    members: &[
        Member::new("another workload's", OUT6, |s| {
            s.deny(NeighbourSpoof, detect(fixture::other_workload(true), &[]));
        }),
        Member::new("the node's", OUT6, |s| {
            s.deny(NeighbourSpoof, detect(fixture::node(true), &[]));
        }),
        Member::new("a peer's", OUT6, |s| {
            s.deny(NeighbourSpoof, detect(s.peer, &[]));
        }),
        Member::new("a router's link-local", OUT6, |s| {
            s.deny(NeighbourSpoof, detect(ROUTER, &[]));
        }),
        Member::new("another's, with a nonce", OUT6, |s| {
            let nonce = craft::link_option(14, [9; 6]);
            s.deny(
                NeighbourSpoof,
                detect(fixture::other_workload(true), &nonce),
            );
        }),
        Member::new("its own, with a link-layer address", OUT6, |s| {
            s.deny(
                NeighbourSpoof,
                detect(s.workload(), &craft::link_option(1, FROM)),
            );
        }),
        Member::new("its own, to all", OUT6, |s| {
            let none = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            let message = craft::discovery_with(135, s.workload(), &[]);
            let frame = craft::ip_frame(none, ALL_NODES, protocol::ICMPV6, &message);
            s.deny(NeighbourSpoof, craft::with_bytes(frame, IP + 7, &[255]));
        }),
        Member::new("an answer to another's", OUT6, |s| {
            let other = fixture::other_workload(true);
            s.permit_back(detect(other, &[]));
            s.deny(
                NeighbourSpoof,
                discovery(s.workload(), ALL_NODES, 136, other),
            );
        }),
        Member::new("control: its own", OUT6, |s| {
            let nonce = craft::link_option(14, [9; 6]);
            let target = s.rng.choose(&[LINK_LOCAL, s.workload()], LINK_LOCAL);
            let options: &[u8] = if s.rng.one_in(2) { &nonce } else { &[] };
            s.permit(detect(target, options));
        }),
        Member::new("control: the answer to one about its own", OUT6, |s| {
            s.permit_back(detect(s.workload(), &[]));
            s.permit(discovery(s.workload(), ALL_NODES, 136, s.workload()));
        }),
    ],
};

fn detect(target: IpAddr, options: &[u8]) -> Vec<u8> {
    let none = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let message = craft::discovery_with(135, target, options);
    let frame = craft::ip_frame(none, solicited_node(target), protocol::ICMPV6, &message);
    craft::with_bytes(frame, IP + 7, &[255])
}
