//! Conntrack under attack: no flood costs another endpoint, or the endpoint's own open connections,
//! an entry, and nothing that policy allows is dropped for it.
//!
//! The tables of these tests are smaller than the agent's, and so are the shares.

use std::net::IpAddr;

use ringfence::plan::Action;
use ringfence_common::{
    SECOND,
    conntrack::unreplied::WAYS,
    drop_reason::DropReason,
    endpoint::Endpoint,
    ids::TableId,
    mode::{Direction, Mode, Verdict},
    net::{Ip4, Ip6},
    policy::PolicyRow,
    quota::{Share, unreplied_sets},
};

use crate::fence::{
    Arriving, FRIEND, FRIENDS, Fence, Hairpin, IFINDEX, LOCAL, Leaving, Outcome, RULE, TABLE,
    any_protocol, exact,
};
use crate::frames::{ACK, FIN, Flow, PSH, RST, SYN, TCP, UDP, echo, echo_reply, frame, icmp_of};
use crate::loaded::CONNTRACK;

/// The endpoint's policy table after a change.
const NEXT: TableId = TableId(8);

/// The share of each of some endpoints.
fn share(endpoints: u32) -> Share {
    Share::of(CONNTRACK, endpoints)
}

/// Entries that both unreplied tables have room for.
fn ways() -> usize {
    2 * unreplied_sets(CONNTRACK) as usize * WAYS
}

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

/// Datagrams from different ports of [`FRIEND`].
fn flood_from_outside(fence: &mut Fence, v6: bool, count: u32) {
    for number in 0..count {
        let [high, _, port @ ..] = number.to_be_bytes();
        let flow = Flow {
            v6,
            local: (LOCAL, 53 + u16::from(high)),
            peer: (FRIEND, u16::from_be_bytes(port)),
        };
        fence.passes(Arriving, &flow.inbound(UDP, 0), "policy allows the flood");
    }
}

#[test]
fn a_flood_evicts_unreplied_entries_and_no_open_connection() {
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
        let what = "control: the flood evicted an unreplied entry";
        fence.denies(Arriving, &reply, DropReason::ReplyForgotten, what);
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

/// Its reply makes it worth more than an unreplied flow at once, also within a second.
#[test]
fn an_answered_echo_outlives_a_flood() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        let row = PolicyRow::lasting(Verdict::Allow, RULE);
        fence.put_row(any_protocol(TABLE, FRIENDS, Direction::Egress), row);
        fence.allow(Direction::Ingress, UDP, 53);
        let (own, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
        let request = |id| frame(own, peer, icmp_of(v6), &echo(v6, id));
        let reply = |id| frame(peer, own, icmp_of(v6), &echo_reply(v6, id));
        fence.passes(Leaving, &request(1), "a request");
        fence.passes(Leaving, &request(2), "another");
        fence.passes(Arriving, &reply(2), "its reply");
        // Some 32 flows for each set; many more take longer than the entries live on a busy machine.
        flood_from_outside(&mut fence, v6, 16_384);
        let what = "control: the flood evicted an unreplied entry";
        fence.denies(Arriving, &reply(1), DropReason::ReplyForgotten, what);
        fence.passes(Arriving, &reply(2), "a duplicate of the reply");
    }
}

/// A closed connection needs its entry for seconds only; a client still waits for what a server sends.
#[test]
fn closed_connections_are_replaced_before_an_answered_udp_flow() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        for number in [TCP, UDP] {
            fence.allow(Direction::Egress, number, 443);
        }
        let query = connection(v6, 999);
        fence.passes(Leaving, &query.outbound(UDP, 0), "the query");
        fence.passes(Arriving, &query.inbound(UDP, 0), "the first answer");
        for port in 1000..21_000 {
            let scanned = connection(v6, port);
            fence.passes(Leaving, &scanned.outbound(TCP, SYN), "the SYN");
            fence.passes(Arriving, &scanned.inbound(TCP, SYN | ACK), "the SYN+ACK");
            fence.passes(Leaving, &scanned.outbound(TCP, ACK), "the ACK");
            fence.passes(Leaving, &scanned.outbound(TCP, RST), "closed without data");
        }
        assert_eq!(fence.assured(), 0, "no data, no assured entry");
        assert!(
            fence.counters().flows_recycled > 0,
            "control: more than the table holds"
        );
        let first = connection(v6, 1000).inbound(TCP, ACK | PSH);
        let what = "control: a closed connection's entry was replaced";
        fence.denies(Arriving, &first, DropReason::ReplyForgotten, what);
        fence.passes(Arriving, &query.inbound(UDP, 0), "the second answer");
    }
}

