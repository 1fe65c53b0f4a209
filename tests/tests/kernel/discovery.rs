//! Discovery passes without policy, so it carries nothing but discovery: its form, where it goes, and
//! how much of it a workload may send.

use std::net::{IpAddr, Ipv6Addr};

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    endpoint::Endpoint,
    ids::IdentityId,
    mode::{Action as PacketAction, Mode},
    net::Ip6,
    packet::neighbour::ANSWER_TIME,
    quota::{DISCOVERIES_PER_SECOND, DISCOVERY_BURST},
};

use crate::fence::{
    Arriving, Dropped, FRIEND, Fence, LOCAL, Leaving, OTHER, Passed, UNKNOWN_PEER, Way,
};
use crate::frames::{Flow, ICMPV6, IP, SYN, TCP, UDP, framed, packet, with};
use ringfence_testbed::frame::IPV6;

pub(crate) const ALL_NODES: IpAddr = group(1);
pub(crate) const ALL_ROUTERS: IpAddr = group(2);
const LISTENER_ROUTERS: IpAddr = group(0x16);
pub(crate) const UNSPECIFIED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Derived from the hardware address [`MAC`].
pub(crate) const LINK_LOCAL: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2));
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// A router's link-local address.
const ROUTER: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const HEADER: DropReason = DropReason::DiscoveryHeader;
const SPOOF: DropReason = DropReason::NeighbourSpoof;

const fn group(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last))
}

/// The solicited-node group of an address.
pub(crate) fn solicited_node(ip: IpAddr) -> IpAddr {
    let [.., a, b, c] = octets(ip);
    let last = u16::from_be_bytes([b, c]);
    IpAddr::V6(Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        last,
    ))
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => panic!("{ip}"),
    }
}

/// A neighbour solicitation (135) or advertisement (136), or another message with a target.
pub(crate) fn about(kind: u8, target: IpAddr, options: &[u8]) -> Vec<u8> {
    [
        &[kind, 0, 0, 0, 0, 0, 0, 0],
        octets(target).as_slice(),
        options,
    ]
    .concat()
}

/// A link-layer address option or a nonce.
pub(crate) fn option(kind: u8, value: [u8; 6]) -> Vec<u8> {
    [&[kind, 1], value.as_slice()].concat()
}

/// A message with the hop limit that makes it valid, from the workload's hardware address.
pub(crate) fn message(from: IpAddr, to: IpAddr, body: &[u8]) -> Vec<u8> {
    let ip = framed(IPV6, &packet(from, to, ICMPV6, body));
    with(with(ip, IP + 7, &[255]), 6, &MAC)
}

/// A listener message with its router alert and hop limit.
pub(crate) fn listener(from: IpAddr, to: IpAddr, body: &[u8]) -> Vec<u8> {
    let options = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let ip = framed(IPV6, &packet(from, to, 0, &[&options, body].concat()));
    with(with(ip, IP + 7, &[1]), 6, &MAC)
}

/// A report of version 2 about groups, each with as many sources.
pub(crate) fn report(groups: &[IpAddr], sources: u8) -> Vec<u8> {
    let count = u8::try_from(groups.len()).unwrap();
    let mut body = vec![143, 0, 0, 0, 0, 0, 0, count];
    for group in groups {
        body.extend([4, 0, 0, sources]);
        body.extend(octets(*group));
        body.extend(vec![0xfd; 16 * usize::from(sources)]);
    }
    body
}

