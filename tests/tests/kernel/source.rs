//! Whose address a packet may carry: the workload's own, or what address configuration needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, TableId},
    mode::{Direction, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, FRIEND, Fence, FromNode, Hairpin, LOCAL, Leaving, OTHER, RULE, STRANGER, TABLE, key,
};
use crate::frames::{ACK, SYN, TCP, Talk, UDP, frame, tcp, udp};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 0x101));
const DHCP_SERVERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));

/// A table after the first.
const NEXT: TableId = TableId(8);

/// A fence whose policy allows whatever it is asked.
fn permissive() -> Fence {
    let mut fence = Fence::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let row = PolicyRow::lasting(Verdict::Allow, RULE);
        fence.put(key(TABLE, ClassId::ANY, direction), row);
    }
    fence
}

#[test]
fn a_workload_sends_from_its_own_addresses_only() {
    let mut fence = permissive();
    for v6 in [false, true] {
        let to = FRIEND.ip(v6);
        for (what, from) in [
            ("another workload's", OTHER.ip(v6)),
            ("the destination's", to),
            ("nobody's", STRANGER.ip(v6)),
            ("no", if v6 { ANY6 } else { ANY4 }),
        ] {
            for (number, payload) in [
                (TCP, tcp(1, 2, SYN)),
                (TCP, tcp(1, 2, ACK)),
                (UDP, udp(1, 2, 4)),
                (47, vec![0; 8]),
            ] {
                let frame = frame(from, to, number, &payload);
                fence.refuses(Leaving, &frame, DropReason::SpoofedSource, what);
            }
        }
        let own = frame(LOCAL.ip(v6), to, TCP, &tcp(1, 2, SYN));
        fence.passes(Leaving, &own, "control: its own");
    }
    let local = frame(LINK_LOCAL, FRIEND.ip(true), TCP, &tcp(1, 2, SYN));
    fence.refuses(
        Leaving,
        &local,
        DropReason::SpoofedSource,
        "link-local, beyond discovery",
    );
}

#[test]
fn every_address_of_the_workload_is_its_own() {
    let mut fence = permissive();
    fence.edit(|endpoint| {
        endpoint.ip4[2] = ringfence_common::net::Ip4::from_wire([10, 0, 0, 4]);
        let IpAddr::V6(second) = OTHER.ip(true) else {
            panic!()
        };
        endpoint.ip6[1] = ringfence_common::net::Ip6::from_wire(second.octets());
    });
    for v6 in [false, true] {
        let frame = frame(OTHER.ip(v6), FRIEND.ip(v6), TCP, &tcp(1, 2, SYN));
        fence.passes(Leaving, &frame, "a further address");
    }
}

#[test]
fn nobody_else_sends_from_the_workloads_address_to_it() {
    for v6 in [false, true] {
        let own = LOCAL.ip(v6);
        let frame = frame(own, own, TCP, &tcp(1, 2, SYN));
        permissive().refuses(
            Arriving,
            &frame,
            DropReason::SpoofedSource,
            "from elsewhere",
        );
        permissive().passes(Hairpin, &frame, "control: it came from the workload");
        permissive().passes(FromNode, &frame, "control: it came from the node");
    }
}

#[test]
fn an_address_can_be_asked_for_by_dhcp_and_nothing_else() {
    // No row allows anything.
    let mut fence = Fence::new();
    let all = IpAddr::V4(Ipv4Addr::BROADCAST);
    fence.passes(Leaving, &frame(ANY4, all, UDP, &udp(68, 67, 8)), "DHCP");
    fence.passes(
        Leaving,
        &frame(LINK_LOCAL, DHCP_SERVERS, UDP, &udp(546, 547, 8)),
        "DHCPv6",
    );
    for (what, frame) in [
        ("other ports", frame(ANY4, all, UDP, &udp(67, 68, 8))),
        (
            "a unicast destination",
            frame(ANY4, FRIEND.ip(false), UDP, &udp(68, 67, 8)),
        ),
        ("TCP", frame(ANY4, all, TCP, &tcp(68, 67, SYN))),
        (
            "other ports",
            frame(LINK_LOCAL, DHCP_SERVERS, UDP, &udp(547, 546, 8)),
        ),
        (
            "a unicast destination",
            frame(LINK_LOCAL, FRIEND.ip(true), UDP, &udp(546, 547, 8)),
        ),
        (
            "another group",
            frame(LINK_LOCAL, EVERYWHERE, UDP, &udp(546, 547, 8)),
        ),
        (
            "no source at all",
            frame(ANY6, DHCP_SERVERS, UDP, &udp(546, 547, 8)),
        ),
    ] {
        fence.refuses(Leaving, &frame, DropReason::SpoofedSource, what);
    }
}

#[test]
fn what_comes_back_to_its_sender_speaks_for_no_other_flow() {
    for v6 in [false, true] {
        let talk = Talk {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        };
        for way in [Hairpin, FromNode] {
            // Before anything else: a packet like it leaves, and one that looks like an answer comes.
            let mut fence = Fence::new();
            fence.passes(way, &talk.out(UDP, 0), "from the own address");
            fence.refuses(
                Leaving,
                &talk.out(UDP, 0),
                DropReason::Policy,
                "to the friend",
            );
            fence.refuses(
                Arriving,
                &talk.back(UDP, 0),
                DropReason::Policy,
                "from the friend",
            );
            drop(fence);

            // In the middle of a flow that is revoked.
            let mut fence = Fence::new();
            fence.allow(Direction::Egress, UDP, 443);
            fence.passes(Leaving, &talk.out(UDP, 0), "control: allowed");
            fence.deny_by_default(NEXT);
            fence.edit(|endpoint| endpoint.table = NEXT);
            fence.passes(way, &talk.out(UDP, 0), "from the own address");
            fence.refuses(Leaving, &talk.out(UDP, 0), DropReason::Policy, "revoked");
            fence.refuses(Arriving, &talk.back(UDP, 0), DropReason::Policy, "as well");
        }
    }
}
