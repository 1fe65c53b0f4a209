//! ICMP errors: they pass if the packet inside belongs to a live, allowed flow, and not otherwise.

use std::net::IpAddr;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode},
};

use crate::fence::{
    Arriving, Dropped, FRIEND, Fence, FromNode, LOCAL, Leaving, OTHER, STRANGER, Way,
};
use crate::frames::{UDP, about, echo, fragment, frame, icmp_of, packet, udp};

const SERVICE: u16 = 53;

/// Unreachable, too big or time exceeded, and so on: (type, code) by family.
fn kinds(v6: bool) -> [(u8, u8); 4] {
    if v6 {
        [(1, 4), (2, 0), (3, 0), (4, 1)]
    } else {
        [(3, 3), (3, 4), (11, 0), (12, 0)]
    }
}

/// A datagram of the flow's opener, between two ends.
fn datagram(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    packet(from, to, UDP, &udp(40000, port, 4))
}

/// An error from `by` to the one who sent the packet.
fn error(by: IpAddr, to: IpAddr, (kind, code): (u8, u8), about_what: &[u8]) -> Vec<u8> {
    frame(
        by,
        to,
        icmp_of(to.is_ipv6()),
        &about(kind, code, about_what),
    )
}

/// A fence with a live flow that a rule of this direction allows, and the datagram that opened it.
fn live(direction: Direction, v6: bool) -> (Fence, Vec<u8>) {
    let mut fence = Fence::new();
    fence.allow(direction, UDP, SERVICE);
    let (from, to) = opener(direction);
    let frame = frame(from.ip(v6), to.ip(v6), UDP, &udp(40000, SERVICE, 4));
    let way = if direction == Direction::Egress {
        Leaving
    } else {
        Arriving
    };
    fence.passes(way, &frame, "the flow");
    (fence, datagram(from.ip(v6), to.ip(v6), SERVICE))
}

const fn opener(direction: Direction) -> (crate::fence::Both, crate::fence::Both) {
    match direction {
        Direction::Egress => (LOCAL, FRIEND),
        Direction::Ingress => (FRIEND, LOCAL),
    }
}

/// The hook at which an error about the opener's packet shows, and between whom it goes.
fn complaint(direction: Direction, v6: bool) -> (Way, IpAddr, IpAddr) {
    let (to, by) = opener(direction);
    let way = if direction == Direction::Egress {
        Arriving
    } else {
        Leaving
    };
    (way, by.ip(v6), to.ip(v6))
}

fn cases() -> impl Iterator<Item = (Direction, bool)> {
    [Direction::Egress, Direction::Ingress]
        .into_iter()
        .flat_map(|direction| [false, true].map(|v6| (direction, v6)))
}

#[test]
fn an_error_about_a_live_flow_passes() {
    for (direction, v6) in cases() {
        let (mut fence, quoted) = live(direction, v6);
        let (way, by, to) = complaint(direction, v6);
        for kind in kinds(v6) {
            fence.passes(
                way,
                &error(by, to, kind, &quoted),
                "an error about the flow",
            );
        }
        if way == Arriving {
            let router = STRANGER.ip(v6);
            fence.passes(
                way,
                &error(router, to, kinds(v6)[0], &quoted),
                "by a router",
            );
        }
        let cut = &quoted[..quoted.len() - 4];
        fence.passes(
            way,
            &error(by, to, kinds(v6)[0], cut),
            "with eight quoted bytes",
        );
    }
}

#[test]
fn an_error_about_a_flow_of_the_node_passes() {
    for v6 in [false, true] {
        for kind in kinds(v6) {
            let mut fence = Fence::new();
            let (node, own) = (STRANGER.ip(v6), LOCAL.ip(v6));
            let complaint = error(own, node, kind, &datagram(node, own, SERVICE));
            let unmatched = DropReason::IcmpErrorUnmatched;
            fence.refuses(Leaving, &complaint, unmatched, "control: about nothing");
            let asked = frame(node, own, UDP, &udp(40000, SERVICE, 4));
            fence.passes(FromNode, &asked, "from the node");
            fence.passes(Leaving, &complaint, "the workload complains");
            let answer = packet(own, node, UDP, &udp(SERVICE, 40000, 4));
            let complaint = error(node, own, kind, &answer);
            for way in [FromNode, Arriving] {
                fence.passes(way, &complaint, "about the answer");
            }
        }
    }
}