/// One that stays on the link in either direction, with and without its options.
fn valid(kind: u8, options: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (own, other) = (LOCAL.ip(true), OTHER.ip(true));
    let body = |target| about(kind, target, options);
    match kind {
        133 => {
            let body = [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat();
            (
                message(own, ALL_ROUTERS, &body),
                message(other, ALL_ROUTERS, &body),
            )
        }
        135 => (
            message(own, solicited_node(other), &body(other)),
            message(other, solicited_node(own), &body(own)),
        ),
        _ => (
            message(own, ALL_NODES, &body(own)),
            message(other, ALL_NODES, &body(other)),
        ),
    }
}

/// The same frame with a byte of its message replaced.
fn edited(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
    with(frame.to_vec(), IP + 40 + at, &[byte])
}

#[test]
fn discovery_carries_nothing_else() {
    let mut fence = Fence::new();
    for kind in [133, 135, 136] {
        let link = option(if kind == 136 { 2 } else { 1 }, MAC);
        let nonce = option(14, [7; 6]);
        for options in [vec![], link.clone(), [link.clone(), nonce.clone()].concat()] {
            let (leaving, arriving) = valid(kind, &options);
            fence.passes(Leaving, &leaving, &format!("{kind} {options:?}"));
            fence.passes(Arriving, &arriving, &format!("{kind} {options:?}"));
        }
        let doubled = [link.as_slice(), &link].concat();
        let both = [option(1, MAC), option(2, MAC)].concat();
        let long = [&[14, 2][..], &[7; 14]].concat();
        for (what, options) in [
            ("an unknown option", option(5, [0; 6])),
            ("an option twice", doubled),
            ("a nonce twice", nonce.repeat(2)),
            ("two hardware addresses", both),
            ("an option twice as long", long),
            ("an option of no length", [&[14, 0][..], &[7; 6]].concat()),
            ("half an option", vec![14, 1, 7, 7]),
            ("data in options", [&[253, 162][..], &[7; 1294]].concat()),
        ] {
            let (leaving, arriving) = valid(kind, &options);
            let what = format!("{kind}: {what}");
            fence.denies(Leaving, &leaving, HEADER, &what);
            fence.denies(Arriving, &arriving, HEADER, &what);
        }
        let (leaving, arriving) = valid(kind, &link);
        for (way, frame) in [(Leaving, leaving), (Arriving, arriving)] {
            let trailing = [frame.as_slice(), &[0; 4]].concat();
            fence.denies(way, &trailing, HEADER, "bytes after the packet");
            fence.denies(way, &edited(&frame, 1, 1), HEADER, "a code");
            fence.denies(way, &edited(&frame, 7, 1), HEADER, "reserved bits");
            let flag = edited(&frame, 4, 0x20);
            if kind == 136 {
                fence.passes(way, &flag, "override");
                fence.denies(way, &edited(&frame, 4, 0x10), HEADER, "an unknown flag");
            } else {
                fence.denies(way, &flag, HEADER, "flags");
            }
        }
        fence.clear_flows();
    }
}

#[test]
fn discovery_has_no_extension_headers() {
    let own = LOCAL.ip(true);
    let mut fence = Fence::new();
    for (next, options) in [(0, [1, 4, 0, 0, 0, 0]), (60, [1, 4, 9, 9, 9, 9])] {
        let body = [&[ICMPV6, 0], options.as_slice(), &about(136, own, &[])].concat();
        let ip = framed(IPV6, &packet(own, ALL_NODES, next, &body));
        let frame = with(ip, IP + 7, &[255]);
        fence.denies(Leaving, &frame, HEADER, "options before it");
    }
}

/// A unicast message goes to the node or to a workload on it, and a solicitation asks only about where
/// it goes.
#[test]
fn discovery_goes_where_it_is_of_use() {
    let (own, node) = (LOCAL.ip(true), FRIEND.ip(true));
    let (local, remote) = (OTHER.ip(true), UNKNOWN_PEER.ip(true));
    let mut fence = Fence::new();
    fence.write(Action::PutAddress(node, IdentityId::HOST));
    let mut neighbour = Endpoint::default();
    neighbour.ip6[0] = Ip6::from_wire(octets(local));
    let ask = |to, target| message(own, to, &about(135, target, &[]));
    let advertise = |to| message(own, to, &about(136, own, &[]));
    fence.denies(
        Leaving,
        &ask(local, local),
        SPOOF,
        "control: not on this node",
    );
    fence.denies(
        Leaving,
        &advertise(local),
        SPOOF,
        "control: not on this node",
    );
    fence.write(Action::PutEndpoint(9, neighbour));
    for to in [node, local, ROUTER] {
        fence.passes(Leaving, &ask(to, to), "whether a neighbour is still there");
        fence.passes(Leaving, &advertise(to), "the answer to a neighbour");
        fence.denies(Leaving, &ask(to, remote), SPOOF, "about another one");
    }
    for to in [remote, group(0x99), solicited_node(remote)] {
        fence.denies(
            Leaving,
            &advertise(to),
            SPOOF,
            "an advertisement to elsewhere",
        );
    }
    for (to, target) in [
        (remote, remote),
        (group(0x99), remote),
        (solicited_node(local), remote),
    ] {
        fence.denies(
            Leaving,
            &ask(to, target),
            SPOOF,
            "a solicitation to elsewhere",
        );
    }
    fence.passes(
        Leaving,
        &ask(solicited_node(remote), remote),
        "whose address it is",
    );
    fence.denies(Leaving, &ask(ALL_NODES, ALL_NODES), SPOOF, "about a group");
    let solicited = with(advertise(ALL_NODES), IP + 40 + 4, &[0x40]);
    fence.denies(Leaving, &solicited, SPOOF, "an answer to all");
    for to in [node, ALL_NODES, group(0x99)] {
        let routers = message(own, to, &[133, 0, 0, 0, 0, 0, 0, 0]);
        fence.denies(Leaving, &routers, SPOOF, "looking for routers elsewhere");
    }
    let question = |from| message(from, solicited_node(own), &about(135, own, &[]));
    let outside = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x77));
    fence.denies(
        Leaving,
        &advertise(outside),
        SPOOF,
        "control: it did not ask",
    );
    fence.passes(Arriving, &question(outside), "a question from the link");
    fence.passes(Leaving, &advertise(outside), "its answer");
    fence.denies(
        Leaving,
        &advertise(remote),
        SPOOF,
        "an answer to another one",
    );
    let since = fence.clocks().ticks;
    while fence.clocks().ticks - since < ANSWER_TIME {}
    fence.denies(Leaving, &advertise(outside), SPOOF, "a late answer");
    let passing_by = message(remote, local, &about(135, local, &[]));
    fence.denies(
        Arriving,
        &passing_by,
        SPOOF,
        "discovery for another workload",
    );
    fence.write(Action::DeleteEndpoint(9));
    fence.denies(Leaving, &ask(local, local), SPOOF, "to one that is gone");
}

