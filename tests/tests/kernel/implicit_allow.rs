//! What needs no rule, and how far that goes: packets of the own node, and of own addresses.

use std::net::IpAddr;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode},
    net::{Ip4, Ip6},
};

use crate::fence::{
    Arriving, Both, Dropped, FRIEND, Fence, FromNode, Hairpin, LOCAL, Leaving, OTHER, STRANGER,
};
use crate::frames::{ACK, FIN, PSH, RST, SCTP, SYN, TCP, Talk, UDP};

/// A table after the first.
const NEXT: TableId = TableId(8);

/// The workload's port and its peer's, as if the workload had opened the connection.
const OPENED: (u16, u16) = (40000, 443);
/// As if the peer had.
const ACCEPTED: (u16, u16) = (443, 40000);

fn talk(v6: bool, peer: Both, (local_port, peer_port): (u16, u16)) -> Talk {
    Talk {
        v6,
        local: (LOCAL, local_port),
        peer: (peer, peer_port),
    }
}

/// A fence that may have been put up in the middle of connections.
fn fence(window: bool) -> Fence {
    let mut fence = Fence::new();
    if window {
        let soon = u32::try_from(fence.now() / 1_000_000_000 + 600).unwrap();
        fence.edit(|endpoint| endpoint.pickup_until = soon);
    }
    fence
}

fn revoke(fence: &mut Fence) {
    fence.deny_by_default(NEXT);
    fence.edit(|endpoint| endpoint.table = NEXT);
}

#[test]
fn the_node_opens_what_it_opens() {
    for v6 in [false, true] {
        for ports in [OPENED, ACCEPTED] {
            let talk = talk(v6, STRANGER, ports);
            let mut fence = Fence::new();
            fence.passes(FromNode, &talk.back(TCP, SYN), "opened by the node");
            fence.passes(Leaving, &talk.out(TCP, SYN | ACK), "and answered");
            fence.passes(FromNode, &talk.back(TCP, ACK), "goes on");
            revoke(&mut fence);
            fence.passes(Leaving, &talk.out(TCP, ACK | PSH), "no rule, none to lose");
            for number in [UDP, SCTP] {
                fence.passes(FromNode, &talk.back(number, 0), "no handshake to see");
                fence.passes(Leaving, &talk.out(number, 0), "an answer");
            }
        }
    }
}

#[test]
fn in_the_middle_of_a_connection_the_node_opens_nothing() {
    for v6 in [false, true] {
        // Whatever the ports look like; and in the window, if the node looks like the server.
        let outside = [OPENED, ACCEPTED, (1000, 443)].map(|ports| (ports, false));
        let within = [OPENED, (1000, 10250), (50_051, 30_000)].map(|ports| (ports, true));
        for (ports, window) in outside.into_iter().chain(within) {
            for flags in [ACK, ACK | PSH, FIN | ACK] {
                opens_nothing(v6, ports, window, flags);
            }
        }
        // Some look like nobody's opening, ever.
        for (ports, window) in [(OPENED, false), (ACCEPTED, false), (ACCEPTED, true)] {
            for flags in [SYN | ACK, RST, RST | ACK] {
                opens_nothing(v6, ports, window, flags);
            }
        }
        for ports in [ACCEPTED, (50_051, 40_000), (40_000, 40_000)] {
            let talk = talk(v6, FRIEND, ports);
            let mut fence = fence(true);
            fence.passes(FromNode, &talk.back(TCP, ACK), "older than the fence");
            fence.passes(Leaving, &talk.out(TCP, ACK), "opened by the node, it seems");
        }
    }
}

#[track_caller]
fn opens_nothing(v6: bool, ports: (u16, u16), window: bool, flags: u8) {
    let talk = talk(v6, FRIEND, ports);
    let mut fence = fence(window);
    let what = format!("{ports:?} {flags:#x}, window {window}");
    fence.passes(FromNode, &talk.back(TCP, flags), &what);
    fence.passes(FromNode, &talk.back(TCP, flags), "again");
    fence.refuses(Leaving, &talk.out(TCP, ACK), DropReason::Policy, &what);
}

