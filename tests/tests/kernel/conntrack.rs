//! Conntrack entries: both directions share one entry, which packets open a flow, and connections
//! older than the fence.

use ringfence_common::{
    drop_reason::DropReason,
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, OTHER, Passed, RULE, TABLE, Way,
    any_protocol, exact,
};
use crate::frames::{
    ACK, FIN, Flow, PSH, RST, SCTP, SYN, TCP, UDP, echo, echo_reply, frame, icmp, icmp_of,
};

/// A flow from the workload to port 443 of [`FRIEND`].
const fn opened(v6: bool) -> Flow {
    Flow {
        v6,
        local: (LOCAL, 40000),
        peer: (FRIEND, 443),
    }
}

/// A flow from [`FRIEND`] to the workload's port 443.
const fn accepted(v6: bool) -> Flow {
    Flow {
        v6,
        local: (LOCAL, 443),
        peer: (FRIEND, 40000),
    }
}

fn ways(direction: Direction) -> (Way, Way) {
    match direction {
        Direction::Egress => (Leaving, Arriving),
        Direction::Ingress => (Arriving, Leaving),
    }
}

fn flow(direction: Direction, v6: bool) -> Flow {
    match direction {
        Direction::Egress => opened(v6),
        Direction::Ingress => accepted(v6),
    }
}

fn packet(flow: &Flow, way: Way, protocol: u8, flags: u8) -> Vec<u8> {
    if way == Leaving {
        flow.outbound(protocol, flags)
    } else {
        flow.inbound(protocol, flags)
    }
}

#[test]
fn a_tcp_connection_passes_both_ways_on_one_rule() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (original, reply) = ways(direction);
            let flow = flow(direction, v6);
            let reply_frame = packet(&flow, reply, TCP, SYN | ACK);
            fence.denies(
                reply,
                &reply_frame,
                DropReason::Policy,
                "control: a reply without a request",
            );
            drop(fence);
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            for (way, flags) in [
                (original, SYN),
                (reply, SYN | ACK),
                (original, ACK),
                (original, ACK | PSH),
                (reply, ACK | PSH),
                (reply, ACK),
                (original, FIN | ACK),
                (reply, FIN | ACK),
                (original, ACK),
                (reply, RST | ACK),
            ] {
                let what = format!("flags {flags:#x} of {direction:?}");
                fence.passes(way, &packet(&flow, way, TCP, flags), &what);
            }
            let counters = fence.counters();
            assert_eq!((counters.flows_allowed, counters.flows_denied), (1, 0));
            assert_eq!(counters.flows_reevaluated, 0);
        }
    }
}

#[test]
fn replies_of_protocols_without_a_handshake_pass() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            for protocol in [UDP, SCTP, 47] {
                let mut fence = Fence::new();
                let port = if protocol == 47 { 0 } else { 443 };
                let (original, reply) = ways(direction);
                let flow = flow(direction, v6);
                let reply_frame = packet(&flow, reply, protocol, 0);
                fence.denies(
                    reply,
                    &reply_frame,
                    DropReason::Policy,
                    "control: a reply without a request",
                );
                drop(fence);
                let mut fence = Fence::new();
                fence.allow(direction, protocol, port);
                fence.passes(original, &packet(&flow, original, protocol, 0), "a request");
                fence.passes(reply, &reply_frame, "its reply");
                fence.passes(
                    original,
                    &packet(&flow, original, protocol, 0),
                    "another request",
                );
                assert_eq!(fence.counters().flows_allowed, 1);
            }
        }
    }
}

#[test]
fn an_echo_identifier_of_zero_does_not_confuse_request_and_reply() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, icmp_of(v6), 0);
        let (own, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
        let request = |id| frame(own, peer, icmp_of(v6), &echo(v6, id));
        fence.passes(Leaving, &request(0), "a request");
        let reply_frame = frame(peer, own, icmp_of(v6), &echo_reply(v6, 0));
        fence.passes(Arriving, &reply_frame, "its reply");
        let reverse = frame(peer, own, icmp_of(v6), &echo(v6, 0));
        fence.denies(
            Arriving,
            &reverse,
            DropReason::Policy,
            "a request in the reply direction",
        );
        let kind = if v6 { 139 } else { 13 };
        let other = frame(peer, own, icmp_of(v6), &icmp(kind, 0, 0));
        fence.denies(
            Arriving,
            &other,
            DropReason::Policy,
            "another kind of request in the reply direction",
        );
    }
}