/// Another host with the address would not use it.
#[test]
fn duplicate_address_detection_is_about_own_addresses() {
    let (own, other) = (LOCAL.ip(true), OTHER.ip(true));
    let mut fence = Fence::new();
    let detect = |target, options: &[u8]| {
        message(
            UNSPECIFIED,
            solicited_node(target),
            &about(135, target, options),
        )
    };
    let nonce = option(14, [7; 6]);
    for target in [own, LINK_LOCAL] {
        fence.passes(Leaving, &detect(target, &[]), "an own address");
        fence.passes(Leaving, &detect(target, &nonce), "with a nonce (RFC 7527)");
        let bound = detect(target, &option(1, MAC));
        fence.denies(Leaving, &bound, SPOOF, "a hardware address for no address");
    }
    for target in [other, ROUTER, UNKNOWN_PEER.ip(true)] {
        fence.denies(Leaving, &detect(target, &[]), SPOOF, "another's address");
    }
    let to_all = message(UNSPECIFIED, ALL_NODES, &about(135, own, &[]));
    fence.denies(Leaving, &to_all, SPOOF, "to all nodes");
}

#[test]
fn a_workload_sends_no_listener_queries() {
    let mut fence = Fence::new();
    let body = about(130, UNSPECIFIED, &[]);
    let query = |from| listener(from, ALL_NODES, &body);
    fence.denies(
        Leaving,
        &query(LINK_LOCAL),
        DropReason::ListenerQuery,
        "a query",
    );
    fence.passes(Arriving, &query(ROUTER), "a router's query");
    let sources = [body.as_slice(), &[0, 0, 0, 1], &[0xfd; 16]].concat();
    fence.passes(
        Arriving,
        &listener(ROUTER, ALL_NODES, &sources),
        "about a source",
    );
    let more = [sources.as_slice(), &[7; 16]].concat();
    fence.denies(
        Arriving,
        &listener(ROUTER, ALL_NODES, &more),
        HEADER,
        "more than it states",
    );
}

