//! Packets that arrive from one of the node's addresses, which the node gave to another sender: the workload
//! itself, through its own Service, or a client that nothing in the packet names.
//!
//! The control of each is the same packet from a socket of the node.

use std::net::{Ipv4Addr, Ipv6Addr};

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, IdentityId, TableId},
    mode::{Direction, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, DualStack, FRIENDS, Fence, FromHost, Hairpin, LOCAL, LOCAL_IDENTITY, Leaving, OTHERS,
    RULE, TABLE, UNKNOWN_PEER, any_protocol,
};
use crate::frames::{ACK, FIN, Flow, PSH, RST, SCTP, SYN, TCP, UDP};

/// The endpoint's policy table after a change.
const NEXT: TableId = TableId(8);
const SECOND: u64 = 1_000_000_000;

/// Two addresses of the node; the second is in a policy prefix.
const NODE: DualStack = DualStack(
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
);
const GATEWAY: DualStack = DualStack(
    Ipv4Addr::new(10, 0, 1, 1),
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1),
);
const IN_PREFIX: IdentityId = IdentityId::FIRST_NODE;
/// A client elsewhere.
const CLIENT: IdentityId = IdentityId(40);

/// A fence whose policy has the node in class [`FRIENDS`], and clients behind it in class [`OTHERS`].
fn fence() -> Fence {
    let mut fence = Fence::new();
    for v6 in [false, true] {
        fence.write(Action::PutAddress(NODE.ip(v6), IdentityId::HOST));
        fence.write(Action::PutAddress(GATEWAY.ip(v6), IN_PREFIX));
    }
    for identity in [IdentityId::HOST, IN_PREFIX] {
        fence.write(Action::SetClass(identity, FRIENDS));
        fence.write(Action::SetClass(identity.behind_node(), OTHERS));
    }
    fence
}

/// The workload's port, and that of the other end.
fn flow(v6: bool, from: DualStack) -> Flow {
    Flow {
        v6,
        local: (LOCAL, 8080),
        peer: (from, 40000),
    }
}

fn allow(fence: &mut Fence, class: ClassId, direction: Direction) {
    let row = PolicyRow::lasting(Verdict::Allow, RULE);
    fence.put_row(any_protocol(TABLE, class, direction), row);
}

fn revoke(fence: &mut Fence) {
    fence.deny_by_default(NEXT);
    fence.edit(|endpoint| endpoint.table = NEXT);
}

fn cases() -> impl Iterator<Item = Flow> {
    let families = [false, true].into_iter();
    families.flat_map(|v6| [NODE, GATEWAY].map(|from| flow(v6, from)))
}

#[test]
fn what_the_node_forwards_from_its_own_address_is_no_packet_of_the_node() {
    for flow in cases() {
        for (protocol, flags) in [(TCP, SYN), (UDP, 0), (SCTP, 0)] {
            let packet = flow.inbound(protocol, flags);
            let mut fence = fence();
            allow(&mut fence, FRIENDS, Direction::Ingress);
            fence.denies(
                Arriving,
                &packet,
                DropReason::Policy,
                "a rule for the node only",
            );
            fence.passes(FromHost, &packet, "control: from a socket of the node");
            fence.denies(Arriving, &packet, DropReason::Policy, "over its flow");

            let mut fence = self::fence();
            allow(&mut fence, OTHERS, Direction::Ingress);
            fence.passes(
                Arriving,
                &packet,
                "control: a rule for clients behind a node",
            );
            let events = fence.events();
            let peers: Vec<_> = events.iter().map(|event| event.peer_identity).collect();
            let address = flow.peer.0.ip(flow.v6);
            let expected = if address == NODE.ip(flow.v6) {
                IdentityId::REMOTE_NODE
            } else {
                IN_PREFIX.behind_node()
            };
            assert_eq!(peers, [expected], "{flow:?}");
            let reply = flow.outbound(protocol, if protocol == TCP { SYN | ACK } else { 0 });
            fence.passes(Leaving, &reply, "the reply");
            fence.passes(Arriving, &flow.inbound(protocol, ACK), "the flow continues");
            revoke(&mut fence);
            fence.denies(Leaving, &reply, DropReason::Policy, "revoked, the reply");
            fence.denies(Arriving, &packet, DropReason::Policy, "revoked");
        }
    }
}

#[test]
fn policy_knows_what_the_workload_sends_to_the_node_as_before() {
    for flow in cases() {
        let packet = flow.outbound(UDP, 0);
        let mut fence = fence();
        allow(&mut fence, OTHERS, Direction::Egress);
        fence.denies(
            Leaving,
            &packet,
            DropReason::Policy,
            "a rule for other nodes",
        );
        let mut fence = self::fence();
        allow(&mut fence, FRIENDS, Direction::Egress);
        fence.passes(Leaving, &packet, "a rule for the node");
        // Its answer may come from elsewhere: what was sent to a port that the node forwards.
        fence.passes(Arriving, &flow.inbound(UDP, 0), "the reply, forwarded");
        fence.passes(FromHost, &flow.inbound(UDP, 0), "the reply of a socket");
    }
}

