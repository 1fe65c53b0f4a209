//! Policy changes under live flows: the next packet in either direction is decided by the new
//! policy.

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    event::EventKind,
    ids::{RuleSlot, TableId},
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, IFINDEX, LOCAL, Leaving, OTHER_IDENTITY, TABLE, Way,
    exact,
};
use crate::frames::{ACK, Flow, PSH, SYN, TCP, UDP};

const NEXT: TableId = TableId(8);

/// An established connection that one rule allows, opened by the workload or by [`FRIEND`].
fn live(direction: Direction, v6: bool) -> (Fence, Flow) {
    let mut fence = Fence::new();
    fence.allow(direction, TCP, 443);
    fence.deny_by_default(NEXT);
    let flow = match direction {
        Direction::Egress => Flow {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        },
        Direction::Ingress => Flow {
            v6,
            local: (LOCAL, 443),
            peer: (FRIEND, 40000),
        },
    };
    let opening = match direction {
        Direction::Egress => [(Leaving, SYN), (Arriving, SYN | ACK), (Leaving, ACK)],
        Direction::Ingress => [(Arriving, SYN), (Leaving, SYN | ACK), (Arriving, ACK)],
    };
    for (way, flags) in opening {
        fence.passes(way, &packet(&flow, way, flags), "the handshake");
    }
    fence.events();
    (fence, flow)
}

fn packet(flow: &Flow, way: Way, flags: u8) -> Vec<u8> {
    if way == Leaving {
        flow.outbound(TCP, flags)
    } else {
        flow.inbound(TCP, flags)
    }
}

/// Each direction of the flow, both families, and the end that sends the first packet after the
/// change.
fn cases() -> impl Iterator<Item = (Direction, bool, Way)> {
    [Direction::Egress, Direction::Ingress]
        .into_iter()
        .flat_map(|direction| [false, true].map(|v6| (direction, v6)))
        .flat_map(|(direction, v6)| [Leaving, Arriving].map(|way| (direction, v6, way)))
}

#[test]
fn a_new_table_revokes_a_flow_on_the_next_packet_of_either_end() {
    for (direction, v6, way) in cases() {
        let (mut fence, flow) = live(direction, v6);
        fence.passes(way, &packet(&flow, way, ACK | PSH), "control: before");
        fence.edit(|endpoint| endpoint.table = NEXT);
        let other = if way == Leaving { Arriving } else { Leaving };
        for way in [way, other, way] {
            let before = fence.count(DropReason::Policy).0;
            let outcome = fence.run(way, &packet(&flow, way, ACK | PSH));
            assert_eq!(outcome, Dropped, "{direction:?} v6={v6} {way:?}");
            assert_eq!(fence.count(DropReason::Policy).0, before + 1);
        }
        assert_eq!(
            fence.counters().flows_reevaluated,
            1,
            "later packets use the entry"
        );

        fence.set_mode(Mode::Observe);
        fence.passes_observed(way, &packet(&flow, way, ACK | PSH));
        fence.set_mode(Mode::Enforce);

        fence.edit(|endpoint| endpoint.table = TABLE);
        fence.events();
        fence.passes(way, &packet(&flow, way, ACK | PSH), "granted again");
        let changed = fence.events();
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].kind, EventKind::Changed as u8);
        assert_eq!(changed[0].verdict, Verdict::Allow as u8);
        assert_eq!(
            changed[0].direction, direction as u8,
            "the direction of the first packet"
        );
    }
}

#[test]
fn a_new_table_that_still_allows_a_flow_is_not_reported() {
    for (direction, v6, way) in cases() {
        let (mut fence, flow) = live(direction, v6);
        let row = PolicyRow::lasting(Verdict::Allow, RuleSlot(50));
        fence.put_row(exact(NEXT, FRIENDS, direction, TCP, 443), row);
        fence.edit(|endpoint| endpoint.table = NEXT);
        for _ in 0..3 {
            fence.passes(way, &packet(&flow, way, ACK | PSH), "both tables allow it");
        }
        assert_eq!(fence.counters().flows_reevaluated, 1);
        assert!(fence.hits(RuleSlot(50)) > 0, "the new table's rule decides");
        assert_eq!(fence.events(), [], "no record without a change of verdict");
    }
}