#[test]
fn a_late_answer_of_the_node_makes_nothing_irrevocable() {
    for v6 in [false, true] {
        // The workload chooses its port.
        for local_port in [40_000, 1000] {
            for (peer_port, window) in [(443, false), (8443, false), (443, true), (40_443, true)] {
                let talk = talk(v6, FRIEND, (local_port, peer_port));
                let mut fence = fence(window);
                fence.allow(Direction::Egress, TCP, peer_port);
                // The connection was opened by the workload; its entry is gone.
                fence.passes(FromNode, &talk.back(TCP, ACK | PSH), "an answer");
                fence.passes(Leaving, &talk.out(TCP, ACK), "allowed by the rule");
                revoke(&mut fence);
                let more = talk.out(TCP, ACK | PSH);
                fence.refuses(Leaving, &more, DropReason::Policy, "revoked");
                let more = talk.back(TCP, ACK | PSH);
                fence.refuses(FromNode, &more, DropReason::Policy, "an answer, now");
                fence.passes(FromNode, &talk.back(TCP, SYN), "control: the node opens");
                fence.passes(Leaving, &talk.out(TCP, SYN | ACK), "and is answered");
            }
        }
    }
}

#[test]
fn attempts_of_the_workload_do_not_stop_the_node() {
    let mut fence = Fence::new();
    fence.allow_friends();
    fence.passes(
        FromNode,
        &talk(false, FRIEND, OPENED).back(TCP, SYN | ACK),
        "",
    );
    assert_eq!(fence.charged_until(), 0, "the SYN may have been forged");
    let mut ports = 1..=u16::MAX;
    let spent = ports.find(|port| {
        let attempt = talk(false, FRIEND, (*port, 80)).out(TCP, SYN);
        fence.leaving(&attempt) == Dropped
    });
    assert!(spent.is_some(), "control: attempts have a limit");
    assert_eq!(fence.count(DropReason::FlowLimit), (1, 0));
    assert_ne!(fence.charged_until(), 0);
    let talk = talk(false, FRIEND, OPENED);
    fence.passes(FromNode, &talk.back(TCP, ACK), "as all from the node");
}

#[test]
fn a_late_answer_is_booked_like_the_attempt_it_answers() {
    let mut fence = Fence::new();
    fence.allow_friends();
    // Far enough ahead of the clock that no time passes between two bookings.
    for port in 1..=1000 {
        fence.passes(Leaving, &talk(false, FRIEND, (port, 80)).out(TCP, SYN), "");
    }
    let booked = [(Leaving, SYN), (FromNode, ACK), (FromNode, ACK | PSH)].map(|(way, flags)| {
        let before = fence.charged_until();
        let talk = talk(false, FRIEND, (40_000 + u16::from(flags), 443));
        let frame = match way {
            Leaving => talk.out(TCP, flags),
            _ => talk.back(TCP, flags),
        };
        fence.passes(way, &frame, "opens a flow");
        fence.charged_until() - before
    });
    assert_ne!(booked[0], 0, "control: an attempt");
    assert_eq!(booked, [booked[0]; 3]);
}

