//! ICMP errors: they pass only if the quoted packet belongs to a live flow that is allowed.

use std::net::IpAddr;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode},
};

use crate::fence::{
    Arriving, Dropped, FRIEND, Fence, FromHost, LOCAL, Leaving, OTHER, UNKNOWN_PEER, Way,
};
use crate::frames::{UDP, echo, fragment, frame, icmp_error, icmp_of, packet, udp};

const SERVICE: u16 = 53;

/// Destination unreachable, packet too big, time exceeded, parameter problem: (type, code) by
/// family.
fn kinds(v6: bool) -> [(u8, u8); 4] {
    if v6 {
        [(1, 4), (2, 0), (3, 0), (4, 1)]
    } else {
        [(3, 3), (3, 4), (11, 0), (12, 0)]
    }
}

/// A datagram of the flow's originator.
fn datagram(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    packet(from, to, UDP, &udp(40000, port, 4))
}

/// An error from `by` to the sender of the quoted packet.
fn error(by: IpAddr, to: IpAddr, (kind, code): (u8, u8), quoted: &[u8]) -> Vec<u8> {
    frame(
        by,
        to,
        icmp_of(to.is_ipv6()),
        &icmp_error(kind, code, quoted),
    )
}

/// A fence with a live flow that a rule of this direction allows, and the datagram that opened it.
fn live(direction: Direction, v6: bool) -> (Fence, Vec<u8>) {
    let mut fence = Fence::new();
    fence.allow(direction, UDP, SERVICE);
    let (from, to) = ends(direction);
    let frame = frame(from.ip(v6), to.ip(v6), UDP, &udp(40000, SERVICE, 4));
    let way = if direction == Direction::Egress {
        Leaving
    } else {
        Arriving
    };
    fence.passes(way, &frame, "the flow");
    (fence, datagram(from.ip(v6), to.ip(v6), SERVICE))
}

const fn ends(direction: Direction) -> (crate::fence::DualStack, crate::fence::DualStack) {
    match direction {
        Direction::Egress => (LOCAL, FRIEND),
        Direction::Ingress => (FRIEND, LOCAL),
    }
}

/// The hook where an error about the originator's packet is seen, its source and its destination.
fn error_path(direction: Direction, v6: bool) -> (Way, IpAddr, IpAddr) {
    let (to, by) = ends(direction);
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
        let (way, by, to) = error_path(direction, v6);
        for kind in kinds(v6) {
            fence.passes(
                way,
                &error(by, to, kind, &quoted),
                "an error about the flow",
            );
        }
        if way == Arriving {
            let router = UNKNOWN_PEER.ip(v6);
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
            "with eight bytes of the quoted header",
        );
    }
}

#[test]
fn an_error_about_a_flow_of_the_host_passes() {
    for v6 in [false, true] {
        for kind in kinds(v6) {
            let mut fence = Fence::new();
            let (node, own) = (UNKNOWN_PEER.ip(v6), LOCAL.ip(v6));
            let from_workload = error(own, node, kind, &datagram(node, own, SERVICE));
            let unmatched = DropReason::IcmpErrorUnmatched;
            fence.denies(
                Leaving,
                &from_workload,
                unmatched,
                "control: without a flow",
            );
            let request = frame(node, own, UDP, &udp(40000, SERVICE, 4));
            fence.passes(FromHost, &request, "from the host");
            fence.passes(Leaving, &from_workload, "the workload's error");
            let reply = packet(own, node, UDP, &udp(SERVICE, 40000, 4));
            let to_workload = error(node, own, kind, &reply);
            for way in [FromHost, Arriving] {
                fence.passes(way, &to_workload, "about the reply");
            }
        }
    }
}

#[test]
fn an_error_about_another_packet_is_denied() {
    for (direction, v6) in cases() {
        let (mut fence, quoted) = live(direction, v6);
        let (way, by, to) = error_path(direction, v6);
        let (from, target) = ends(direction);
        let (from, target) = (from.ip(v6), target.ip(v6));
        let kind = kinds(v6)[0];
        let reason = DropReason::IcmpErrorUnmatched;
        let nested = packet(to, by, icmp_of(v6), &icmp_error(kind.0, kind.1, &quoted));
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
            ("the reversed tuple", datagram(target, from, SERVICE)),
            ("an ICMP error", nested),
            ("an echo request that was not sent", ping),
            (
                "less than eight bytes of its header",
                quoted[..header + 7].to_vec(),
            ),
            ("no quoted packet", Vec::new()),
        ] {
            fence.denies(way, &error(by, to, kind, &inside), reason, what);
        }
        let mut padded = error(by, to, kind, &quoted[..header + 7]);
        padded.extend(&quoted[header + 7..]);
        fence.denies(
            way,
            &padded,
            reason,
            "the rest of the quoted packet in the padding",
        );
        let message = icmp_error(kind.0, kind.1, &quoted);
        let fragment = fragment((by, to), icmp_of(v6), (0, true, 5), &message);
        fence.denies(way, &fragment, reason, "in a fragment");
    }
}

#[test]
fn an_error_passes_only_to_the_sender_of_the_quoted_packet() {
    for (direction, v6) in cases() {
        let (mut fence, quoted) = live(direction, v6);
        let (way, by, to) = error_path(direction, v6);
        let kind = kinds(v6)[0];
        fence.passes(way, &error(by, to, kind, &quoted), "control: to the sender");
        let reason = DropReason::IcmpErrorUnmatched;
        let to_other = error(by, OTHER.ip(v6), kind, &quoted);
        fence.denies(way, &to_other, reason, "to another host");
    }
}

#[test]
fn an_error_to_an_address_the_workload_no_longer_has_is_denied() {
    for v6 in [false, true] {
        let (mut fence, quoted) = live(Direction::Egress, v6);
        let (way, by, to) = error_path(Direction::Egress, v6);
        let error = error(by, to, kinds(v6)[0], &quoted);
        fence.passes(way, &error, "control: while the workload has the address");
        fence.edit(|endpoint| {
            (endpoint.ip4, endpoint.ip6) = Default::default();
        });
        let reason = DropReason::IcmpErrorUnmatched;
        fence.denies(way, &error, reason, "after it lost the address");
    }
}

#[test]
fn an_error_about_a_flow_that_is_no_longer_allowed_is_denied() {
    for (direction, v6) in cases() {
        let (way, by, to) = error_path(direction, v6);
        let reason = DropReason::IcmpErrorUnmatched;

        let (mut fence, quoted) = live(direction, v6);
        let error = error(by, to, kinds(v6)[0], &quoted);
        fence.deny_by_default(TableId(8));
        fence.edit(|endpoint| endpoint.table = TableId(8));
        fence.denies(way, &error, reason, "after the flow was revoked");

        // In `observe` denied flows have entries too; errors about them are denied.
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
        fence.denies(way, &error, reason, "about a flow that policy denies");
    }
}

#[test]
fn lockdown_drops_icmp_errors() {
    for (direction, v6) in cases() {
        let (mut fence, quoted) = live(direction, v6);
        let (way, by, to) = error_path(direction, v6);
        let error = error(by, to, kinds(v6)[0], &quoted);
        fence.passes(way, &error, "control: in enforce");
        fence.set_mode(Mode::Lockdown);
        assert_eq!(fence.run(way, &error), Dropped);
        assert_eq!(fence.count(DropReason::Lockdown), (1, 0));
    }
}