#[test]
fn a_new_epoch_makes_the_programs_look_up_the_peer_again() {
    for (direction, v6, way) in cases() {
        let (mut fence, flow) = live(direction, v6);
        let peer = FRIEND.ip(v6);
        fence.write(Action::PutAddress(peer, OTHER_IDENTITY));
        fence.passes(
            way,
            &packet(&flow, way, ACK | PSH),
            "control: the stored verdict applies",
        );
        fence.write(Action::BumpEpoch(peer));
        for way in [Leaving, Arriving] {
            let outcome = fence.run(way, &packet(&flow, way, ACK | PSH));
            assert_eq!(outcome, Dropped, "{direction:?} v6={v6} {way:?}");
        }
        assert_eq!(fence.count(DropReason::Policy), (2, 0));
    }
    for (direction, v6, way) in cases() {
        let (mut fence, flow) = live(direction, v6);
        fence.write(Action::DeleteAddress(FRIEND.ip(v6)));
        fence.write(Action::BumpAllEpochs);
        let frame = packet(&flow, way, ACK | PSH);
        assert_eq!(fence.run(way, &frame), Dropped, "a removed peer");
        assert_eq!(fence.count(DropReason::UnknownPeer), (1, 0));
    }
}

#[test]
fn enforce_drops_flows_that_observe_let_pass() {
    for (direction, v6, way) in cases() {
        let mut fence = Fence::new();
        fence.set_mode(Mode::Observe);
        let flow = Flow {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        };
        let (original, reply) = match direction {
            Direction::Egress => (Leaving, Arriving),
            Direction::Ingress => (Arriving, Leaving),
        };
        fence.passes_observed(original, &packet(&flow, original, SYN));
        fence.passes_observed(reply, &packet(&flow, reply, SYN | ACK));
        fence.set_mode(Mode::Enforce);
        let frame = packet(&flow, way, ACK | PSH);
        assert_eq!(fence.run(way, &frame), Dropped, "on the next packet");

        // The entry has the direction of the flow: a rule for that direction allows both ends.
        fence.set_mode(Mode::Observe);
        fence.passes_observed(original, &packet(&flow, original, ACK));
        let port = if direction == Direction::Egress {
            443
        } else {
            40000
        };
        let row = PolicyRow::lasting(Verdict::Allow, RuleSlot(50));
        fence.deny_by_default(NEXT);
        fence.put_row(exact(NEXT, FRIENDS, direction, TCP, port), row);
        fence.edit(|endpoint| endpoint.table = NEXT);
        fence.set_mode(Mode::Enforce);
        fence.passes(way, &frame, "allowed in the flow's direction");
    }
}

impl Fence {
    /// Runs a frame that policy denies in `observe`: it passes and is counted.
    #[track_caller]
    fn passes_observed(&mut self, way: Way, frame: &[u8]) {
        let before = self.count(DropReason::Policy);
        assert_eq!(self.run(way, frame), crate::fence::Passed, "{way:?}");
        assert_eq!(self.count(DropReason::Policy), (before.0, before.1 + 1));
    }
}

/// Numbers in the entries of an endpoint that is gone may mean something else when another one comes
/// to its interface.
#[test]
fn entries_of_an_interfaces_former_endpoint_are_evaluated_again() {
    let mut fence = Fence::new();
    fence.allow(Direction::Ingress, UDP, 53);
    let flow = Flow {
        v6: false,
        local: (LOCAL, 53),
        peer: (FRIEND, 5000),
    };
    fence.passes(Arriving, &flow.inbound(UDP, 0), "policy allows it");
    fence.deny_by_default(TABLE);
    let row = exact(TABLE, FRIENDS, Direction::Ingress, UDP, 53);
    let deny = PolicyRow::lasting(Verdict::Deny, RuleSlot::DEFAULT_DENY);
    fence.put_row(row, deny);
    fence.passes(Arriving, &flow.inbound(UDP, 0), "control: by its entry");
    fence.write(Action::DeleteEndpoint(IFINDEX));
    fence.edit(|_| {});
    let what = "the endpoint came back";
    fence.denies(Arriving, &flow.inbound(UDP, 0), DropReason::Policy, what);
}