#[test]
fn an_echo_reply_needs_its_request() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, icmp_of(v6), 0);
            let (original, reply) = ways(direction);
            let message = |way, payload: &[u8]| {
                let (from, to) = if way == Leaving {
                    (LOCAL, FRIEND)
                } else {
                    (FRIEND, LOCAL)
                };
                frame(from.ip(v6), to.ip(v6), icmp_of(v6), payload)
            };
            fence.passes(original, &message(original, &echo(v6, 7)), "the request");
            fence.passes(reply, &message(reply, &echo_reply(v6, 7)), "its reply");
            let other = message(reply, &echo_reply(v6, 8));
            fence.denies(
                reply,
                &other,
                DropReason::Policy,
                "a reply to another request",
            );
            let reverse = message(reply, &echo(v6, 7));
            fence.denies(
                reply,
                &reverse,
                DropReason::Policy,
                "a request in the reply direction",
            );
        }
    }
}

#[test]
fn packets_with_another_tuple_do_not_match_the_entry() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let flow = opened(v6);
        fence.passes(Leaving, &flow.outbound(TCP, SYN), "the SYN");
        fence.passes(Arriving, &flow.inbound(TCP, SYN | ACK), "the SYN+ACK");
        for (what, near) in [
            (
                "another local port",
                Flow {
                    local: (LOCAL, 40001),
                    ..flow
                },
            ),
            (
                "another remote port",
                Flow {
                    peer: (FRIEND, 444),
                    ..flow
                },
            ),
            (
                "another peer",
                Flow {
                    peer: (OTHER, 443),
                    ..flow
                },
            ),
        ] {
            fence.denies(Arriving, &near.inbound(TCP, ACK), DropReason::Policy, what);
        }
        fence.denies(
            Arriving,
            &flow.inbound(UDP, 0),
            DropReason::Policy,
            "another protocol",
        );
    }
}

#[test]
fn a_syn_without_ack_is_always_evaluated() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (original, reply) = ways(direction);
            let flow = flow(direction, v6);
            fence.passes(original, &packet(&flow, original, TCP, SYN), "the SYN");
            fence.passes(reply, &packet(&flow, reply, TCP, SYN | ACK), "the SYN+ACK");
            fence.passes(original, &packet(&flow, original, TCP, ACK), "the ACK");

            let reverse = packet(&flow, reply, TCP, SYN);
            fence.denies(
                reply,
                &reverse,
                DropReason::Policy,
                "a SYN in the reply direction",
            );
            let next = packet(&flow, original, TCP, ACK);
            fence.passes(
                original,
                &next,
                "the connection is unaffected, also after observe",
            );
        }
    }
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (original, reply) = ways(direction);
            let flow = flow(direction, v6);
            fence.passes(original, &packet(&flow, original, TCP, SYN), "the SYN");
            fence.passes(reply, &packet(&flow, reply, TCP, SYN | ACK), "the SYN+ACK");
            assert_eq!(
                fence.run(reply, &packet(&flow, reply, TCP, SYN)),
                crate::fence::Dropped,
                "a SYN in the reply direction"
            );
            fence.passes(
                original,
                &packet(&flow, original, TCP, ACK),
                "the connection is unaffected",
            );

            // The same table with other rows: only a packet that is evaluated meets them.
            let deny = PolicyRow::lasting(Verdict::Deny, RULE);
            fence.put_row(exact(TABLE, FRIENDS, direction, TCP, 443), deny);
            fence.passes(
                original,
                &packet(&flow, original, TCP, ACK),
                "the stored verdict applies",
            );
            let again = packet(&flow, original, TCP, SYN);
            assert_eq!(
                fence.run(original, &again),
                crate::fence::Dropped,
                "a SYN is evaluated"
            );
            let reply_frame = packet(&flow, reply, TCP, SYN | ACK);
            assert_eq!(
                fence.run(reply, &reply_frame),
                crate::fence::Dropped,
                "and the entry has the new verdict"
            );
        }
    }
}