#[test]
fn a_flow_of_the_node_is_nobody_elses() {
    for v6 in [false, true] {
        let talk = talk(v6, FRIEND, ACCEPTED);
        for (number, first, more) in [(TCP, SYN, ACK), (UDP, 0, 0), (SCTP, 0, 0)] {
            for flags in [first, more] {
                let mut fence = Fence::new();
                fence.passes(FromNode, &talk.back(number, first), "from the node");
                for way in [Arriving, Hairpin] {
                    let frame = talk.back(number, flags);
                    fence.refuses(way, &frame, DropReason::Policy, "from elsewhere");
                }
                fence.passes(FromNode, &talk.back(number, more), "control: the node's");
                fence.passes(Leaving, &talk.out(number, more), "and its answer");
            }
        }

        // Who may come by a rule takes the flow over, and loses it with the rule; from the middle of a
        // connection nobody does.
        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, TCP, ACCEPTED.0);
        fence.passes(FromNode, &talk.back(TCP, SYN), "from the node");
        for flags in [RST, FIN | ACK, ACK] {
            fence.passes(Arriving, &talk.back(TCP, flags), "by a rule");
        }
        revoke(&mut fence);
        fence.passes(Leaving, &talk.out(TCP, SYN | ACK), "still the node's");

        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, UDP, ACCEPTED.0);
        fence.passes(FromNode, &talk.back(UDP, 0), "from the node");
        fence.passes(Arriving, &talk.back(UDP, 0), "by a rule");
        revoke(&mut fence);
        let answer = talk.out(UDP, 0);
        fence.refuses(Leaving, &answer, DropReason::Policy, "revoked");
    }
}

#[test]
fn a_flow_to_an_own_address_ends_with_its_ownership() {
    for v6 in [false, true] {
        for (number, first, more) in [(TCP, SYN, ACK), (UDP, 0, 0)] {
            let talk = talk(v6, OTHER, OPENED);
            let mut fence = Fence::new();
            own(&mut fence, Some(OTHER));
            fence.passes(
                Leaving,
                &talk.out(number, first),
                "to a further own address",
            );
            fence.passes(Hairpin, &talk.back(number, more), "and back");
            fence.passes(Leaving, &talk.out(number, more), "goes on");
            own(&mut fence, None);
            let more = talk.out(number, more);
            fence.refuses(Leaving, &more, DropReason::Policy, "another's now");
        }
        for way in [Leaving, Arriving] {
            for (number, first, more) in [(TCP, SYN, ACK), (UDP, 0, 0)] {
                let talk = talk(v6, OTHER, ACCEPTED);
                let mut fence = Fence::new();
                own(&mut fence, Some(OTHER));
                fence.passes(Hairpin, &talk.back(number, first), "from an own address");
                own(&mut fence, None);
                let frame = if way == Leaving {
                    talk.out(number, more)
                } else {
                    talk.back(number, more)
                };
                fence.refuses(way, &frame, DropReason::Policy, "another's now");
            }
        }
    }
}

#[test]
fn lockdown_takes_nothing_from_the_node() {
    for v6 in [false, true] {
        let talk = talk(v6, FRIEND, ACCEPTED);
        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, TCP, ACCEPTED.0);
        for (way, flags) in [
            (FromNode, SYN),
            (Leaving, SYN | ACK),
            (FromNode, ACK),
            (FromNode, ACK | PSH),
        ] {
            let frame = if way == Leaving {
                talk.out(TCP, flags)
            } else {
                talk.back(TCP, flags)
            };
            fence.passes(way, &frame, "opened and used");
        }
        assert_eq!(fence.assured(), 1);
        fence.set_mode(Mode::Lockdown);
        assert_eq!(fence.arriving(&talk.back(TCP, SYN)), Dropped, "lockdown");
        assert_eq!(fence.assured(), 1, "dropped, it takes nothing over");
        fence.set_mode(Mode::Enforce);
        fence.passes(Arriving, &talk.back(TCP, SYN), "control: by a rule");
        assert_eq!(fence.assured(), 0, "and takes over");
    }
}

/// Gives the workload a further address of each family, or takes it away.
fn own(fence: &mut Fence, further: Option<Both>) {
    let address = |v6| further.map(|both| both.ip(v6));
    fence.edit(|endpoint| {
        endpoint.ip4[2] = match address(false) {
            Some(IpAddr::V4(address)) => Ip4::from_wire(address.octets()),
            _ => Ip4::default(),
        };
        endpoint.ip6[1] = match address(true) {
            Some(IpAddr::V6(address)) => Ip6::from_wire(address.octets()),
            _ => Ip6::default(),
        };
    });
}