#[test]
fn one_way_flows_beyond_the_share_pass_and_replace_the_endpoints_own() {
    for number in [TCP, UDP] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, number, 443);
        let sent = 60_000;
        for port in 0..sent {
            let flow = connection(port % 2 == 1, port);
            fence.passes(Leaving, &flow.outbound(number, SYN), "policy allows it");
        }
        let counters = fence.counters();
        assert_eq!(counters.flows_allowed, u64::from(sent));
        assert_eq!(counters.flows_denied, 0);
        assert_eq!(counters.flows_not_stored, 0);
        assert!(
            counters.flows_recycled > 0,
            "control: more than the table holds"
        );
        let used = fence.unreplied();
        assert!(
            used <= ways() && used >= share(1).unreplied as usize,
            "{used}"
        );
        assert_eq!(fence.usage().unreplied, used as u64, "the account is exact");
        let newest = connection((sent - 1) % 2 == 1, sent - 1);
        fence.passes(
            Arriving,
            &newest.inbound(number, SYN | ACK),
            "the reply to the newest flow",
        );
    }
}

/// Among entries that expire at the same tick no way is always the first, so a flow outlives the next
/// one of its set.
#[test]
fn the_newest_flow_is_rarely_the_next_to_be_replaced() {
    const SETS: u16 = 16;
    const PAIRS: u16 = 4000;
    for v6 in [false, true] {
        let mut fence = Fence::with_conntrack(u32::from(SETS));
        fence.allow(Direction::Egress, UDP, 443);
        let mut send = |port| {
            let frame = connection(v6, port).outbound(UDP, 0);
            fence.passes(Leaving, &frame, "policy allows it");
        };
        for port in 0..10 * SETS * 8 {
            send(port);
        }
        for pair in 0..PAIRS {
            let port = 10_000 + 2 * pair;
            for port in [port, port + 1, port] {
                send(port);
            }
        }
        let sent = u64::from(10 * SETS * 8 + 2 * PAIRS);
        let again = fence.counters().flows_allowed - sent;
        // Of one set are a sixteenth of the pairs: 125. The next one takes an eighth of these.
        assert!(
            again < 50,
            "{again} of {PAIRS} flows were replaced by the next one"
        );
    }
}

#[test]
fn a_reply_to_a_replaced_flow_is_denied_and_named() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, UDP, 443);
    let first = connection(false, 1);
    fence.passes(Leaving, &first.outbound(UDP, 0), "the first flow");
    let unasked = connection(false, 60_001);
    fence.denies(
        Arriving,
        &unasked.inbound(UDP, 0),
        DropReason::Policy,
        "control: nothing was replaced yet",
    );
    for port in 2..60_000 {
        let flow = connection(false, port);
        fence.passes(Leaving, &flow.outbound(UDP, 0), "policy allows it");
    }
    let what = "its entry is gone";
    fence.denies(
        Arriving,
        &first.inbound(UDP, 0),
        DropReason::ReplyForgotten,
        what,
    );
    let other = Flow {
        peer: (FRIEND, 444),
        ..first
    };
    let what = "policy allows no flow that it could reply to";
    fence.denies(Arriving, &other.inbound(UDP, 0), DropReason::Policy, what);
}

#[test]
fn observe_lets_replies_to_replaced_flows_pass() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, UDP, 443);
    fence.set_mode(Mode::Observe);
    for port in 0..60_000 {
        let flow = connection(false, port);
        fence.passes(Leaving, &flow.outbound(UDP, 0), "observe");
    }
    let forgotten = connection(false, 0).inbound(UDP, 0);
    assert_eq!(fence.arriving(&forgotten), Outcome::Passed);
    assert_eq!(fence.count(DropReason::ReplyForgotten), (0, 1));
}