#[test]
fn a_connection_older_than_the_fence_is_picked_up_only_within_the_window() {
    // (the rule's direction, the packet that the fence sees first)
    for (direction, first) in [(Direction::Ingress, Leaving), (Direction::Egress, Arriving)] {
        for v6 in [false, true] {
            let flow = flow(direction, v6);
            let mid_flow = packet(&flow, first, TCP, ACK | PSH);
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            fence.denies(first, &mid_flow, DropReason::Policy, "control: no window");

            drop(fence);
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let soon = u32::try_from(fence.now() / 1_000_000_000 + 600).unwrap();
            fence.edit(|endpoint| endpoint.pickup_until = soon);
            let syn = packet(&flow, first, TCP, SYN);
            assert_eq!(
                fence.run(first, &syn),
                crate::fence::Dropped,
                "a SYN is never picked up"
            );
            let ping = match first {
                Leaving => (LOCAL, FRIEND),
                _ => (FRIEND, LOCAL),
            };
            fence.allow(direction, icmp_of(v6), 0);
            let ping = frame(ping.0.ip(v6), ping.1.ip(v6), icmp_of(v6), &echo(v6, 3));
            assert_eq!(
                fence.run(first, &ping),
                crate::fence::Dropped,
                "nor is an echo request"
            );

            fence.passes(first, &mid_flow, "a mid-flow packet");
            let other_way = if first == Leaving { Arriving } else { Leaving };
            fence.passes(
                other_way,
                &packet(&flow, other_way, TCP, ACK),
                "the other direction",
            );
            fence.edit(|endpoint| endpoint.pickup_until = 0);
            fence.passes(first, &mid_flow, "the entry outlasts the window");
            let near = Flow {
                local: (LOCAL, 1),
                peer: (FRIEND, 2),
                v6,
            };
            let unrelated = packet(&near, first, TCP, ACK);
            fence.denies(
                first,
                &unrelated,
                DropReason::Policy,
                "policy allows neither direction",
            );
        }
    }
}

#[test]
fn a_mid_flow_packet_that_a_rule_allows_needs_no_window() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (original, reply) = ways(direction);
            let flow = flow(direction, v6);
            fence.passes(
                original,
                &packet(&flow, original, TCP, ACK),
                "a rule allows its direction",
            );
            fence.passes(
                reply,
                &packet(&flow, reply, TCP, ACK),
                "the reply direction of the entry",
            );
        }
    }
}

#[test]
fn a_denied_syn_does_not_take_over_an_entry_in_observe() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let flow = opened(v6);
        fence.passes(Leaving, &flow.outbound(TCP, SYN), "the SYN");
        fence.passes(Arriving, &flow.inbound(TCP, SYN | ACK), "the SYN+ACK");
        let reverse = flow.inbound(TCP, SYN);
        assert_eq!(
            fence.arriving(&reverse),
            Dropped,
            "control: policy denies it"
        );
        fence.set_mode(Mode::Observe);
        assert_eq!(fence.arriving(&reverse), Passed, "observe drops nothing");
        fence.set_mode(Mode::Enforce);
        fence.passes(Leaving, &flow.outbound(TCP, ACK), "the flow continues");
        fence.passes(Arriving, &flow.inbound(TCP, ACK), "in both directions");
    }
}

#[test]
fn a_denied_first_packet_creates_no_entry() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, UDP, 53);
        let flow = Flow {
            v6,
            local: (LOCAL, 53),
            peer: (FRIEND, 40000),
        };
        assert_eq!(
            fence.leaving(&flow.outbound(UDP, 0)),
            Dropped,
            "no rule allows it"
        );
        // As a reply to the denied packet it would be denied too.
        fence.passes(Arriving, &flow.inbound(UDP, 0), "a flow opened by the peer");
        fence.passes(Leaving, &flow.outbound(UDP, 0), "its reply");
    }
}

#[test]
fn only_tcp_is_picked_up_mid_flow() {
    // A rule of the other direction must not allow these packets, even within the window.
    for (direction, way) in [(Direction::Ingress, Leaving), (Direction::Egress, Arriving)] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            let row = PolicyRow::lasting(Verdict::Allow, RULE);
            fence.put_row(any_protocol(TABLE, FRIENDS, direction), row);
            let soon = u32::try_from(fence.now() / 1_000_000_000 + 600).unwrap();
            fence.edit(|endpoint| endpoint.pickup_until = soon);
            let flow = flow(direction, v6);
            for protocol in [UDP, SCTP, 47] {
                let frame = packet(&flow, way, protocol, 0);
                fence.denies(way, &frame, DropReason::Policy, "not TCP");
            }
            let (from, to) = if way == Leaving {
                (LOCAL, FRIEND)
            } else {
                (FRIEND, LOCAL)
            };
            for message in [echo(v6, 3), echo_reply(v6, 3)] {
                let frame = frame(from.ip(v6), to.ip(v6), icmp_of(v6), &message);
                fence.denies(way, &frame, DropReason::Policy, "an echo message");
            }
            fence.passes(
                way,
                &packet(&flow, way, TCP, ACK),
                "control: TCP is picked up",
            );
        }
    }
}