#[test]
fn a_workload_reaches_itself_through_its_service() {
    for flow in cases() {
        for (protocol, first, answer, more) in
            [(TCP, SYN, SYN | ACK, ACK), (UDP, 0, 0, 0), (SCTP, 0, 0, 0)]
        {
            let mut fence = fence();
            let packet = flow.inbound(protocol, first);
            fence.denies(Arriving, &packet, DropReason::Policy, "from another sender");
            fence.passes(Hairpin, &packet, "the workload's own, translated");
            let peers: Vec<_> = fence
                .events()
                .iter()
                .map(|event| event.peer_identity)
                .collect();
            assert!(peers.contains(&LOCAL_IDENTITY), "{peers:?}");
            fence.passes(Leaving, &flow.outbound(protocol, answer), "the reply");
            fence.passes(Hairpin, &flow.inbound(protocol, more), "it continues");
            revoke(&mut fence);
            fence.passes(Leaving, &flow.outbound(protocol, more), "no rule to revoke");
            fence.passes(Hairpin, &flow.inbound(protocol, more), "in both directions");
            for flags in [first, more] {
                let packet = flow.inbound(protocol, flags);
                fence.denies(Arriving, &packet, DropReason::Policy, "of another sender");
            }
            fence.passes(Leaving, &flow.outbound(protocol, more), "still its own");
            fence.passes(FromHost, &packet, "control: a socket of the node");
        }
    }
}

#[test]
fn a_flow_to_itself_ends_when_the_address_is_no_longer_the_nodes() {
    for flow in cases() {
        for (protocol, first, more) in [(TCP, SYN, ACK), (UDP, 0, 0)] {
            for (way, packet) in [
                (Hairpin, flow.inbound(protocol, more)),
                (Leaving, flow.outbound(protocol, more)),
            ] {
                let mut fence = fence();
                fence.passes(Hairpin, &flow.inbound(protocol, first), "to itself");
                fence.passes(way, &packet, "control");
                let address = flow.peer.0.ip(flow.v6);
                fence.write(Action::PutAddress(address, IdentityId::WORLD));
                fence.change_owner(address);
                fence.denies(way, &packet, DropReason::Policy, "an address of others");
            }
        }
    }
}

#[test]
fn only_what_has_an_address_of_the_node_is_translated() {
    for v6 in [false, true] {
        let flow = flow(v6, UNKNOWN_PEER);
        let mut fence = fence();
        let packet = flow.inbound(UDP, 0);
        fence.denies(Hairpin, &packet, DropReason::UnknownPeer, "from elsewhere");
    }
}

#[test]
fn a_connection_of_the_node_may_have_the_ports_of_an_earlier_client() {
    for flow in cases() {
        let mut fence = fence();
        allow(&mut fence, OTHERS, Direction::Ingress);
        fence.passes(Arriving, &flow.inbound(TCP, SYN), "a client's");
        revoke(&mut fence);
        fence.denies(
            Arriving,
            &flow.inbound(TCP, SYN),
            DropReason::Policy,
            "revoked",
        );
        fence.passes(FromHost, &flow.inbound(TCP, SYN), "the node's own");
        fence.passes(Leaving, &flow.outbound(TCP, SYN | ACK), "its reply");
    }
}

#[test]
fn a_translated_flow_ends_before_the_translation() {
    for flow in cases() {
        for way in [Hairpin, Arriving] {
            let mut fence = fence();
            allow(&mut fence, OTHERS, Direction::Ingress);
            let (there, back) = (flow.inbound(UDP, 0), flow.outbound(UDP, 0));
            for _ in 0..2 {
                fence.passes(way, &there, "a request");
                fence.passes(Leaving, &back, "the reply");
            }
            fence.age_flows(20 * SECOND);
            fence.passes(Leaving, &back, "control: it is live");
            fence.passes(way, &there, "a request shows that the node translates");
            fence.age_flows(20 * SECOND);
            fence.passes(Leaving, &back, "control: the request has extended it");
            fence.age_flows(6 * SECOND);
            fence.denies(
                Leaving,
                &back,
                DropReason::Policy,
                "what the node no longer translates reaches the node itself",
            );
        }
    }
}

/// A client's address becomes one of the node's, and with it what the client has open a flow behind the node.
#[test]
fn a_flow_that_becomes_translated_ends_as_soon() {
    for (flow, becomes_node) in cases().flat_map(|flow| [(flow, false), (flow, true)]) {
        let mut fence = fence();
        allow(&mut fence, OTHERS, Direction::Ingress);
        let address = flow.peer.0.ip(flow.v6);
        fence.write(Action::SetClass(CLIENT, OTHERS));
        fence.write(Action::PutAddress(address, CLIENT));
        let (there, back) = (flow.inbound(UDP, 0), flow.outbound(UDP, 0));
        fence.passes(Arriving, &there, "a request");
        fence.passes(Leaving, &back, "the reply");
        if becomes_node {
            fence.write(Action::PutAddress(address, IN_PREFIX));
        }
        fence.write(Action::BumpEpoch(address));
        fence.passes(Leaving, &back, "evaluated again");
        fence.age_flows(26 * SECOND);
        if becomes_node {
            fence.denies(Leaving, &back, DropReason::Policy, "to the node itself");
        } else {
            fence.passes(Leaving, &back, "control: a client of its own");
        }
    }
}