/// Another interface, with an endpoint that the flooder has to leave room for.
#[test]
fn an_endpoint_within_its_share_finds_room_during_a_flood() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, UDP, 443);
    let mut neighbour = Endpoint {
        table: TABLE,
        namespace: 3,
        ..Endpoint::default()
    };
    neighbour.ip4[0] = Ip4::from_wire([10, 0, 0, 77]);
    neighbour.ip6[0] = Ip6::default();
    fence.write(Action::PutEndpoint(IFINDEX + 1, neighbour));
    let limit = share(2).unreplied as usize;
    for port in 0..60_000 {
        let flow = connection(false, port);
        fence.passes(Leaving, &flow.outbound(UDP, 0), "policy allows it");
    }
    let (used, room) = (fence.unreplied(), ways() / 2);
    assert!(used > limit, "control: the flood exceeds its share");
    assert!(
        used <= room * 6 / 8 + limit,
        "a part is left to others: {used} of {room}"
    );
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
        assert_eq!(fence.usage().assured, 1, "the account is exact");
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

/// Only one of these tests' endpoints: it may use half of the map.
#[test]
fn an_endpoints_assured_flows_are_limited_to_its_share() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let limit = usize::try_from(share(1).assured).unwrap();
    let last = u16::try_from(limit + 10).unwrap();
    for port in 0..last {
        establish(&mut fence, &connection(false, port));
    }
    assert_eq!(fence.assured(), limit);
    let beyond = connection(false, last - 1);
    fence.passes(
        Arriving,
        &beyond.inbound(TCP, ACK | PSH),
        "the flow beyond the share still works",
    );
    let closed = connection(false, 0);
    fence.passes(Arriving, &closed.inbound(TCP, RST), "one entry fewer");
    establish(&mut fence, &connection(false, last));
    assert_eq!(fence.assured(), limit, "another flow uses the room");
}

/// The entry of a connection with a peer whose address becomes an own one.
#[test]
fn an_assured_flow_whose_peer_address_becomes_an_own_one_is_assured_no_longer() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let flow = connection(v6, 1000);
        establish(&mut fence, &flow);
        assert_eq!(fence.assured(), 1, "control: it is assured");
        fence.edit(|endpoint| {
            endpoint.table = NEXT;
            match FRIEND.ip(v6) {
                IpAddr::V4(ip) => endpoint.ip4[1] = Ip4::from_wire(ip.octets()),
                IpAddr::V6(ip) => endpoint.ip6[1] = Ip6::from_wire(ip.octets()),
            }
        });
        let frame = flow.inbound(TCP, ACK);
        for _ in 0..2 {
            fence.passes(Hairpin, &frame, "from an own address");
            fence.age_flows(10 * SECOND);
        }
        assert_eq!((fence.assured(), fence.usage().assured), (0, 0));
        fence.passes(Hairpin, &frame, "it still passes");
    }
}

/// They need no entry to be allowed, and would cost others theirs.
#[test]
fn flows_from_an_own_address_are_never_assured() {
    let mut fence = Fence::new();
    let from_itself = Flow {
        v6: false,
        local: (LOCAL, 443),
        peer: (LOCAL, 1000),
    };
    for _ in 0..3 {
        fence.passes(Hairpin, &from_itself.inbound(UDP, 0), "from itself");
        fence.passes(Hairpin, &from_itself.outbound(UDP, 0), "the reverse");
    }
    assert_eq!(fence.assured(), 0);
    assert!(fence.unreplied() > 0, "control: it has entries");
}

#[test]
fn a_sweep_removes_expired_entries_and_those_of_unknown_endpoints() {
    let mut fence = Fence::new();
    fence.allow(Direction::Egress, TCP, 443);
    let count = 1000;
    for port in 0..count {
        establish(&mut fence, &connection(port % 2 == 0, port));
    }
    let now = fence.clocks().ticks;
    let sweep = fence.sweep(now, &[IFINDEX]);
    assert_eq!(
        (sweep.assured, sweep.removed),
        (u64::from(count), 0),
        "none has expired"
    );
    let later = now + 9000 * ringfence_common::SECOND;
    let sweep = fence.sweep(later, &[IFINDEX]);
    assert_eq!(
        (sweep.assured, sweep.removed),
        (0, u64::from(count)),
        "all have expired by then"
    );
    assert_eq!(fence.usage().assured, 0, "the account is corrected");
    let flow = connection(false, 60_000);
    establish(&mut fence, &flow);
    assert_eq!(fence.assured(), 1, "there is room again");
    let sweep = fence.sweep(now, &[]);
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