#[test]
fn an_error_about_anything_else_is_dropped() {
    for (direction, v6) in cases() {
        let (mut fence, quoted) = live(direction, v6);
        let (way, by, to) = complaint(direction, v6);
        let (from, target) = opener(direction);
        let (from, target) = (from.ip(v6), target.ip(v6));
        let kind = kinds(v6)[0];
        let reason = DropReason::IcmpErrorUnmatched;
        let nested = packet(to, by, icmp_of(v6), &about(kind.0, kind.1, &quoted));
        let ping = packet(to, by, icmp_of(v6), &echo(v6, 4));
        let header = if v6 { 40 } else { 20 };
        for (what, inside) in [
            ("another port", datagram(from, target, SERVICE + 1)),
            (
                "another peer",
                match direction {
                    Direction::Egress => datagram(from, OTHER.ip(v6), SERVICE),
                    Direction::Ingress => datagram(OTHER.ip(v6), target, SERVICE),
                },
            ),
            (
                "the flow the other way round",
                datagram(target, from, SERVICE),
            ),
            ("an error", nested),
            ("an echo that was not sent", ping),
            ("too little of it", quoted[..header + 7].to_vec()),
            ("nothing", Vec::new()),
        ] {
            fence.refuses(way, &error(by, to, kind, &inside), reason, what);
        }
        let mut padded = error(by, to, kind, &quoted[..header + 7]);
        padded.extend(&quoted[header + 7..]);
        fence.refuses(way, &padded, reason, "the rest of it in the padding");
        let message = about(kind.0, kind.1, &quoted);
        let fragment = fragment((by, to), icmp_of(v6), (0, true, 5), &message);
        fence.refuses(way, &fragment, reason, "in a fragment");
    }
}

#[test]
fn an_error_reaches_only_who_sent_the_packet_inside() {
    for (direction, v6) in cases() {
        let (mut fence, quoted) = live(direction, v6);
        let (way, by, to) = complaint(direction, v6);
        let kind = kinds(v6)[0];
        fence.passes(way, &error(by, to, kind, &quoted), "control: its sender");
        let reason = DropReason::IcmpErrorUnmatched;
        let astray = error(by, OTHER.ip(v6), kind, &quoted);
        fence.refuses(way, &astray, reason, "somebody else");
    }
}

#[test]
fn an_error_about_an_address_that_was_given_up_is_dropped() {
    for v6 in [false, true] {
        let (mut fence, quoted) = live(Direction::Egress, v6);
        let (way, by, to) = complaint(Direction::Egress, v6);
        let error = error(by, to, kinds(v6)[0], &quoted);
        fence.passes(way, &error, "control: while it is the workload's");
        fence.edit(|endpoint| {
            (endpoint.ip4, endpoint.ip6) = Default::default();
        });
        let reason = DropReason::IcmpErrorUnmatched;
        fence.refuses(way, &error, reason, "to an address it no longer has");
    }
}

#[test]
fn an_error_needs_a_flow_that_is_allowed_now() {
    for (direction, v6) in cases() {
        let (way, by, to) = complaint(direction, v6);
        let reason = DropReason::IcmpErrorUnmatched;

        let (mut fence, quoted) = live(direction, v6);
        let error = error(by, to, kinds(v6)[0], &quoted);
        fence.deny_by_default(TableId(8));
        fence.edit(|endpoint| endpoint.table = TableId(8));
        fence.refuses(way, &error, reason, "after the flow was revoked");

        // Observe keeps entries of flows that it would deny; they do not speak for errors.
        drop(fence);
        let mut fence = Fence::new();
        fence.set_mode(Mode::Observe);
        let first = if direction == Direction::Egress {
            Leaving
        } else {
            Arriving
        };
        let frame = crate::frames::framed(if v6 { 0x86dd } else { 0x800 }, &quoted);
        fence.run(first, &frame);
        assert_eq!(fence.count(DropReason::Policy), (0, 1));
        fence.refuses(way, &error, reason, "about a flow that policy denies");
    }
}

#[test]
fn lockdown_has_no_errors() {
    for (direction, v6) in cases() {
        let (mut fence, quoted) = live(direction, v6);
        let (way, by, to) = complaint(direction, v6);
        let error = error(by, to, kinds(v6)[0], &quoted);
        fence.passes(way, &error, "control: in enforce");
        fence.set_mode(Mode::Lockdown);
        assert_eq!(fence.run(way, &error), Dropped);
        assert_eq!(fence.count(DropReason::Lockdown), (1, 0));
    }
}
