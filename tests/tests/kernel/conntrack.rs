//! Known flows: both directions on one entry, who may open what, connections older than the fence.

use ringfence_common::{
    drop_reason::DropReason,
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, OTHER, Passed, RULE, TABLE, Way,
    exact, key,
};
use crate::frames::{
    ACK, FIN, PSH, RST, SCTP, SYN, TCP, Talk, UDP, echo, echo_reply, frame, icmp, icmp_of,
};

/// The workload opens a connection to its friend's port 443.
const fn opened(v6: bool) -> Talk {
    Talk {
        v6,
        local: (LOCAL, 40000),
        peer: (FRIEND, 443),
    }
}

/// The friend opens one to the workload's port 443.
const fn accepted(v6: bool) -> Talk {
    Talk {
        v6,
        local: (LOCAL, 443),
        peer: (FRIEND, 40000),
    }
}

fn both_ways(direction: Direction) -> (Way, Way) {
    match direction {
        Direction::Egress => (Leaving, Arriving),
        Direction::Ingress => (Arriving, Leaving),
    }
}

fn talk(direction: Direction, v6: bool) -> Talk {
    match direction {
        Direction::Egress => opened(v6),
        Direction::Ingress => accepted(v6),
    }
}

fn send(talk: &Talk, way: Way, number: u8, flags: u8) -> Vec<u8> {
    if way == Leaving {
        talk.out(number, flags)
    } else {
        talk.back(number, flags)
    }
}

#[test]
fn a_tcp_connection_passes_both_ways_on_one_rule() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (there, back) = both_ways(direction);
            let talk = talk(direction, v6);
            let answer = send(&talk, back, TCP, SYN | ACK);
            fence.refuses(
                back,
                &answer,
                DropReason::Policy,
                "control: an answer to nothing",
            );
            drop(fence);
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            for (way, flags) in [
                (there, SYN),
                (back, SYN | ACK),
                (there, ACK),
                (there, ACK | PSH),
                (back, ACK | PSH),
                (back, ACK),
                (there, FIN | ACK),
                (back, FIN | ACK),
                (there, ACK),
                (back, RST | ACK),
            ] {
                let what = format!("flags {flags:#x} of {direction:?}");
                fence.passes(way, &send(&talk, way, TCP, flags), &what);
            }
            let counters = fence.counters();
            assert_eq!((counters.flows_allowed, counters.flows_denied), (1, 0));
            assert_eq!(counters.flows_rejudged, 0);
        }
    }
}

#[test]
fn replies_of_protocols_without_handshake_pass_too() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            for number in [UDP, SCTP, 47] {
                let mut fence = Fence::new();
                let port = if number == 47 { 0 } else { 443 };
                let (there, back) = both_ways(direction);
                let talk = talk(direction, v6);
                let answer = send(&talk, back, number, 0);
                fence.refuses(
                    back,
                    &answer,
                    DropReason::Policy,
                    "control: an answer to nothing",
                );
                drop(fence);
                let mut fence = Fence::new();
                fence.allow(direction, number, port);
                fence.passes(there, &send(&talk, there, number, 0), "a request");
                fence.passes(back, &answer, "its answer");
                fence.passes(there, &send(&talk, there, number, 0), "another request");
                assert_eq!(fence.counters().flows_allowed, 1);
            }
        }
    }
}

#[test]
fn an_identifier_of_zero_does_not_turn_an_answer_into_a_question() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, icmp_of(v6), 0);
        let (own, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
        let ask = |id| frame(own, peer, icmp_of(v6), &echo(v6, id));
        fence.passes(Leaving, &ask(0), "a request");
        let answer = frame(peer, own, icmp_of(v6), &echo_reply(v6, 0));
        fence.passes(Arriving, &answer, "its answer");
        let turned = frame(peer, own, icmp_of(v6), &echo(v6, 0));
        fence.refuses(Arriving, &turned, DropReason::Policy, "a request back");
        let kind = if v6 { 139 } else { 13 };
        let other = frame(peer, own, icmp_of(v6), &icmp(kind, 0, 0));
        fence.refuses(
            Arriving,
            &other,
            DropReason::Policy,
            "another question back",
        );
    }
}