#[test]
fn listener_reports_have_their_form() {
    let mut fence = Fence::new();
    let groups = [solicited_node(LOCAL.ip(true)), group(0xfb)];
    for (what, body) in [
        ("version 1", about(131, groups[0], &[])),
        ("the end of one", about(132, groups[0], &[])),
        ("version 2", report(&groups, 0)),
        ("version 2 with sources", report(&groups, 3)),
        (
            "as many groups as one report has",
            report(&[groups[0]; 72], 0),
        ),
    ] {
        for from in [LINK_LOCAL, UNSPECIFIED] {
            let frame = listener(from, LISTENER_ROUTERS, &body);
            fence.passes(Leaving, &frame, what);
            fence.passes(Arriving, &frame, what);
            let trailing = [body.as_slice(), &[7; 16]].concat();
            let trailing = listener(from, LISTENER_ROUTERS, &trailing);
            let after = [frame.as_slice(), &[0; 4]].concat();
            for (what, frame) in [
                ("data after the message", trailing),
                ("data after the packet", after),
                (
                    "a hop limit that a router would decrement",
                    with(frame.clone(), IP + 7, &[2]),
                ),
                (
                    "no router alert",
                    with(frame.clone(), IP + 42, &[1, 2, 0, 0]),
                ),
                (
                    "a router alert that no router looks at",
                    with(frame.clone(), IP + 6, &[60]),
                ),
                ("another router alert", with(frame.clone(), IP + 45, &[1])),
                ("a code", with(frame.clone(), IP + 49, &[1])),
            ] {
                fence.denies(Leaving, &frame, HEADER, what);
                fence.denies(Arriving, &frame, HEADER, what);
            }
        }
    }
    let bare = message(LINK_LOCAL, LISTENER_ROUTERS, &report(&groups, 0));
    for (what, frame) in [
        ("without options", with(bare, IP + 7, &[1])),
        (
            "too many groups",
            listener(LINK_LOCAL, LISTENER_ROUTERS, &report(&[groups[0]; 73], 0)),
        ),
        (
            "about a host",
            listener(LINK_LOCAL, LISTENER_ROUTERS, &report(&[LOCAL.ip(true)], 0)),
        ),
    ] {
        fence.denies(Leaving, &frame, HEADER, what);
    }
}

#[test]
fn a_workload_sends_discovery_at_a_limited_rate() {
    let mut fence = Fence::new();
    let (frame, arriving) = valid(135, &[]);
    let passed = |fence: &mut Fence| {
        let sent = DISCOVERY_BURST + 50;
        (0..sent)
            .filter(|_| fence.run(Leaving, &frame) == Passed)
            .count() as u64
    };
    // On a busy machine some are earned back meanwhile.
    let first = passed(&mut fence);
    assert!(
        (DISCOVERY_BURST..DISCOVERY_BURST + 50).contains(&first),
        "{first}"
    );
    assert_eq!(fence.counters().discovery_passed, first);
    let dropped = fence.counter(DropReason::DiscoveryRate, PacketAction::Drop);
    assert_eq!(dropped, DISCOVERY_BURST + 50 - first);
    assert_eq!(fence.run(Arriving, &arriving), Passed, "what others send");
    fence.set_mode(Mode::Observe);
    assert_eq!(fence.run(Leaving, &frame), Passed, "in observe");
    fence.set_mode(Mode::Enforce);
    let waited = 1_000_000_000 / DISCOVERIES_PER_SECOND;
    let since = fence.clocks().ticks;
    while fence.clocks().ticks - since < 3 * waited {}
    assert_eq!(fence.run(Leaving, &frame), Passed, "after a while");
}

/// What a workload sends to itself never leaves it; on a shared link such a packet reaches others.
#[test]
fn a_packet_to_an_own_address_needs_a_rule() {
    for v6 in [false, true] {
        let flow = Flow {
            v6,
            local: (LOCAL, 40_000),
            peer: (LOCAL, 443),
        };
        let mut fence = Fence::new();
        for (protocol, flags) in [(TCP, SYN), (UDP, 0), (47, 0)] {
            let frame = flow.outbound(protocol, flags);
            fence.denies(Leaving, &frame, DropReason::Policy, "without a rule");
            fence.passes(
                Way::Hairpin,
                &flow.inbound(protocol, flags),
                "through a Service",
            );
            fence.denies(Leaving, &frame, DropReason::Policy, "also after that");
        }
        assert_eq!(fence.run(Leaving, &flow.outbound(UDP, 0)), Dropped);
        fence.allow_itself(UDP, 443);
        fence.clear_flows();
        fence.passes(Leaving, &flow.outbound(UDP, 0), "a rule that names it");
    }
}
