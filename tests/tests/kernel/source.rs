//! Source addresses: a workload may send from its own addresses, and for address configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, TableId},
    mode::{Direction, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, FRIEND, Fence, FromHost, Hairpin, LOCAL, Leaving, OTHER, RULE, TABLE, UNKNOWN_PEER,
    any_protocol,
};
use crate::frames::{ACK, Flow, SYN, TCP, UDP, frame, tcp, udp};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 0x101));
const DHCP_SERVERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));

/// The endpoint's policy table after a change.
const NEXT: TableId = TableId(8);

/// A fence whose policy allows everything.
fn permissive() -> Fence {
    let mut fence = Fence::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let row = PolicyRow::lasting(Verdict::Allow, RULE);
        fence.put_row(any_protocol(TABLE, ClassId::ANY, direction), row);
    }
    fence
}

#[test]
fn packets_from_other_addresses_are_denied() {
    let mut fence = permissive();
    for v6 in [false, true] {
        let to = FRIEND.ip(v6);
        for (what, from) in [
            ("another workload's address", OTHER.ip(v6)),
            ("the destination's address", to),
            ("an unknown address", UNKNOWN_PEER.ip(v6)),
            ("the unspecified address", if v6 { ANY6 } else { ANY4 }),
        ] {
            for (protocol, payload) in [
                (TCP, tcp(1, 2, SYN)),
                (TCP, tcp(1, 2, ACK)),
                (UDP, udp(1, 2, 4)),
                (47, vec![0; 8]),
            ] {
                let frame = frame(from, to, protocol, &payload);
                fence.denies(Leaving, &frame, DropReason::SpoofedSource, what);
            }
        }
        let own = frame(LOCAL.ip(v6), to, TCP, &tcp(1, 2, SYN));
        fence.passes(Leaving, &own, "control: an own address");
    }
    let local = frame(LINK_LOCAL, FRIEND.ip(true), TCP, &tcp(1, 2, SYN));
    fence.denies(
        Leaving,
        &local,
        DropReason::SpoofedSource,
        "link-local, outside of neighbour discovery",
    );
}

#[test]
fn every_address_of_the_workload_is_accepted_as_source() {
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
        fence.passes(Leaving, &frame, "another own address");
    }
}

#[test]
fn a_packet_to_the_workload_from_its_own_address_is_denied_if_forwarded() {
    for v6 in [false, true] {
        let own = LOCAL.ip(v6);
        let frame = frame(own, own, TCP, &tcp(1, 2, SYN));
        permissive().denies(Arriving, &frame, DropReason::SpoofedSource, "forwarded");
        permissive().passes(Hairpin, &frame, "control: from the workload");
        permissive().passes(FromHost, &frame, "control: from the host");
    }
}

#[test]
fn dhcp_requests_pass_without_an_own_source_address() {
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
            "the unspecified source address",
            frame(ANY6, DHCP_SERVERS, UDP, &udp(546, 547, 8)),
        ),
    ] {
        fence.denies(Leaving, &frame, DropReason::SpoofedSource, what);
    }
}

#[test]
fn a_packet_between_own_addresses_affects_no_other_flow() {
    for v6 in [false, true] {
        let flow = Flow {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        };
        for way in [Hairpin, FromHost] {
            // Afterwards the same packet leaves, and one that looks like its reply arrives.
            let mut fence = Fence::new();
            fence.passes(way, &flow.outbound(UDP, 0), "from an own address");
            fence.denies(
                Leaving,
                &flow.outbound(UDP, 0),
                DropReason::Policy,
                "to the peer",
            );
            fence.denies(
                Arriving,
                &flow.inbound(UDP, 0),
                DropReason::Policy,
                "from the peer",
            );
            drop(fence);

            // Within a flow that is revoked.
            let mut fence = Fence::new();
            fence.allow(Direction::Egress, UDP, 443);
            fence.passes(Leaving, &flow.outbound(UDP, 0), "control: allowed");
            fence.deny_by_default(NEXT);
            fence.edit(|endpoint| endpoint.table = NEXT);
            fence.passes(way, &flow.outbound(UDP, 0), "from an own address");
            fence.denies(
                Leaving,
                &flow.outbound(UDP, 0),
                DropReason::Policy,
                "revoked",
            );
            fence.denies(
                Arriving,
                &flow.inbound(UDP, 0),
                DropReason::Policy,
                "also the reply",
            );
        }
    }
}
