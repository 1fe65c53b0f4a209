//! Schedules: the kernel programs follow the periods of a policy row by their own clock, without
//! the agent.

use std::time::Duration;

use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, RuleSlot},
    mode::{Direction, Verdict},
    policy::{FOREVER, MAX_PERIODS, PolicyKey, PolicyRow, row},
};
use ringfence_testbed::eventually;

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, Outcome, Passed, RULE, Rejected,
    TABLE, Way, any_port, any_protocol, exact,
};
use crate::frames::{ACK, Flow, PSH, SYN, TCP};

const WAYS: [(Way, Direction); 2] = [(Leaving, Direction::Egress), (Arriving, Direction::Ingress)];
const DENY: (Verdict, RuleSlot) = (Verdict::Deny, RuleSlot::DEFAULT_DENY);
const ALLOW: (Verdict, RuleSlot) = (Verdict::Allow, RULE);
/// Length of a period: enough for the packets of two tests on a busy machine.
const PERIOD: u64 = 150_000_000;

/// The key of the same row in a later period.
fn later((bits, mut key): (u32, PolicyKey), period: u8) -> (u32, PolicyKey) {
    key.direction += period * PolicyKey::PERIOD;
    (bits, key)
}

/// Writes the rows of a schedule; every row but the last refers to the next period.
fn put_schedule(fence: &mut Fence, at: (u32, PolicyKey), rows: &[PolicyRow]) {
    for (period, row) in (0..).zip(rows) {
        let has_next = usize::from(period) + 1 < rows.len();
        let row = if has_next {
            row.with(row::NEXT_PERIOD)
        } else {
            *row
        };
        fence.put_row(later(at, period), row);
    }
}

fn flow(way: Way, v6: bool, port: u16) -> Flow {
    let (local, peer) = if way == Leaving {
        (port, 80)
    } else {
        (80, port)
    };
    Flow {
        v6,
        local: (LOCAL, local),
        peer: (FRIEND, peer),
    }
}

fn send(fence: &mut Fence, flow: &Flow, way: Way, flags: u8) -> Outcome {
    let frame = if way == Leaving {
        flow.outbound(TCP, flags)
    } else {
        flow.inbound(TCP, flags)
    };
    fence.run(way, &frame)
}

/// Runs a test with longer and longer periods, until packets were seen in each of them: a busy
/// machine may miss a short one.
fn with_longer_periods(run: impl Fn(u64) -> bool) {
    let lengths = [PERIOD, 4 * PERIOD, 16 * PERIOD];
    assert!(lengths.into_iter().any(run), "a period was always missed");
}

#[test]
fn a_rule_begins_and_ends_on_time() {
    for (way, direction) in WAYS {
        with_longer_periods(|length| begins_and_ends(way, direction, length));
    }
}

/// True if packets were seen before, during and after the rule's period.
fn begins_and_ends(way: Way, direction: Direction, length: u64) -> bool {
    let mut fence = Fence::new();
    let begins = fence.now() + length;
    let ends = begins + length;
    let rows = [
        PolicyRow::until(DENY, begins, ALLOW),
        PolicyRow::until(ALLOW, ends, DENY).with(row::THEN_REJECT),
    ];
    put_schedule(&mut fence, exact(TABLE, FRIENDS, direction, TCP, 80), &rows);
    let mut seen = Vec::new();
    let mut v6 = false;
    eventually(Duration::from_secs(20), "the end of the rule", || {
        // A new flow each time; the clock is read before and after its packet.
        fence.clear_flows();
        v6 = !v6;
        let before = fence.now();
        let outcome = send(&mut fence, &flow(way, v6, 40000), way, SYN);
        let after = fence.now();
        let expected = |now| match now {
            _ if now < begins => Dropped,
            _ if now < ends => Passed,
            _ => Rejected,
        };
        let right = [before, after].map(expected).contains(&outcome);
        let skipped = before < begins && after >= ends && outcome == Passed;
        assert!(
            right || skipped,
            "{way:?}: {outcome:?} between {before} and {after}, {begins} to {ends}"
        );
        seen.push(outcome);
        Ok((outcome == Rejected).then_some(()))
    })
    .unwrap();
    [Dropped, Passed, Rejected]
        .iter()
        .all(|outcome| seen.contains(outcome))
}

#[test]
fn an_established_flow_is_denied_from_the_end_of_the_second_period() {
    for (way, direction) in WAYS {
        for v6 in [false, true] {
            with_longer_periods(|length| {
                is_denied_from_the_second_edge(way, direction, v6, length)
            });
        }
    }
}