#[test]
fn an_echo_reply_needs_its_request() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, icmp_of(v6), 0);
            let (there, back) = both_ways(direction);
            let message = |way, payload: &[u8]| {
                let (from, to) = if way == Leaving {
                    (LOCAL, FRIEND)
                } else {
                    (FRIEND, LOCAL)
                };
                frame(from.ip(v6), to.ip(v6), icmp_of(v6), payload)
            };
            fence.passes(there, &message(there, &echo(v6, 7)), "the request");
            fence.passes(back, &message(back, &echo_reply(v6, 7)), "its answer");
            let other = message(back, &echo_reply(v6, 8));
            fence.refuses(
                back,
                &other,
                DropReason::Policy,
                "an answer to another request",
            );
            let turned = message(back, &echo(v6, 7));
            fence.refuses(back, &turned, DropReason::Policy, "a request the other way");
        }
    }
}

#[test]
fn neighbours_of_a_connection_are_not_it() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let talk = opened(v6);
        fence.passes(Leaving, &talk.out(TCP, SYN), "opens");
        fence.passes(Arriving, &talk.back(TCP, SYN | ACK), "answers");
        for (what, near) in [
            (
                "another local port",
                Talk {
                    local: (LOCAL, 40001),
                    ..talk
                },
            ),
            (
                "another remote port",
                Talk {
                    peer: (FRIEND, 444),
                    ..talk
                },
            ),
            (
                "another peer",
                Talk {
                    peer: (OTHER, 443),
                    ..talk
                },
            ),
        ] {
            fence.refuses(Arriving, &near.back(TCP, ACK), DropReason::Policy, what);
        }
        fence.refuses(
            Arriving,
            &talk.back(UDP, 0),
            DropReason::Policy,
            "another protocol",
        );
    }
}

#[test]
fn a_pure_syn_is_judged_anew() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (there, back) = both_ways(direction);
            let talk = talk(direction, v6);
            fence.passes(there, &send(&talk, there, TCP, SYN), "opens");
            fence.passes(back, &send(&talk, back, TCP, SYN | ACK), "answers");
            fence.passes(there, &send(&talk, there, TCP, ACK), "stands");

            let reverse = send(&talk, back, TCP, SYN);
            fence.refuses(back, &reverse, DropReason::Policy, "a SYN the other way");
            let next = send(&talk, there, TCP, ACK);
            fence.passes(
                there,
                &next,
                "what it went against stands, after observe too",
            );
        }
    }
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (there, back) = both_ways(direction);
            let talk = talk(direction, v6);
            fence.passes(there, &send(&talk, there, TCP, SYN), "opens");
            fence.passes(back, &send(&talk, back, TCP, SYN | ACK), "answers");
            assert_eq!(
                fence.run(back, &send(&talk, back, TCP, SYN)),
                crate::fence::Dropped,
                "a SYN the other way"
            );
            fence.passes(
                there,
                &send(&talk, there, TCP, ACK),
                "the first is untouched",
            );

            // The same table, other rows: only something new asks them.
            let deny = PolicyRow::lasting(Verdict::Deny, RULE);
            fence.put(exact(TABLE, FRIENDS, direction, TCP, 443), deny);
            fence.passes(there, &send(&talk, there, TCP, ACK), "a stored verdict");
            let again = send(&talk, there, TCP, SYN);
            assert_eq!(
                fence.run(there, &again),
                crate::fence::Dropped,
                "a SYN asks"
            );
            let answer = send(&talk, back, TCP, SYN | ACK);
            assert_eq!(
                fence.run(back, &answer),
                crate::fence::Dropped,
                "and is heard"
            );
        }
    }
}

