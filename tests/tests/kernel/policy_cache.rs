//! The policy cache: a CPU reuses a decision only for the same lookup, and only within the tick.

use std::time::Duration;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Verdict},
    policy::PolicyRow,
};
use ringfence_testbed::{eventually, wait::for_this_machine};

use crate::fence::{Arriving, FRIEND, FRIENDS, Fence, LOCAL, Leaving, OTHER, RULE, TABLE, exact};
use crate::frames::{Flow, SYN, TCP, UDP};

fn flow(v6: bool, port: u16, service: u16) -> Flow {
    Flow {
        v6,
        local: (LOCAL, port),
        peer: (FRIEND, service),
    }
}

#[test]
fn a_cached_decision_applies_only_to_the_same_lookup() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        for service in (1..200).step_by(2) {
            fence.allow(Direction::Egress, TCP, service);
        }
        for round in 0..3 {
            for service in 1..200 {
                let flow = flow(v6, 1000 + round, service);
                let other = Flow {
                    peer: (OTHER, service),
                    ..flow
                };
                if service % 2 == 1 {
                    fence.passes(Leaving, &flow.outbound(TCP, SYN), "a rule allows it");
                } else {
                    let what = "no rule for this port";
                    fence.denies(Leaving, &flow.outbound(TCP, SYN), DropReason::Policy, what);
                }
                for (way, frame, what) in [
                    (Leaving, flow.outbound(UDP, 0), "no rule for this protocol"),
                    (Leaving, other.outbound(TCP, SYN), "no rule for this peer"),
                    (
                        Arriving,
                        other.inbound(TCP, SYN),
                        "no rule for this direction",
                    ),
                ] {
                    fence.denies(way, &frame, DropReason::Policy, what);
                }
            }
        }
    }
}

/// With this many tables, some share a cache slot with the first.
#[test]
fn a_cached_decision_applies_only_to_its_table() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let others = || (100..400).map(TableId);
        others().for_each(|table| fence.deny_by_default(table));
        for (port, table) in (1000..).zip(others()) {
            fence.edit(|endpoint| endpoint.table = TABLE);
            let syn = flow(v6, port, 443).outbound(TCP, SYN);
            fence.passes(Leaving, &syn, "this table allows it");
            fence.edit(|endpoint| endpoint.table = table);
            let syn = flow(v6, port + 1000, 443).outbound(TCP, SYN);
            fence.denies(Leaving, &syn, DropReason::Policy, "this table does not");
        }
    }
}

#[test]
fn a_cached_decision_is_dropped_with_the_tick() {
    let mut fence = Fence::new();
    for round in 0..20 {
        fence.allow(Direction::Egress, TCP, 443);
        let syn = flow(false, 1000 + round, 443).outbound(TCP, SYN);
        fence.passes(Leaving, &syn, "allowed now");
        let row = PolicyRow::lasting(Verdict::Deny, RULE);
        fence.put_row(exact(TABLE, FRIENDS, Direction::Egress, TCP, 443), row);
        let syn = flow(false, 2000 + round, 443).outbound(TCP, SYN);
        fence.denies(Leaving, &syn, DropReason::Policy, "denied now");
    }
}

/// A flow that got such a decision from the cache would have no recheck time.
#[test]
fn a_decision_with_a_recheck_time_is_not_shared_through_the_cache() {
    let mut fence = Fence::new();
    let before = for_this_machine(Duration::from_millis(300)).unwrap();
    let end = fence.now() + u64::try_from(before.as_nanos()).unwrap();
    let row = PolicyRow::until((Verdict::Allow, RULE), end, (Verdict::Deny, RULE));
    fence.put_row(exact(TABLE, FRIENDS, Direction::Egress, UDP, 53), row);
    let flows: Vec<Flow> = (1000..1020).map(|port| flow(false, port, 53)).collect();
    for flow in &flows {
        fence.passes(
            Leaving,
            &flow.outbound(UDP, 0),
            "before the end of the rule",
        );
    }
    eventually(Duration::from_secs(10), "the end of the rule", || {
        Ok((fence.now() >= end).then_some(()))
    })
    .unwrap();
    for flow in &flows {
        fence.denies(
            Leaving,
            &flow.outbound(UDP, 0),
            DropReason::Policy,
            "after the end of the rule",
        );
    }
}
