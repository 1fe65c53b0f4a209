//! Addresses and protocols that lead around a naive check: addresses of one family in the other, multicast
//! that a router forwards, proxies, node information, IGMP and VRRP. What is decided about each is in
//! `docs/security.md`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    ids::IdentityId,
    mode::{Direction, Verdict},
    policy::PolicyRow,
};

use crate::discovery::{about, message, solicited_node};
use crate::fence::{
    Arriving, FRIEND, FRIEND_IDENTITY, Fence, LOCAL, Leaving, OTHER, RULE, TABLE, any_protocol,
    exact,
};
use crate::frames::{ICMPV6, SYN, TCP, UDP, frame, framed, icmp, icmp_error, packet, tcp, udp};

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => panic!("{ip} is an IPv6 address"),
    }
}

/// The forms in which IPv6 carries an IPv4 address: mapped (RFC 4291 §2.5.5.2), compatible, 6to4
/// (RFC 3056), translated (RFC 6052).
fn embedded(ip: IpAddr) -> [(&'static str, IpAddr); 4] {
    let [a, b, c, d] = v4(ip).octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    [
        ("mapped", Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low)),
        ("compatible", Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low)),
        ("6to4", Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)),
        (
            "translated",
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        ),
    ]
    .map(|(name, ip)| (name, ip.into()))
}

#[test]
fn an_ipv4_address_in_an_ipv6_address_is_no_ipv4_address() {
    let mut fence = Fence::new();
    fence.allow_friends();
    let (own, peer) = (LOCAL.ip(true), FRIEND.ip(true));
    let datagram = udp(40_000, 53, 4);
    for (form, mine) in embedded(LOCAL.ip(false)) {
        let forged = frame(mine, peer, UDP, &datagram);
        fence.denies(Leaving, &forged, DropReason::SpoofedSource, form);
    }
    for (form, theirs) in embedded(FRIEND.ip(false)) {
        let reason = DropReason::UnknownPeer;
        fence.denies(Leaving, &frame(own, theirs, UDP, &datagram), reason, form);
        fence.denies(Arriving, &frame(theirs, own, UDP, &datagram), reason, form);
    }
    fence.passes(Leaving, &frame(own, peer, UDP, &datagram), "control");
    let plain = frame(LOCAL.ip(false), FRIEND.ip(false), UDP, &datagram);
    fence.passes(Leaving, &plain, "control");
}

#[test]
fn multicast_that_a_router_forwards_needs_a_rule_for_its_source() {
    for (v6, group) in [(false, "239.1.2.3"), (true, "ff0e::123")] {
        let group: IpAddr = group.parse().unwrap();
        let datagram = udp(40_000, 5004, 4);
        let mut fence = Fence::new();
        let stream = frame(FRIEND.ip(v6), group, UDP, &datagram);
        fence.denies(Arriving, &stream, DropReason::Policy, "without a rule");
        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, UDP, 5004);
        fence.passes(Arriving, &stream, "with a rule for the source");
        let other = frame(OTHER.ip(v6), group, UDP, &datagram);
        fence.denies(Arriving, &other, DropReason::Policy, "of another source");
        // What the workload sends to a group needs a rule for the group.
        let sent = frame(LOCAL.ip(v6), group, UDP, &datagram);
        fence.denies(Leaving, &sent, DropReason::UnknownPeer, "to the group");
        let mut fence = Fence::new();
        fence.write(Action::PutAddress(group, FRIEND_IDENTITY));
        fence.denies(Leaving, &sent, DropReason::Policy, "without a rule");
        fence.allow(Direction::Egress, UDP, 5004);
        let sent = frame(LOCAL.ip(v6), group, UDP, &udp(40_001, 5004, 4));
        fence.passes(Leaving, &sent, "control: with a rule");
    }
}

fn arp(operation: u8, sender: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 2];
    body.extend(v4(sender).octets());
    body.extend([0; 6]);
    body.extend(v4(target).octets());
    framed(0x0806, &body)
}

