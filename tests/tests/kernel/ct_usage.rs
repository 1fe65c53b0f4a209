//! Conntrack under attack: unreplied flows cannot evict assured ones, and no endpoint can fill the
//! maps.
//!
//! The maps of these tests are smaller than the agent's, and so are the quotas.

use std::collections::BTreeSet;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
    quota::{Quota, UNREPLIED_TIMEOUT, unreplied_capacity},
};

use crate::fence::{
    Arriving, FRIEND, FRIENDS, Fence, IFINDEX, LOCAL, Leaving, Outcome, RULE, exact,
};
use crate::frames::{ACK, FIN, Flow, PSH, RST, SYN, TCP, UDP, echo, echo_reply, frame};
use crate::loaded::CONNTRACK;

/// The endpoint's policy table after a change.
const NEXT: TableId = TableId(8);
const QUOTA: Quota = Quota::of(CONNTRACK);

/// A connection of the workload from a port to port 443 of [`FRIEND`].
fn connection(v6: bool, port: u16) -> Flow {
    Flow {
        v6,
        local: (LOCAL, port),
        peer: (FRIEND, 443),
    }
}

fn establish(fence: &mut Fence, flow: &Flow) {
    fence.passes(Leaving, &flow.outbound(TCP, SYN), "the SYN");
    fence.passes(Arriving, &flow.inbound(TCP, SYN | ACK), "the SYN+ACK");
    fence.passes(Leaving, &flow.outbound(TCP, ACK), "the ACK");
    fence.passes(Leaving, &flow.outbound(TCP, ACK | PSH), "the first data");
}

/// Datagrams from different ports of [`FRIEND`]: flows that the workload's quota does not limit.
fn flood_from_outside(fence: &mut Fence, v6: bool, count: u32) {
    for number in 0..count {
        let [high, _, port @ ..] = number.to_be_bytes();
        let flow = Flow {
            v6,
            local: (LOCAL, 53 + u16::from(high)),
            peer: (FRIEND, u16::from_be_bytes(port)),
        };
        fence.arriving(&flow.inbound(UDP, 0));
    }
}

#[test]
fn a_flood_of_unreplied_flows_evicts_no_assured_entry() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        fence.allow(Direction::Ingress, UDP, 53);
        let established: Vec<Flow> = (1000..1200).map(|port| connection(v6, port)).collect();
        for flow in &established {
            establish(&mut fence, flow);
        }
        let half_open = connection(v6, 999);
        fence.passes(Leaving, &half_open.outbound(TCP, SYN), "the SYN");
        let unused = connection(v6, 998);
        fence.passes(Leaving, &unused.outbound(TCP, SYN), "the SYN");
        fence.passes(Arriving, &unused.inbound(TCP, SYN | ACK), "the SYN+ACK");
        fence.passes(Leaving, &unused.outbound(TCP, ACK), "the ACK, and no data");
        assert_eq!(fence.assured(), established.len());

        flood_from_outside(&mut fence, v6, 65_536);
        let reply = half_open.inbound(TCP, SYN | ACK);
        assert_eq!(
            fence.arriving(&reply),
            Outcome::Dropped,
            "control: the flood evicted an unreplied entry"
        );
        // The kernel's LRU keeps entries that were looked up again, which an unreplied entry is
        // not.
        let greeting = unused.inbound(TCP, ACK | PSH);
        fence.passes(Arriving, &greeting, "a server that sends first, and late");
        for flow in &established {
            let data = flow.inbound(TCP, ACK | PSH);
            fence.passes(Arriving, &data, "only the entry allows it");
            fence.passes(Leaving, &flow.outbound(TCP, ACK), "the other direction");
        }
        assert_eq!(fence.assured(), established.len() + 1);
    }
}

