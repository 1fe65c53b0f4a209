//! What needs no rule, and how far that goes: packets of the own node, and of own addresses.

use std::net::IpAddr;

use ringfence_common::{
    ids::TableId,
    mode::Direction,
    net::{Ip4, Ip6},
    reason::DropReason,
};

use crate::fence::{
    Arriving, Both, FRIEND, Fence, FromNode, Hairpin, LOCAL, Leaving, OTHER, STRANGER, Way,
};
use crate::frames::{ACK, PSH, RST, SCTP, SYN, TCP, Talk, UDP};

/// A table after the first.
const NEXT: TableId = TableId(8);

/// The workload's port and its peer's, as if the workload had opened the connection.
const OPENED: (u16, u16) = (40000, 443);
/// As if the peer had.
const ACCEPTED: (u16, u16) = (443, 40000);

fn talk(v6: bool, peer: Both, (own_port, peer_port): (u16, u16)) -> Talk {
    Talk {
        v6,
        local: (LOCAL, own_port),
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
        // Whatever the ports look like, and in the window if the node looks like the server.
        for (ports, window) in [(OPENED, false), (ACCEPTED, false), (OPENED, true)] {
            let talk = talk(v6, FRIEND, ports);
            for flags in [ACK, ACK | PSH, SYN | ACK, RST] {
                let mut fence = fence(window);
                fence.passes(FromNode, &talk.back(TCP, flags), "as all from the node");
                fence.passes(FromNode, &talk.back(TCP, flags), "again");
                let answer = talk.out(TCP, ACK);
                fence.refuses(Leaving, &answer, DropReason::Policy, "no rule");
            }
        }
        let talk = talk(v6, FRIEND, ACCEPTED);
        let mut fence = fence(true);
        fence.passes(FromNode, &talk.back(TCP, ACK), "older than the fence");
        fence.passes(Leaving, &talk.out(TCP, ACK), "opened by the node, it seems");
    }
}

#[test]
fn a_late_answer_of_the_node_makes_nothing_irrevocable() {
    for v6 in [false, true] {
        for (ports, window) in [(OPENED, false), ((443, 8443), false), (OPENED, true)] {
            let talk = talk(v6, FRIEND, ports);
            let mut fence = fence(window);
            fence.allow(Direction::Egress, TCP, ports.1);
            // The connection was opened by the workload; its entry is gone.
            fence.passes(FromNode, &talk.back(TCP, ACK | PSH), "an answer");
            fence.passes(Leaving, &talk.out(TCP, ACK), "allowed by the rule");
            revoke(&mut fence);
            let more = talk.out(TCP, ACK | PSH);
            fence.refuses(Leaving, &more, DropReason::Policy, "revoked");
        }
    }
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

        // Who may come by a rule takes the flow over, and loses it with the rule.
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
            for (way, frame) in [
                (Leaving, talk.out(number, more)),
                (Arriving, talk.back(number, more)),
            ] {
                fence.refuses(way, &frame, DropReason::Policy, "another's now");
            }
        }
        let back = |way: Way| {
            let talk = talk(v6, OTHER, ACCEPTED);
            let mut fence = Fence::new();
            own(&mut fence, Some(OTHER));
            fence.passes(Hairpin, &talk.back(UDP, 0), "from a further own address");
            own(&mut fence, None);
            let frame = if way == Leaving {
                talk.out(UDP, 0)
            } else {
                talk.back(UDP, 0)
            };
            fence.refuses(way, &frame, DropReason::Policy, "another's now");
        };
        back(Leaving);
        back(Arriving);
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