#[test]
fn a_node_may_be_a_proxy_and_a_workload_may_not() {
    let mut fence = Fence::new();
    let (own, other) = (LOCAL.ip(false), OTHER.ip(false));
    fence.passes(Leaving, &arp(1, own, other), "asking for what a proxy has");
    fence.passes(Arriving, &arp(2, other, own), "the proxy's answer");
    let answer = arp(2, other, own);
    fence.denies(Leaving, &answer, DropReason::ArpSpoof, "as a proxy");
    let (own, other) = (LOCAL.ip(true), OTHER.ip(true));
    let asking = message(own, solicited_node(other), &about(135, other, &[]));
    fence.passes(Leaving, &asking, "asking for what a proxy has");
    let answer = message(FRIEND.ip(true), own, &about(136, other, &[]));
    fence.passes(Arriving, &answer, "the proxy's answer");
    let answer = message(own, FRIEND.ip(true), &about(136, other, &[]));
    fence.denies(Leaving, &answer, DropReason::NeighbourSpoof, "as a proxy");
}

#[test]
fn node_information_is_icmp_like_any_other() {
    let (own, peer) = (LOCAL.ip(true), FRIEND.ip(true));
    // RFC 4620 §4: query and response.
    for kind in [139, 140] {
        let body = [icmp(kind, 0, 2), vec![0; 24]].concat();
        let mut fence = Fence::new();
        let (sent, arriving) = (
            frame(own, peer, ICMPV6, &body),
            frame(peer, own, ICMPV6, &body),
        );
        fence.denies(Leaving, &sent, DropReason::Policy, "node information");
        fence.denies(Arriving, &arriving, DropReason::Policy, "node information");
        let mut fence = Fence::new();
        fence.allow_friends();
        fence.passes(Leaving, &sent, "control: with a rule");
        fence.passes(Arriving, &arriving, "control: with a rule");
    }
    // A query opens nothing for its answer, which could be anything.
    let mut fence = Fence::new();
    let row = PolicyRow::lasting(Verdict::Allow, RULE);
    fence.put_row(
        any_protocol(TABLE, crate::fence::FRIENDS, Direction::Egress),
        row,
    );
    let query = [icmp(139, 0, 2), vec![0; 24]].concat();
    fence.passes(Leaving, &frame(own, peer, ICMPV6, &query), "a query");
    let error = icmp_error(1, 1, &packet(own, peer, TCP, &tcp(1, 2, SYN)));
    let error = frame(peer, own, ICMPV6, &error);
    fence.denies(Arriving, &error, DropReason::IcmpErrorUnmatched, "an error");
}

#[test]
fn igmp_vrrp_and_multicast_routing_need_a_rule_that_names_the_protocol() {
    for (name, protocol, group) in [
        ("IGMP", 2, "224.0.0.22"),
        ("PIM", 103, "224.0.0.13"),
        ("VRRP", 112, "224.0.0.18"),
        ("PIM over IPv6", 103, "ff02::d"),
        ("VRRP over IPv6", 112, "ff02::12"),
    ] {
        let group: IpAddr = group.parse().unwrap();
        let v6 = group.is_ipv6();
        let body = [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3];
        let (own, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
        let mut fence = Fence::new();
        fence.write(Action::PutAddress(group, IdentityId::WORLD));
        let sent = frame(own, group, protocol, &body);
        fence.denies(Leaving, &sent, DropReason::Policy, name);
        // An advertisement by a neighbour does not arrive either.
        let arriving = frame(peer, group, protocol, &body);
        fence.denies(Arriving, &arriving, DropReason::Policy, name);
        let mut fence = Fence::new();
        fence.write(Action::PutAddress(group, FRIEND_IDENTITY));
        // A rule for ports does not cover them.
        for allowed in [TCP, UDP] {
            fence.allow(Direction::Egress, allowed, 0);
        }
        fence.denies(Leaving, &sent, DropReason::Policy, name);
        let mut fence = Fence::new();
        fence.write(Action::PutAddress(group, FRIEND_IDENTITY));
        for direction in [Direction::Egress, Direction::Ingress] {
            let row = PolicyRow::lasting(Verdict::Allow, RULE);
            let key = exact(TABLE, crate::fence::FRIENDS, direction, protocol, 0);
            fence.put_row(key, row);
        }
        fence.passes(Leaving, &sent, "control: a rule for the protocol");
        fence.passes(Arriving, &arriving, "control: a rule for the protocol");
    }
}