/// True if packets were seen in each of the first two periods.
fn is_denied_from_the_second_edge(way: Way, direction: Direction, v6: bool, length: u64) -> bool {
    let mut fence = Fence::new();
    let first = fence.now() + length;
    let second = first + length;
    let next = (Verdict::Allow, RuleSlot(41));
    let rows = [
        PolicyRow::until(ALLOW, first, next),
        PolicyRow::until(next, second, DENY),
    ];
    put_schedule(&mut fence, exact(TABLE, FRIENDS, direction, TCP, 80), &rows);
    let flow = flow(way, v6, 40000);
    let back = if way == Leaving { Arriving } else { Leaving };
    let opened =
        [(way, SYN), (back, SYN | ACK)].map(|(way, flags)| send(&mut fence, &flow, way, flags));
    if fence.now() >= first {
        return false;
    }
    assert_eq!(opened, [Passed; 2]);
    let mut turn = back;
    eventually(Duration::from_secs(20), "the second edge", || {
        turn = if turn == way { back } else { way };
        let before = fence.now();
        let outcome = send(&mut fence, &flow, turn, ACK | PSH);
        let after = fence.now();
        assert!(after >= second || outcome == Passed, "denied too early");
        assert!(before < second || outcome == Dropped, "allowed too long");
        Ok((outcome == Dropped).then_some(()))
    })
    .unwrap();
    for way in [way, back] {
        assert_eq!(
            send(&mut fence, &flow, way, ACK),
            Dropped,
            "after the second edge"
        );
    }
    assert_eq!(
        fence.hits(RULE).min(1),
        1,
        "the first period's rule decided"
    );
    fence.hits(RuleSlot(41)) >= 1
}

/// A schedule whose periods are over, except for the last.
fn put_past_periods(fence: &mut Fence, at: (u32, PolicyKey), periods: u8) {
    let now = fence.now();
    let mut rows: Vec<_> = (1..periods)
        .map(|_| PolicyRow::until(DENY, now, DENY))
        .collect();
    rows.push(PolicyRow::lasting(Verdict::Allow, RULE));
    put_schedule(fence, at, &rows);
}

#[test]
fn periods_are_followed_up_to_the_limit() {
    for (way, direction) in WAYS {
        for periods in 1..=MAX_PERIODS + 1 {
            let mut fence = Fence::new();
            put_past_periods(
                &mut fence,
                any_port(TABLE, FRIENDS, direction, TCP),
                periods,
            );
            for v6 in [false, true] {
                let flow = flow(way, v6, 40000);
                let outcome = send(&mut fence, &flow, way, SYN);
                let expected = if periods <= MAX_PERIODS {
                    Passed
                } else {
                    Dropped
                };
                assert_eq!(outcome, expected, "{way:?}, {periods} periods");
            }
            let failed_closed = fence.count(DropReason::NoPolicyRow).0;
            assert_eq!(failed_closed, if periods <= MAX_PERIODS { 0 } else { 2 });
        }
    }
}

#[test]
fn a_missing_period_row_fails_closed() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        let now = fence.now();
        // The rows of any class do not replace the missing period row.
        for period in 0..3 {
            let any = later(any_protocol(TABLE, ClassId::ANY, direction), period);
            fence.put_row(any, PolicyRow::lasting(Verdict::Allow, RuleSlot(41)));
        }
        let at = exact(TABLE, FRIENDS, direction, TCP, 80);
        let has_next = PolicyRow::until(ALLOW, now, ALLOW).with(row::NEXT_PERIOD);
        fence.put_row(at, has_next);
        for v6 in [false, true] {
            let flow = flow(way, v6, 40000);
            let frame = if way == Leaving {
                flow.outbound(TCP, SYN)
            } else {
                flow.inbound(TCP, SYN)
            };
            fence.denies(
                way,
                &frame,
                DropReason::NoPolicyRow,
                "no row for the next period",
            );
        }
        let lasting = PolicyRow::until(ALLOW, FOREVER, ALLOW);
        fence.put_row(later(at, 1), lasting);
        for v6 in [false, true] {
            let outcome = send(&mut fence, &flow(way, v6, 40001), way, SYN);
            assert_eq!(outcome, Passed, "control: with the row");
        }
        assert_eq!(fence.hits(RuleSlot(41)), 0);
    }
}
