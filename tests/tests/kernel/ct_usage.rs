//! Conntrack under attack: attempts cannot push proven flows out, and nobody holds all of it.
//!
//! The maps of this fence are smaller than the agent's, and the quotas follow them.

use std::collections::BTreeSet;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
    quota::{Quota, UNREPLIED_TIMEOUT, unreplied_capacity},
};

use crate::fence::{Arriving, FRIEND, FRIENDS, Fate, Fence, IFINDEX, LOCAL, Leaving, RULE, exact};
use crate::frames::{ACK, FIN, PSH, RST, SYN, TCP, Talk, UDP, echo, echo_reply, frame};
use crate::loaded::CONNTRACK;

/// The endpoint's table after a change.
const NEXT: TableId = TableId(8);
const QUOTA: Quota = Quota::of(CONNTRACK);

/// The workload's connection from a port to its friend's port 443.
fn connection(v6: bool, port: u16) -> Talk {
    Talk {
        v6,
        local: (LOCAL, port),
        peer: (FRIEND, 443),
    }
}

fn establish(fence: &mut Fence, talk: &Talk) {
    fence.passes(Leaving, &talk.out(TCP, SYN), "opening");
    fence.passes(Arriving, &talk.back(TCP, SYN | ACK), "answering");
    fence.passes(Leaving, &talk.out(TCP, ACK), "going on");
    fence.passes(Leaving, &talk.out(TCP, ACK | PSH), "the first data");
}

/// Datagrams from ever other ports of the friend: attempts that no quota of the workload's limits.
fn flood_from_outside(fence: &mut Fence, v6: bool, count: u32) {
    for number in 0..count {
        let [high, _, port @ ..] = number.to_be_bytes();
        let talk = Talk {
            v6,
            local: (LOCAL, 53 + u16::from(high)),
            peer: (FRIEND, u16::from_be_bytes(port)),
        };
        fence.arriving(&talk.back(UDP, 0));
    }
}

#[test]
fn a_flood_of_attempts_costs_no_proven_flow_its_entry() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        fence.allow(Direction::Ingress, UDP, 53);
        let standing: Vec<Talk> = (1000..1200).map(|port| connection(v6, port)).collect();
        for talk in &standing {
            establish(&mut fence, talk);
        }
        let half_open = connection(v6, 999);
        fence.passes(Leaving, &half_open.out(TCP, SYN), "opening");
        let unused = connection(v6, 998);
        fence.passes(Leaving, &unused.out(TCP, SYN), "opening");
        fence.passes(Arriving, &unused.back(TCP, SYN | ACK), "answering");
        fence.passes(Leaving, &unused.out(TCP, ACK), "going on, and no more");
        assert_eq!(fence.assured(), standing.len());

        flood_from_outside(&mut fence, v6, 65_536);
        let answer = half_open.back(TCP, SYN | ACK);
        assert_eq!(
            fence.arriving(&answer),
            Fate::Dropped,
            "control: the flood pushed an attempt out"
        );
        // The kernel's LRU spares what was looked up since it came, which an unanswered attempt is not.
        let greeting = unused.back(TCP, ACK | PSH);
        fence.passes(Arriving, &greeting, "a server that speaks first, and late");
        for talk in &standing {
            let data = talk.back(TCP, ACK | PSH);
            fence.passes(Arriving, &data, "only its entry lets it in");
            fence.passes(Leaving, &talk.out(TCP, ACK), "the other way");
        }
        assert_eq!(fence.assured(), standing.len() + 1);
    }
}

#[test]
fn unanswered_attempts_of_a_workload_are_limited_and_counted() {
    for number in [TCP, UDP] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, number, 443);
        let sent = 4 * QUOTA.unreplied;
        let mut passed = 0;
        for port in 0..sent {
            let talk = connection(port % 2 == 1, u16::try_from(port).unwrap());
            passed += u32::from(fence.leaving(&talk.out(number, SYN)) == Fate::Passed);
        }
        // Some were forgotten while the others were sent.
        assert!(
            (QUOTA.unreplied..QUOTA.unreplied * 2).contains(&passed),
            "{passed}"
        );
        let limited = (u64::from(sent - passed), 0);
        assert_eq!(fence.count(DropReason::FlowLimit), limited);
        let counters = fence.counters();
        assert_eq!(counters.flows_allowed, u64::from(passed));
        assert_eq!(counters.flows_denied, u64::from(sent - passed));
    }
}