#[test]
fn unreplied_flows_of_a_workload_are_limited_and_counted() {
    for number in [TCP, UDP] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, number, 443);
        let sent = 4 * QUOTA.unreplied;
        let mut passed = 0;
        for port in 0..sent {
            let flow = connection(port % 2 == 1, u16::try_from(port).unwrap());
            passed += u32::from(fence.leaving(&flow.outbound(number, SYN)) == Outcome::Passed);
        }
        // The charge of the first ones may expire while the others are sent.
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
fn observe_counts_flows_over_the_limit_and_lets_them_pass() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, UDP, 443);
    fence.set_mode(Mode::Observe);
    let mut last = None;
    for port in 0..3 * QUOTA.unreplied {
        let flow = connection(false, u16::try_from(port).unwrap());
        assert_eq!(fence.leaving(&flow.outbound(UDP, 0)), Outcome::Passed);
        last = Some(flow);
    }
    let (dropped, observed) = fence.count(DropReason::FlowLimit);
    assert_eq!(dropped, 0);
    assert!(observed > u64::from(QUOTA.unreplied), "{observed}");
    // The reply to a flow that passed in spite of the limit is not counted again.
    fence.passes(Arriving, &last.unwrap().inbound(UDP, 0), "its reply");
}

#[test]
fn replied_flows_are_not_charged() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    for port in 0..2 * QUOTA.unreplied {
        let flow = connection(false, u16::try_from(port).unwrap());
        establish(&mut fence, &flow);
        fence.passes(Arriving, &flow.inbound(TCP, RST), "reset by the peer");
    }
    assert_eq!(fence.assured(), 0);
    let ping = |fence: &mut Fence, id: u32| {
        let id = u16::try_from(id).unwrap();
        let request = echo(false, id);
        let (local, friend) = (LOCAL.ip(false), FRIEND.ip(false));
        fence.passes(Leaving, &frame(local, friend, 1, &request), "a request");
        let reply = echo_reply(false, id);
        fence.passes(Arriving, &frame(friend, local, 1, &reply), "its reply");
    };
    fence.allow_friends();
    for id in 0..2 * QUOTA.unreplied {
        ping(&mut fence, id);
    }
}

/// Otherwise the refunds of one port pair that is refused again and again would pay for a flood.
#[test]
fn a_restarted_connection_is_charged_again() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let refused = connection(false, 1);
    let mut passed = 0;
    for port in 2..2 + 2 * QUOTA.unreplied {
        let flow = connection(false, u16::try_from(port).unwrap());
        passed += u32::from(fence.leaving(&flow.outbound(TCP, SYN)) == Outcome::Passed);
        if fence.leaving(&refused.outbound(TCP, SYN)) == Outcome::Passed {
            fence.passes(Arriving, &refused.inbound(TCP, RST | ACK), "refused");
        }
    }
    assert!(passed < QUOTA.unreplied * 3 / 2, "{passed}");
}

#[test]
fn refused_connections_are_mostly_refunded() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    for port in 0..4 * QUOTA.unreplied {
        let flow = connection(false, u16::try_from(port).unwrap());
        fence.passes(Leaving, &flow.outbound(TCP, SYN), "a SYN");
        fence.passes(Arriving, &flow.inbound(TCP, RST | ACK), "refused");
    }
}

/// A scan that resets its connections leaves entries, so a part of each charge is kept.
#[test]
fn a_part_of_the_charge_is_kept_when_the_originator_resets() {
    for (last, kept) in [
        (ACK, 0),
        (RST, QUOTA.cost() / 64),
        (RST | ACK, QUOTA.cost() / 64),
    ] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let flow = connection(false, 1000);
        fence.passes(Leaving, &flow.outbound(TCP, SYN), "a SYN");
        let charged = fence.charged_until();
        fence.passes(Arriving, &flow.inbound(TCP, SYN | ACK), "the SYN+ACK");
        assert_eq!(
            fence.charged_until(),
            charged,
            "not refunded before the originator continues"
        );
        fence.passes(Leaving, &flow.outbound(TCP, last), "continued or reset");
        assert_eq!(charged - fence.charged_until(), QUOTA.cost() - kept);
    }
}

#[test]
fn a_closed_connection_is_no_longer_assured() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let flow = connection(v6, 1000);
        fence.passes(Leaving, &flow.outbound(TCP, SYN), "the SYN");
        fence.passes(Arriving, &flow.inbound(TCP, SYN | ACK), "the SYN+ACK");
        fence.passes(Leaving, &flow.outbound(TCP, ACK), "the ACK");
        assert_eq!(fence.assured(), 0, "no data yet");
        fence.passes(Arriving, &flow.inbound(TCP, ACK | PSH), "the first data");
        assert_eq!(fence.assured(), 1);
        fence.passes(Arriving, &flow.inbound(TCP, FIN | ACK), "half closed");
        assert_eq!(fence.assured(), 1);
        fence.passes(Leaving, &flow.outbound(TCP, FIN | ACK), "closed");
        assert_eq!(fence.assured(), 0);
        fence.passes(Arriving, &flow.inbound(TCP, ACK), "the last ACK");
        establish(&mut fence, &flow);
        assert_eq!(fence.assured(), 1, "the same ports again");
    }
}