#[test]
fn a_connection_older_than_the_fence_is_picked_up_within_the_window_only() {
    // (the rule's direction, the packet that the fence sees first)
    for (direction, first) in [(Direction::Ingress, Leaving), (Direction::Egress, Arriving)] {
        for v6 in [false, true] {
            let talk = talk(direction, v6);
            let middle = send(&talk, first, TCP, ACK | PSH);
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            fence.refuses(first, &middle, DropReason::Policy, "control: no window");

            drop(fence);
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let soon = u32::try_from(fence.now() / 1_000_000_000 + 600).unwrap();
            fence.edit(|endpoint| endpoint.pickup_until = soon);
            let syn = send(&talk, first, TCP, SYN);
            assert_eq!(
                fence.run(first, &syn),
                crate::fence::Dropped,
                "a SYN opens, never resumes"
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
                "so does an echo request"
            );

            fence.passes(first, &middle, "the middle of an old connection");
            let other_way = if first == Leaving { Arriving } else { Leaving };
            fence.passes(
                other_way,
                &send(&talk, other_way, TCP, ACK),
                "its other direction",
            );
            fence.edit(|endpoint| endpoint.pickup_until = 0);
            fence.passes(first, &middle, "still known after the window");
            let near = Talk {
                local: (LOCAL, 1),
                peer: (FRIEND, 2),
                v6,
            };
            let unrelated = send(&near, first, TCP, ACK);
            fence.refuses(
                first,
                &unrelated,
                DropReason::Policy,
                "policy allows neither way",
            );
        }
    }
}

#[test]
fn the_forward_rule_lets_a_mid_flow_packet_in_without_a_window() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (there, back) = both_ways(direction);
            let talk = talk(direction, v6);
            fence.passes(there, &send(&talk, there, TCP, ACK), "judged forward");
            fence.passes(back, &send(&talk, back, TCP, ACK), "then known");
        }
    }
}

#[test]
fn a_denied_syn_takes_nothing_over_even_where_it_passes() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let talk = opened(v6);
        fence.passes(Leaving, &talk.out(TCP, SYN), "opens");
        fence.passes(Arriving, &talk.back(TCP, SYN | ACK), "is answered");
        let against = talk.back(TCP, SYN);
        assert_eq!(fence.arriving(&against), Dropped, "control: it is denied");
        fence.set_mode(Mode::Observe);
        assert_eq!(fence.arriving(&against), Passed, "observe drops nothing");
        fence.set_mode(Mode::Enforce);
        fence.passes(Leaving, &talk.out(TCP, ACK), "goes on");
        fence.passes(Arriving, &talk.back(TCP, ACK), "both ways");
    }
}

#[test]
fn a_denied_opening_leaves_nothing_behind() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, UDP, 53);
        let talk = Talk {
            v6,
            local: (LOCAL, 53),
            peer: (FRIEND, 40000),
        };
        assert_eq!(
            fence.leaving(&talk.out(UDP, 0)),
            Dropped,
            "no rule allows it"
        );
        // As an answer to what was denied it would be denied too.
        fence.passes(Arriving, &talk.back(UDP, 0), "opened by the peer");
        fence.passes(Leaving, &talk.out(UDP, 0), "and now an answer");
    }
}

#[test]
fn a_datagram_is_never_taken_for_the_middle_of_something() {
    // What the reverse direction allows in must not let anything out, window or not.
    for (direction, way) in [(Direction::Ingress, Leaving), (Direction::Egress, Arriving)] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            let row = PolicyRow::lasting(Verdict::Allow, RULE);
            fence.put(key(TABLE, FRIENDS, direction), row);
            let soon = u32::try_from(fence.now() / 1_000_000_000 + 600).unwrap();
            fence.edit(|endpoint| endpoint.pickup_until = soon);
            let talk = talk(direction, v6);
            for number in [UDP, SCTP, 47] {
                let frame = send(&talk, way, number, 0);
                fence.refuses(way, &frame, DropReason::Policy, "no TCP");
            }
            let (from, to) = if way == Leaving {
                (LOCAL, FRIEND)
            } else {
                (FRIEND, LOCAL)
            };
            for message in [echo(v6, 3), echo_reply(v6, 3)] {
                let frame = frame(from.ip(v6), to.ip(v6), icmp_of(v6), &message);
                fence.refuses(way, &frame, DropReason::Policy, "echo");
            }
            fence.passes(
                way,
                &send(&talk, way, TCP, ACK),
                "control: TCP is picked up",
            );
        }
    }
}
