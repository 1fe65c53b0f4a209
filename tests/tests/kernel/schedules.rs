//! Rows of later steps: the kernel follows them by its own clock, without the agent.

use std::time::Duration;

use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, RuleSlot},
    mode::{Direction, Verdict},
    policy::{FOREVER, MAX_PERIODS, PolicyKey, PolicyRow, row},
};
use ringfence_testbed::eventually;

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fate, Fence, LOCAL, Leaving, Passed, RULE, Rejected, TABLE,
    Way, exact, key, protocol,
};
use crate::frames::{ACK, PSH, SYN, TCP, Talk};

const WAYS: [(Way, Direction); 2] = [(Leaving, Direction::Egress), (Arriving, Direction::Ingress)];
const DENY: (Verdict, RuleSlot) = (Verdict::Deny, RuleSlot::DEFAULT_DENY);
const ALLOW: (Verdict, RuleSlot) = (Verdict::Allow, RULE);
/// Far enough for two tests' packets on a busy machine.
const MOMENT: u64 = 150_000_000;

/// The same row at a later step.
fn later((bits, mut key): (u32, PolicyKey), step: u8) -> (u32, PolicyKey) {
    key.direction += step * PolicyKey::PERIOD;
    (bits, key)
}

/// Writes the rows of a course, all but the last of which lead on.
fn course(fence: &mut Fence, at: (u32, PolicyKey), rows: &[PolicyRow]) {
    for (step, row) in (0..).zip(rows) {
        let leads_on = usize::from(step) + 1 < rows.len();
        let row = if leads_on {
            row.with(row::NEXT_PERIOD)
        } else {
            *row
        };
        fence.put(later(at, step), row);
    }
}

fn talk(way: Way, v6: bool, port: u16) -> Talk {
    let (local, peer) = if way == Leaving {
        (port, 80)
    } else {
        (80, port)
    };
    Talk {
        v6,
        local: (LOCAL, local),
        peer: (FRIEND, peer),
    }
}

fn send(fence: &mut Fence, talk: &Talk, way: Way, flags: u8) -> Fate {
    let frame = if way == Leaving {
        talk.out(TCP, flags)
    } else {
        talk.back(TCP, flags)
    };
    fence.run(way, &frame)
}

/// Plays a test with longer and longer moments, until the machine did not stand still through one.
fn undisturbed(play: impl Fn(u64) -> bool) {
    let moments = [MOMENT, 4 * MOMENT, 16 * MOMENT];
    assert!(moments.into_iter().any(play), "never undisturbed");
}

#[test]
fn a_rule_begins_and_ends_on_time() {
    for (way, direction) in WAYS {
        undisturbed(|moment| begins_and_ends(way, direction, moment));
    }
}

/// True if packets were seen before, in and after the rule's time.
fn begins_and_ends(way: Way, direction: Direction, moment: u64) -> bool {
    let mut fence = Fence::new();
    let begins = fence.now() + moment;
    let ends = begins + moment;
    let rows = [
        PolicyRow::until(DENY, begins, ALLOW),
        PolicyRow::until(ALLOW, ends, DENY).with(row::THEN_REJECT),
    ];
    course(&mut fence, exact(TABLE, FRIENDS, direction, TCP, 80), &rows);
    let mut seen = Vec::new();
    let mut v6 = false;
    eventually(Duration::from_secs(20), "the end of the rule", || {
        // A new flow each time; the clock is read on both sides of it.
        fence.forget_flows();
        v6 = !v6;
        let before = fence.now();
        let fate = send(&mut fence, &talk(way, v6, 40000), way, SYN);
        let after = fence.now();
        let expected = |now| match now {
            _ if now < begins => Dropped,
            _ if now < ends => Passed,
            _ => Rejected,
        };
        let right = [before, after].map(expected).contains(&fate);
        let skipped = before < begins && after >= ends && fate == Passed;
        assert!(
            right || skipped,
            "{way:?}: {fate:?} between {before} and {after}, {begins} to {ends}"
        );
        seen.push(fate);
        Ok((fate == Rejected).then_some(()))
    })
    .unwrap();
    [Dropped, Passed, Rejected]
        .iter()
        .all(|fate| seen.contains(fate))
}

