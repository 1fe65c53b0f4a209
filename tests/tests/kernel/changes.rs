//! Policy changes under live flows: the next packet is judged by the new policy, both ways.

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    event::EventKind,
    ids::{RuleSlot, TableId},
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, OTHER_IDENTITY, TABLE, Way, exact,
};
use crate::frames::{ACK, PSH, SYN, TCP, Talk};

const NEXT: TableId = TableId(8);

/// A live connection that one rule allows, opened by the workload or by its friend.
fn live(direction: Direction, v6: bool) -> (Fence, Talk) {
    let mut fence = Fence::new();
    fence.allow(direction, TCP, 443);
    fence.deny_by_default(NEXT);
    let talk = match direction {
        Direction::Egress => Talk {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        },
        Direction::Ingress => Talk {
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
        fence.passes(way, &send(&talk, way, flags), "opening");
    }
    fence.events();
    (fence, talk)
}

fn send(talk: &Talk, way: Way, flags: u8) -> Vec<u8> {
    if way == Leaving {
        talk.out(TCP, flags)
    } else {
        talk.back(TCP, flags)
    }
}

/// Every direction of opening, both families, and either end's packet as the first one after.
fn cases() -> impl Iterator<Item = (Direction, bool, Way)> {
    [Direction::Egress, Direction::Ingress]
        .into_iter()
        .flat_map(|direction| [false, true].map(|v6| (direction, v6)))
        .flat_map(|(direction, v6)| [Leaving, Arriving].map(|way| (direction, v6, way)))
}

#[test]
fn a_new_table_revokes_on_the_next_packet_of_either_end() {
    for (direction, v6, way) in cases() {
        let (mut fence, talk) = live(direction, v6);
        fence.passes(way, &send(&talk, way, ACK | PSH), "control: before");
        fence.edit(|endpoint| endpoint.table = NEXT);
        let other = if way == Leaving { Arriving } else { Leaving };
        for way in [way, other, way] {
            let before = fence.count(DropReason::Policy).0;
            let fate = fence.run(way, &send(&talk, way, ACK | PSH));
            assert_eq!(fate, Dropped, "{direction:?} v6={v6} {way:?}");
            assert_eq!(fence.count(DropReason::Policy).0, before + 1);
        }
        assert_eq!(fence.counters().flows_rejudged, 1, "then the entry says so");

        fence.set_mode(Mode::Observe);
        fence.passes_observed(way, &send(&talk, way, ACK | PSH));
        fence.set_mode(Mode::Enforce);

        fence.edit(|endpoint| endpoint.table = TABLE);
        fence.events();
        fence.passes(way, &send(&talk, way, ACK | PSH), "granted again");
        let changed = fence.events();
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].kind, EventKind::Changed as u8);
        assert_eq!(changed[0].verdict, Verdict::Allow as u8);
        assert_eq!(
            changed[0].direction, direction as u8,
            "as the flow was opened"
        );
    }
}

#[test]
fn a_new_table_that_still_allows_costs_nothing() {
    for (direction, v6, way) in cases() {
        let (mut fence, talk) = live(direction, v6);
        let row = PolicyRow::lasting(Verdict::Allow, RuleSlot(50));
        fence.put(exact(NEXT, FRIENDS, direction, TCP, 443), row);
        fence.edit(|endpoint| endpoint.table = NEXT);
        for _ in 0..3 {
            fence.passes(way, &send(&talk, way, ACK | PSH), "allowed by both tables");
        }
        assert_eq!(fence.counters().flows_rejudged, 1);
        assert!(fence.hits(RuleSlot(50)) > 0, "by the new table's rule");
        assert_eq!(fence.events(), [], "no change of verdict, no record");
    }
}

#[test]
fn an_epoch_makes_a_peer_be_identified_again() {
    for (direction, v6, way) in cases() {
        let (mut fence, talk) = live(direction, v6);
        let peer = FRIEND.ip(v6);
        fence.write(Action::PutAddress(peer, OTHER_IDENTITY));
        fence.passes(
            way,
            &send(&talk, way, ACK | PSH),
            "control: a stored verdict",
        );
        fence.write(Action::BumpEpoch(peer));
        for way in [Leaving, Arriving] {
            let fate = fence.run(way, &send(&talk, way, ACK | PSH));
            assert_eq!(fate, Dropped, "{direction:?} v6={v6} {way:?}");
        }
        assert_eq!(fence.count(DropReason::Policy), (2, 0));
    }
    for (direction, v6, way) in cases() {
        let (mut fence, talk) = live(direction, v6);
        fence.write(Action::DeleteAddress(FRIEND.ip(v6)));
        fence.write(Action::BumpAllEpochs);
        let frame = send(&talk, way, ACK | PSH);
        assert_eq!(fence.run(way, &frame), Dropped, "a peer that is gone");
        assert_eq!(fence.count(DropReason::UnknownPeer), (1, 0));
    }
}

#[test]
fn enforce_drops_what_observe_let_live() {
    for (direction, v6, way) in cases() {
        let mut fence = Fence::new();
        fence.set_mode(Mode::Observe);
        let talk = Talk {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        };
        let (there, back) = match direction {
            Direction::Egress => (Leaving, Arriving),
            Direction::Ingress => (Arriving, Leaving),
        };
        fence.passes_observed(there, &send(&talk, there, SYN));
        fence.passes_observed(back, &send(&talk, back, SYN | ACK));
        fence.set_mode(Mode::Enforce);
        let frame = send(&talk, way, ACK | PSH);
        assert_eq!(fence.run(way, &frame), Dropped, "on the next packet");

        // The direction of opening was learnt meanwhile: a rule for it lets both ends go on.
        fence.set_mode(Mode::Observe);
        fence.passes_observed(there, &send(&talk, there, ACK));
        let port = if direction == Direction::Egress {
            443
        } else {
            40000
        };
        let row = PolicyRow::lasting(Verdict::Allow, RuleSlot(50));
        fence.deny_by_default(NEXT);
        fence.put(exact(NEXT, FRIENDS, direction, TCP, port), row);
        fence.edit(|endpoint| endpoint.table = NEXT);
        fence.set_mode(Mode::Enforce);
        fence.passes(way, &frame, "allowed in the direction it was opened");
    }
}

impl Fence {
    /// Passes, though it is counted as what policy denies.
    #[track_caller]
    fn passes_observed(&mut self, way: Way, frame: &[u8]) {
        let before = self.count(DropReason::Policy);
        assert_eq!(self.run(way, frame), crate::fence::Passed, "{way:?}");
        assert_eq!(self.count(DropReason::Policy), (before.0, before.1 + 1));
    }
}