#[test]
fn observe_reports_the_limit_and_passes() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, UDP, 443);
    fence.set_mode(Mode::Observe);
    let mut last = None;
    for port in 0..3 * QUOTA.unreplied {
        let talk = connection(false, u16::try_from(port).unwrap());
        assert_eq!(fence.leaving(&talk.out(UDP, 0)), Fate::Passed);
        last = Some(talk);
    }
    let (dropped, observed) = fence.count(DropReason::FlowLimit);
    assert_eq!(dropped, 0);
    assert!(observed > u64::from(QUOTA.unreplied), "{observed}");
    // What went on in spite of the limit is no excess for ever.
    fence.passes(Arriving, &last.unwrap().back(UDP, 0), "its answer");
}

#[test]
fn answered_attempts_do_not_count() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    for port in 0..2 * QUOTA.unreplied {
        let talk = connection(false, u16::try_from(port).unwrap());
        establish(&mut fence, &talk);
        fence.passes(Arriving, &talk.back(TCP, RST), "refused after all");
    }
    assert_eq!(fence.assured(), 0);
    let ping = |fence: &mut Fence, id: u32| {
        let id = u16::try_from(id).unwrap();
        let request = echo(false, id);
        let (local, friend) = (LOCAL.ip(false), FRIEND.ip(false));
        fence.passes(Leaving, &frame(local, friend, 1, &request), "a question");
        let answer = echo_reply(false, id);
        fence.passes(Arriving, &frame(friend, local, 1, &answer), "an answer");
    };
    fence.allow_friends();
    for id in 0..2 * QUOTA.unreplied {
        ping(&mut fence, id);
    }
}

/// Else one pair of ports that is refused again and again would pay for a flood.
#[test]
fn a_connection_that_restarts_is_booked_again() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let refused = connection(false, 1);
    let mut passed = 0;
    for port in 2..2 + 2 * QUOTA.unreplied {
        let attempt = connection(false, u16::try_from(port).unwrap());
        passed += u32::from(fence.leaving(&attempt.out(TCP, SYN)) == Fate::Passed);
        if fence.leaving(&refused.out(TCP, SYN)) == Fate::Passed {
            fence.passes(Arriving, &refused.back(TCP, RST | ACK), "refused");
        }
    }
    assert!(passed < QUOTA.unreplied * 3 / 2, "{passed}");
}

#[test]
fn refused_attempts_hardly_count() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    for port in 0..4 * QUOTA.unreplied {
        let talk = connection(false, u16::try_from(port).unwrap());
        fence.passes(Leaving, &talk.out(TCP, SYN), "an attempt");
        fence.passes(Arriving, &talk.back(TCP, RST | ACK), "refused");
    }
}

/// A scan that asks and hangs up leaves entries, so a part of each booking stays.
#[test]
fn an_attempt_that_its_originator_resets_counts_a_little() {
    for (last, kept) in [
        (ACK, 0),
        (RST, QUOTA.cost() / 64),
        (RST | ACK, QUOTA.cost() / 64),
    ] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let talk = connection(false, 1000);
        fence.passes(Leaving, &talk.out(TCP, SYN), "an attempt");
        let booked = fence.charged_until();
        fence.passes(Arriving, &talk.back(TCP, SYN | ACK), "an answer");
        assert_eq!(fence.charged_until(), booked, "it is not known to be heard");
        fence.passes(Leaving, &talk.out(TCP, last), "gone on, or not wanted");
        assert_eq!(booked - fence.charged_until(), QUOTA.cost() - kept);
    }
}