#[test]
fn an_allowed_syn_in_the_reply_direction_replaces_an_assured_entry() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        fence.allow(Direction::Ingress, TCP, 1000);
        let flow = connection(v6, 1000);
        establish(&mut fence, &flow);
        fence.passes(Arriving, &flow.inbound(TCP, SYN), "a SYN that is allowed");
        assert_eq!(fence.assured(), 0, "the new flow is unreplied");
        fence.deny_by_default(NEXT);
        fence.put_row(
            exact(NEXT, FRIENDS, Direction::Egress, TCP, 443),
            PolicyRow::lasting(Verdict::Allow, RULE),
        );
        fence.edit(|endpoint| endpoint.table = NEXT);
        let reply = flow.outbound(TCP, SYN | ACK);
        let what = "evaluated in the new flow's direction";
        fence.denies(Leaving, &reply, DropReason::Policy, what);
    }
}

#[test]
fn a_connection_that_continues_after_a_reset_is_assured_again() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let flow = connection(false, 1000);
    establish(&mut fence, &flow);
    fence.passes(
        Arriving,
        &flow.inbound(TCP, RST),
        "for example out of the TCP window",
    );
    assert_eq!(fence.assured(), 0);
    fence.passes(Leaving, &flow.outbound(TCP, ACK | PSH), "more data");
    fence.passes(Arriving, &flow.inbound(TCP, ACK | PSH), "more data");
    assert_eq!(fence.assured(), 1);
}

#[test]
fn an_endpoints_assured_flows_are_limited_to_its_quota() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let quota = usize::try_from(QUOTA.assured).unwrap();
    let last = u16::try_from(quota + 10).unwrap();
    for port in 0..last {
        establish(&mut fence, &connection(false, port));
    }
    assert_eq!(fence.assured(), quota);
    let beyond = connection(false, last - 1);
    fence.passes(
        Arriving,
        &beyond.inbound(TCP, ACK | PSH),
        "the flow beyond the quota still works",
    );
    let closed = connection(false, 0);
    fence.passes(Arriving, &closed.inbound(TCP, RST), "one entry fewer");
    establish(&mut fence, &connection(false, last));
    assert_eq!(fence.assured(), quota, "another flow uses the room");
}

#[test]
fn a_sweep_removes_expired_entries_and_those_of_unknown_endpoints() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let quota = u64::from(QUOTA.assured);
    for port in 0..u16::try_from(quota).unwrap() {
        establish(&mut fence, &connection(port % 2 == 0, port));
    }
    let endpoints = BTreeSet::from([IFINDEX]);
    let now = fence.clocks().ticks;
    let sweep = fence.sweep(now, &endpoints);
    assert_eq!(
        (sweep.assured, sweep.removed),
        (quota, 0),
        "none has expired"
    );
    let sweep = fence.sweep(now + 9000 * UNREPLIED_TIMEOUT / 30, &endpoints);
    assert_eq!(
        (sweep.assured, sweep.removed),
        (0, quota),
        "all have expired by then"
    );
    let flow = connection(false, 60_000);
    establish(&mut fence, &flow);
    assert_eq!(fence.assured(), 1, "there is room again");
    let sweep = fence.sweep(now, &BTreeSet::new());
    assert_eq!(
        (sweep.assured, sweep.removed),
        (0, 1),
        "the endpoint is not in the set"
    );
    fence.denies(
        Arriving,
        &flow.inbound(TCP, ACK | PSH),
        DropReason::Policy,
        "the entry is gone",
    );
}

#[test]
fn the_size_of_the_unreplied_maps_follows_the_configured_capacity() {
    assert_eq!(unreplied_capacity(CONNTRACK), CONNTRACK / 2);
    assert_eq!(QUOTA.unreplied, CONNTRACK / 16);
}