#[test]
fn an_association_behind_the_node_ends_sooner() {
    for flow in cases() {
        for way in [Hairpin, Arriving] {
            let mut fence = fence();
            allow(&mut fence, OTHERS, Direction::Ingress);
            let (there, back) = (flow.inbound(SCTP, 0), flow.outbound(SCTP, 0));
            fence.passes(way, &there, "a chunk");
            fence.age_flows(SECOND);
            fence.passes(Leaving, &back, "control: it is live");
            fence.age_flows(2 * SECOND);
            fence.denies(Leaving, &back, DropReason::Policy, "nf_conntrack: 3 s");
        }
    }
}

#[test]
fn what_comes_back_mid_flow_leaves_nothing_after_a_syn_ack_or_a_reset() {
    for flow in cases() {
        for (flags, lasts) in [(SYN | ACK, false), (RST, false), (ACK, true)] {
            let mut fence = fence();
            fence.passes(Hairpin, &flow.inbound(TCP, flags), "its own");
            let segment = flow.outbound(TCP, ACK);
            if lasts {
                fence.passes(Leaving, &segment, "control: after an ACK");
            } else {
                fence.denies(Leaving, &segment, DropReason::Policy, "nothing is open");
            }
        }
    }
}

#[test]
fn records_name_the_sender_of_each_direction() {
    for flow in cases() {
        let mut fence = fence();
        let (there, back) = (flow.inbound(UDP, 0), flow.outbound(UDP, 0));
        let node = if flow.peer.0.ip(flow.v6) == NODE.ip(flow.v6) {
            IdentityId::HOST
        } else {
            IN_PREFIX
        };
        let peers = |fence: &mut Fence| -> Vec<IdentityId> {
            let events = fence.events();
            events.iter().map(|event| event.peer_identity).collect()
        };
        fence.denies(Leaving, &back, DropReason::Policy, "no rule");
        // In observe, too.
        assert_eq!(peers(&mut fence), [node, node]);
        for _ in 0..3 {
            fence.denies(Arriving, &there, DropReason::Policy, "no rule");
            fence.make_reports_due();
        }
        let named = peers(&mut fence);
        assert!(named.len() > 1, "the control: more than the first");
        assert!(
            named.iter().all(|peer| *peer == node.behind_node()),
            "{named:?}"
        );
        // And with the client first.
        let mut fence = self::fence();
        fence.denies(Arriving, &there, DropReason::Policy, "no rule");
        assert!(peers(&mut fence).contains(&node.behind_node()), "control");
        for _ in 0..3 {
            fence.denies(Leaving, &back, DropReason::Policy, "no rule");
            fence.make_reports_due();
        }
        let named = peers(&mut fence);
        assert!(named.len() > 1, "the control: more than the first");
        assert!(named.iter().all(|peer| *peer == node), "{named:?}");
    }
}

#[test]
fn answers_that_come_back_are_one_flow() {
    for flow in cases() {
        let mut fence = fence();
        allow(&mut fence, FRIENDS, Direction::Egress);
        fence.passes(Leaving, &flow.outbound(UDP, 0), "to a port that leads back");
        revoke(&mut fence);
        fence.denies(
            Leaving,
            &flow.outbound(UDP, 0),
            DropReason::Policy,
            "revoked",
        );
        fence.passes(Hairpin, &flow.inbound(UDP, 0), "an answer, its own");
        assert!(
            !fence.events().is_empty(),
            "the control: the first is recorded"
        );
        for _ in 0..5 {
            fence.passes(Hairpin, &flow.inbound(UDP, 0), "more of it");
        }
        assert_eq!(fence.events().len(), 0, "{flow:?}");
    }
}

#[test]
fn connections_behind_the_node_last() {
    for flow in cases() {
        for way in [Hairpin, Arriving] {
            let mut fence = fence();
            allow(&mut fence, OTHERS, Direction::Ingress);
            fence.passes(way, &flow.inbound(TCP, SYN), "a connection");
            fence.passes(Leaving, &flow.outbound(TCP, SYN | ACK), "the reply");
            fence.passes(way, &flow.inbound(TCP, ACK), "established");
            fence.passes(way, &flow.inbound(TCP, ACK | PSH), "data");
            fence.age_flows(3600 * SECOND);
            let data = flow.outbound(TCP, ACK | PSH);
            fence.passes(Leaving, &data, "an established connection lasts");
            fence.passes(way, &flow.inbound(TCP, FIN | ACK), "its client closes it");
            fence.age_flows(200 * SECOND);
            fence.passes(
                Leaving,
                &data,
                "RFC 5382 REQ-5: four minutes for the answer",
            );
        }
    }
}
