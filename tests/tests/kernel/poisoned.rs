//! A neighbour on the same link sends frames with the workload's address, to the workload's ports, to its
//! own, and then "answers" them. Nothing of it may leave an entry, and no answer may pass.

use std::net::IpAddr;

use ringfence_common::{drop_reason::DropReason, mode::Mode};

use crate::fence::{
    Arriving, Dropped, FRIEND, Fence, FromHost, LOCAL, Leaving, OTHER, Passed, Way,
};
use crate::frames::{
    ACK, PSH, RST, SCTP, SYN, TCP, UDP, echo, echo_reply, frame, icmp_error, icmp_of, packet, sctp,
    tcp, udp,
};

/// Ports of both ends: privileged, registered and ephemeral ones, equal ones and zero.
const PORTS: [(u16, u16); 8] = [
    (80, 80),
    (443, 40_000),
    (40_000, 443),
    (53, 53),
    (10_250, 10_250),
    (0, 8080),
    (65_535, 1),
    (30_080, 32_768),
];

/// Every kind of packet that could open or continue a flow between these ports.
fn packets(v6: bool, (from, to): (u16, u16)) -> Vec<(u8, Vec<u8>)> {
    let flags = [SYN, SYN | ACK, ACK, ACK | PSH, RST | ACK];
    let mut all: Vec<_> = flags.map(|flags| (TCP, tcp(from, to, flags))).into();
    all.push((UDP, udp(from, to, 4)));
    all.push((SCTP, sctp(from, to)));
    all.push((icmp_of(v6), echo(v6, from)));
    all.push((icmp_of(v6), echo_reply(v6, from)));
    all.push((47, vec![0; 8]));
    all
}

#[track_caller]
fn leaves_nothing(fence: &mut Fence, what: &str) {
    let entries = (fence.assured(), fence.unreplied());
    assert_eq!(entries, (0, 0), "{what}");
}

/// What the ends of the forged flow would send next, all of which policy denies.
fn stays_closed(fence: &mut Fence, v6: bool, others: IpAddr, ports: (u16, u16)) {
    fence.set_mode(Mode::Enforce);
    let own = LOCAL.ip(v6);
    let back = (ports.1, ports.0);
    for (way, from, to, ports) in [
        (Arriving, others, own, ports),
        (Arriving, others, own, back),
        (Leaving, own, others, ports),
        (Leaving, own, others, back),
        (Leaving, own, own, back),
    ] {
        for (protocol, payload) in packets(v6, ports) {
            let outcome = fence.run(way, &frame(from, to, protocol, &payload));
            assert_eq!(outcome, Dropped, "{way:?} {protocol} {ports:?}");
        }
        let quoted = packet(to, from, UDP, &udp(ports.1, ports.0, 4));
        let kind = if v6 { 1 } else { 3 };
        let error = frame(from, to, icmp_of(v6), &icmp_error(kind, 1, &quoted));
        assert_eq!(fence.run(way, &error), Dropped, "an error, {way:?}");
    }
    leaves_nothing(fence, "after the answers");
}

fn poison(fence: &mut Fence, v6: bool, (way, from, to): (Way, IpAddr, IpAddr), others: IpAddr) {
    for ports in PORTS {
        for (protocol, payload) in packets(v6, ports) {
            let forged = frame(from, to, protocol, &payload);
            // In `observe`, too, where it passes.
            fence.denies(way, &forged, DropReason::SpoofedSource, "a forged source");
        }
        leaves_nothing(fence, "after the forged frames");
        stays_closed(fence, v6, others, ports);
    }
}

#[test]
fn frames_with_the_workloads_own_address_leave_nothing() {
    for v6 in [false, true] {
        let (own, neighbour) = (LOCAL.ip(v6), OTHER.ip(v6));
        // To the workload's ports, and to the neighbour's, which a bridge may flood.
        for to in [own, neighbour] {
            poison(&mut Fence::new(), v6, (Arriving, own, to), neighbour);
        }
        let mut fence = Fence::new();
        fence.passes(
            FromHost,
            &frame(own, own, UDP, &udp(80, 80, 4)),
            "control: what is no forgery has an entry",
        );
        assert_eq!(fence.unreplied(), 1);
    }
}

#[test]
fn what_a_fenced_neighbour_forges_leaves_nothing_at_its_own_fence() {
    for v6 in [false, true] {
        let (own, victim) = (LOCAL.ip(v6), OTHER.ip(v6));
        // With the victim's address to its own ports, to the victim's, and to a third one's.
        for to in [own, victim, FRIEND.ip(v6)] {
            poison(&mut Fence::new(), v6, (Leaving, victim, to), victim);
        }
    }
}

#[test]
fn a_forged_frame_changes_no_flow_that_is_allowed() {
    for v6 in [false, true] {
        let (own, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
        let mut fence = Fence::new();
        fence.allow(ringfence_common::mode::Direction::Egress, UDP, 53);
        let request = frame(own, peer, UDP, &udp(40_000, 53, 4));
        let reply = frame(peer, own, UDP, &udp(53, 40_000, 4));
        fence.passes(Leaving, &request, "a request");
        fence.denies(
            Arriving,
            &request,
            DropReason::SpoofedSource,
            "the same by a neighbour",
        );
        fence.denies(
            Leaving,
            &reply,
            DropReason::SpoofedSource,
            "its reply by the workload",
        );
        assert_eq!(fence.unreplied(), 1);
        assert_eq!(fence.run(Arriving, &reply), Passed, "control: the reply");
    }
}
