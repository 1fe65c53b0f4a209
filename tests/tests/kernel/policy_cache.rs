//! Answers of policy that a CPU uses again within the tick: for their question, and no longer.

use std::time::Duration;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Verdict},
    policy::PolicyRow,
};
use ringfence_testbed::eventually;

use crate::fence::{Arriving, FRIEND, FRIENDS, Fence, LOCAL, Leaving, OTHER, RULE, TABLE, exact};
use crate::frames::{SYN, TCP, Talk, UDP};

fn talk(v6: bool, port: u16, service: u16) -> Talk {
    Talk {
        v6,
        local: (LOCAL, port),
        peer: (FRIEND, service),
    }
}

#[test]
fn an_answer_is_for_its_question_alone() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        for service in (1..200).step_by(2) {
            fence.allow(Direction::Egress, TCP, service);
        }
        for round in 0..3 {
            for service in 1..200 {
                let talk = talk(v6, 1000 + round, service);
                let other = Talk {
                    peer: (OTHER, service),
                    ..talk
                };
                if service % 2 == 1 {
                    fence.passes(Leaving, &talk.out(TCP, SYN), "a rule allows it");
                } else {
                    let what = "no rule for this port";
                    fence.refuses(Leaving, &talk.out(TCP, SYN), DropReason::Policy, what);
                }
                for (way, frame, what) in [
                    (Leaving, talk.out(UDP, 0), "no rule for this protocol"),
                    (Leaving, other.out(TCP, SYN), "no rule for this peer"),
                    (Arriving, other.back(TCP, SYN), "nor for this direction"),
                ] {
                    fence.refuses(way, &frame, DropReason::Policy, what);
                }
            }
        }
    }
}

/// So many tables that some have their answers in the same place as the first.
#[test]
fn an_answer_is_for_its_table_alone() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let others = || (100..400).map(TableId);
        others().for_each(|table| fence.deny_by_default(table));
        for (port, table) in (1000..).zip(others()) {
            fence.edit(|endpoint| endpoint.table = TABLE);
            let opening = talk(v6, port, 443).out(TCP, SYN);
            fence.passes(Leaving, &opening, "its table allows it");
            fence.edit(|endpoint| endpoint.table = table);
            let opening = talk(v6, port + 1000, 443).out(TCP, SYN);
            fence.refuses(Leaving, &opening, DropReason::Policy, "this one does not");
        }
    }
}

#[test]
fn an_answer_is_forgotten_with_the_tick() {
    let mut fence = Fence::new();
    for round in 0..20 {
        fence.allow(Direction::Egress, TCP, 443);
        let opening = talk(false, 1000 + round, 443).out(TCP, SYN);
        fence.passes(Leaving, &opening, "allowed now");
        let row = PolicyRow::lasting(Verdict::Deny, RULE);
        fence.put(exact(TABLE, FRIENDS, Direction::Egress, TCP, 443), row);
        let opening = talk(false, 2000 + round, 443).out(TCP, SYN);
        fence.refuses(Leaving, &opening, DropReason::Policy, "denied now");
    }
}

/// A flow that got the answer of another would have no time at which to ask again.
#[test]
fn an_answer_that_changes_with_time_is_nobody_elses() {
    let mut fence = Fence::new();
    let end = fence.now() + 300_000_000;
    let row = PolicyRow::until((Verdict::Allow, RULE), end, (Verdict::Deny, RULE));
    fence.put(exact(TABLE, FRIENDS, Direction::Egress, UDP, 53), row);
    let flows: Vec<Talk> = (1000..1020).map(|port| talk(false, port, 53)).collect();
    for flow in &flows {
        fence.passes(Leaving, &flow.out(UDP, 0), "until then");
    }
    eventually(Duration::from_secs(10), "the end of the rule", || {
        Ok((fence.now() >= end).then_some(()))
    })
    .unwrap();
    for flow in &flows {
        fence.refuses(Leaving, &flow.out(UDP, 0), DropReason::Policy, "afterwards");
    }
}