#[test]
fn an_established_flow_stops_at_the_second_edge() {
    for (way, direction) in WAYS {
        for v6 in [false, true] {
            undisturbed(|moment| stops_at_the_second_edge(way, direction, v6, moment));
        }
    }
}

/// True if packets were seen before each edge.
fn stops_at_the_second_edge(way: Way, direction: Direction, v6: bool, moment: u64) -> bool {
    let mut fence = Fence::new();
    let first = fence.now() + moment;
    let second = first + moment;
    let next = (Verdict::Allow, RuleSlot(41));
    let rows = [
        PolicyRow::until(ALLOW, first, next),
        PolicyRow::until(next, second, DENY),
    ];
    course(&mut fence, exact(TABLE, FRIENDS, direction, TCP, 80), &rows);
    let talk = talk(way, v6, 40000);
    let back = if way == Leaving { Arriving } else { Leaving };
    let opened =
        [(way, SYN), (back, SYN | ACK)].map(|(way, flags)| send(&mut fence, &talk, way, flags));
    if fence.now() >= first {
        return false;
    }
    assert_eq!(opened, [Passed; 2]);
    let mut turn = back;
    eventually(Duration::from_secs(20), "the second edge", || {
        turn = if turn == way { back } else { way };
        let before = fence.now();
        let fate = send(&mut fence, &talk, turn, ACK | PSH);
        let after = fence.now();
        assert!(after >= second || fate == Passed, "ended too early");
        assert!(before < second || fate == Dropped, "outlived its time");
        Ok((fate == Dropped).then_some(()))
    })
    .unwrap();
    for way in [way, back] {
        assert_eq!(send(&mut fence, &talk, way, ACK), Dropped, "afterwards");
    }
    assert_eq!(fence.hits(RULE).min(1), 1, "the first step decided");
    fence.hits(RuleSlot(41)) >= 1
}

/// Rows whose times have passed, up to one that holds.
fn past(fence: &mut Fence, at: (u32, PolicyKey), steps: u8) {
    let now = fence.now();
    let mut rows: Vec<_> = (1..steps)
        .map(|_| PolicyRow::until(DENY, now, DENY))
        .collect();
    rows.push(PolicyRow::lasting(Verdict::Allow, RULE));
    course(fence, at, &rows);
}

#[test]
fn steps_are_followed_to_the_last() {
    for (way, direction) in WAYS {
        for steps in 1..=MAX_PERIODS + 1 {
            let mut fence = Fence::new();
            past(&mut fence, protocol(TABLE, FRIENDS, direction, TCP), steps);
            for v6 in [false, true] {
                let talk = talk(way, v6, 40000);
                let fate = send(&mut fence, &talk, way, SYN);
                let expected = if steps <= MAX_PERIODS {
                    Passed
                } else {
                    Dropped
                };
                assert_eq!(fate, expected, "{way:?}, {steps} steps");
            }
            let doubts = fence.count(DropReason::NoPolicyRow).0;
            assert_eq!(doubts, if steps <= MAX_PERIODS { 0 } else { 2 });
        }
    }
}

#[test]
fn a_missing_step_denies() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        let now = fence.now();
        // What the any-class row says does not replace the step.
        for step in 0..3 {
            let any = later(key(TABLE, ClassId::ANY, direction), step);
            fence.put(any, PolicyRow::lasting(Verdict::Allow, RuleSlot(41)));
        }
        let at = exact(TABLE, FRIENDS, direction, TCP, 80);
        let leads_on = PolicyRow::until(ALLOW, now, ALLOW).with(row::NEXT_PERIOD);
        fence.put(at, leads_on);
        for v6 in [false, true] {
            let talk = talk(way, v6, 40000);
            let frame = if way == Leaving {
                talk.out(TCP, SYN)
            } else {
                talk.back(TCP, SYN)
            };
            fence.refuses(way, &frame, DropReason::NoPolicyRow, "no next step");
        }
        let lasting = PolicyRow::until(ALLOW, FOREVER, ALLOW);
        fence.put(later(at, 1), lasting);
        for v6 in [false, true] {
            let fate = send(&mut fence, &talk(way, v6, 40001), way, SYN);
            assert_eq!(fate, Passed, "control: with the step");
        }
        assert_eq!(fence.hits(RuleSlot(41)), 0);
    }
}