#[test]
fn a_connection_that_ends_leaves_the_proven_ones() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let talk = connection(v6, 1000);
        fence.passes(Leaving, &talk.out(TCP, SYN), "opening");
        fence.passes(Arriving, &talk.back(TCP, SYN | ACK), "answering");
        fence.passes(Leaving, &talk.out(TCP, ACK), "going on");
        assert_eq!(fence.assured(), 0, "of no use yet");
        fence.passes(Arriving, &talk.back(TCP, ACK | PSH), "the first data");
        assert_eq!(fence.assured(), 1);
        fence.passes(Arriving, &talk.back(TCP, FIN | ACK), "half closed");
        assert_eq!(fence.assured(), 1);
        fence.passes(Leaving, &talk.out(TCP, FIN | ACK), "closed");
        assert_eq!(fence.assured(), 0);
        fence.passes(Arriving, &talk.back(TCP, ACK), "the last word");
        establish(&mut fence, &talk);
        assert_eq!(fence.assured(), 1, "the same ports again");
    }
}

#[test]
fn a_connection_against_a_proven_one_takes_its_place() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        fence.allow(Direction::Ingress, TCP, 1000);
        let talk = connection(v6, 1000);
        establish(&mut fence, &talk);
        fence.passes(Arriving, &talk.back(TCP, SYN), "allowed the other way");
        assert_eq!(fence.assured(), 0, "it is an attempt like any other");
        fence.deny_by_default(NEXT);
        fence.put(
            exact(NEXT, FRIENDS, Direction::Egress, TCP, 443),
            PolicyRow::lasting(Verdict::Allow, RULE),
        );
        fence.edit(|endpoint| endpoint.table = NEXT);
        let answer = talk.out(TCP, SYN | ACK);
        let what = "judged in the direction of the new one";
        fence.refuses(Leaving, &answer, DropReason::Policy, what);
    }
}

#[test]
fn a_reset_that_neither_end_believes_changes_nothing() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let talk = connection(false, 1000);
    establish(&mut fence, &talk);
    fence.passes(Arriving, &talk.back(TCP, RST), "out of the window, say");
    assert_eq!(fence.assured(), 0);
    fence.passes(Leaving, &talk.out(TCP, ACK | PSH), "going on");
    fence.passes(Arriving, &talk.back(TCP, ACK | PSH), "going on");
    assert_eq!(fence.assured(), 1);
}

#[test]
fn one_endpoint_holds_its_part_of_the_proven_flows_and_no_more() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let quota = usize::try_from(QUOTA.assured).unwrap();
    let last = u16::try_from(quota + 10).unwrap();
    for port in 0..last {
        establish(&mut fence, &connection(false, port));
    }
    assert_eq!(fence.assured(), quota);
    let beyond = connection(false, last - 1);
    fence.passes(Arriving, &beyond.back(TCP, ACK | PSH), "it works as before");
    let closed = connection(false, 0);
    fence.passes(Arriving, &closed.back(TCP, RST), "one less");
    establish(&mut fence, &connection(false, last));
    assert_eq!(fence.assured(), quota, "its room is taken");
}

#[test]
fn a_sweep_removes_the_dead_and_the_strangers() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let quota = u64::from(QUOTA.assured);
    for port in 0..u16::try_from(quota).unwrap() {
        establish(&mut fence, &connection(port % 2 == 0, port));
    }
    let ours = BTreeSet::from([IFINDEX]);
    let now = fence.clocks().ticks;
    let sweep = fence.sweep(now, &ours);
    assert_eq!((sweep.assured, sweep.removed), (quota, 0), "all alive");
    let sweep = fence.sweep(now + 9000 * UNREPLIED_TIMEOUT / 30, &ours);
    assert_eq!(
        (sweep.assured, sweep.removed),
        (0, quota),
        "all dead by then"
    );
    let talk = connection(false, 60_000);
    establish(&mut fence, &talk);
    assert_eq!(fence.assured(), 1, "there is room again");
    let sweep = fence.sweep(now, &BTreeSet::new());
    assert_eq!(
        (sweep.assured, sweep.removed),
        (0, 1),
        "no endpoint of ours"
    );
    fence.refuses(
        Arriving,
        &talk.back(TCP, ACK | PSH),
        DropReason::Policy,
        "nothing speaks for it",
    );
}

#[test]
fn the_maps_of_attempts_follow_the_configured_capacity() {
    assert_eq!(unreplied_capacity(CONNTRACK), CONNTRACK / 2);
    assert_eq!(QUOTA.unreplied, CONNTRACK / 16);
}
