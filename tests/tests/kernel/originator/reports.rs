//! What is said about a packet of either direction: its event, its rule, its reject packet, and the
//! ICMP errors about it.

use ringfence_common::{
    drop_reason::DropReason,
    event::EventKind,
    ids::{RuleSlot, TableId},
    mode::{Direction, Mode, Verdict},
    policy::{PolicyRow, row},
};

use super::{PROTOCOLS, fence, flow, other, packet, table};
use crate::fence::{
    Arriving, Dropped, FRIENDS, Fence, FromHost, Leaving, Passed, RULE, Rejected, UNKNOWN_PEER,
    Way, any_protocol,
};
use crate::frames::{Flow, IP, frame, icmp_error, icmp_of};

const NEXT: TableId = TableId(50);
const FORWARD: RuleSlot = RuleSlot(50);
const BACKWARD: RuleSlot = RuleSlot(51);

const fn direction(way: Way) -> Direction {
    match way {
        Leaving => Direction::Egress,
        _ => Direction::Ingress,
    }
}

/// Makes [`NEXT`] a table with these rows for the originator and for the other side.
fn rules(fence: &mut Fence, originator: Way, forward: PolicyRow, backward: PolicyRow) {
    fence.put_row(any_protocol(NEXT, FRIENDS, direction(originator)), forward);
    let back = direction(other(originator));
    fence.put_row(any_protocol(NEXT, FRIENDS, back), backward);
}

fn deny(rule: RuleSlot) -> PolicyRow {
    PolicyRow::lasting(Verdict::Deny, rule)
}

fn cases() -> impl Iterator<Item = (u8, bool, Way)> {
    PROTOCOLS
        .into_iter()
        .flat_map(|(protocol, ..)| [false, true].map(|v6| (protocol, v6)))
        .flat_map(|(protocol, v6)| [Leaving, Arriving].map(|originator| (protocol, v6, originator)))
}

/// A flow that is allowed and answered.
fn open(fence: &mut Fence, protocol: u8, v6: bool, originator: Way) -> [Vec<u8>; 2] {
    let frames =
        [originator, other(originator)].map(|way| packet(&flow(v6, 20_000), way, protocol));
    fence.govern(originator, true, true);
    fence.passes(originator, &frames[0], "the originator");
    fence.passes(other(originator), &frames[1], "the reply");
    fence.events();
    frames
}

#[test]
fn a_packet_that_passes_by_its_own_direction_is_reported_with_it() {
    for (protocol, v6, originator) in cases() {
        let mut fence = fence();
        let allow = PolicyRow::lasting(Verdict::Allow, BACKWARD);
        rules(&mut fence, originator, deny(FORWARD), allow);
        let [first, answer] = open(&mut fence, protocol, v6, originator);
        fence.edit(|endpoint| endpoint.table = NEXT);
        for _ in 0..3 {
            fence.passes(other(originator), &answer, "by itself");
        }
        let events = fence.events();
        let said: Vec<_> = events
            .iter()
            .map(|it| (it.kind, it.verdict, it.direction, it.rule))
            .collect();
        let back = direction(other(originator)) as u8;
        let own = (EventKind::New as u8, Verdict::Allow as u8, back, BACKWARD);
        assert_eq!(said, [own], "once");
        assert_eq!((fence.hits(BACKWARD), fence.hits(FORWARD)), (1, 0));

        assert_eq!(fence.run(originator, &first), Dropped);
        let events = fence.events();
        let denied: Vec<_> = events
            .iter()
            .map(|it| (it.kind, it.reason, it.direction, it.rule))
            .collect();
        let reason = DropReason::Policy as u8;
        let own = (
            EventKind::Denied as u8,
            reason,
            direction(originator) as u8,
            FORWARD,
        );
        assert_eq!(denied, [own]);
    }
}

#[test]
fn packets_of_the_host_over_a_revoked_flow_are_reported_once() {
    for (protocol, v6, _) in cases().filter(|(.., originator)| *originator == Leaving) {
        let mut fence = fence();
        let frame = packet(&flow(v6, 20_000), Arriving, protocol);
        fence.govern(Leaving, true, true);
        fence.passes(
            Leaving,
            &packet(&flow(v6, 20_000), Leaving, protocol),
            "control",
        );
        fence.events();
        fence.govern(Leaving, false, false);
        for _ in 0..5 {
            fence.passes(FromHost, &frame, "a socket of the host");
        }
        let events = fence.events();
        let events: Vec<_> = events.iter().map(|it| (it.kind, it.rule)).collect();
        let own = (EventKind::New as u8, RuleSlot::HOST_INGRESS);
        assert_eq!(events, [own], "{protocol}");
        // More than a second apart, so that expiry is stored.
        for _ in 0..4 {
            fence.age_flows(2 * ringfence_common::SECOND);
            fence.passes(FromHost, &frame, "a socket of the host");
        }
        assert!(fence.events().is_empty(), "{protocol}");
        assert_eq!((fence.hits(RULE), fence.hits(RuleSlot(0))), (1, 0));
        assert_eq!(fence.run(Arriving, &frame), Dropped, "from elsewhere");
    }
}

#[test]
fn a_denied_packet_is_reported_with_its_own_direction_and_rule() {
    for (protocol, v6, originator) in cases() {
        for mode in [Mode::Enforce, Mode::Observe] {
            let mut fence = fence();
            rules(&mut fence, originator, deny(FORWARD), deny(BACKWARD));
            let [first, answer] = open(&mut fence, protocol, v6, originator);
            fence.edit(|endpoint| endpoint.table = NEXT);
            fence.set_mode(mode);
            let outcome = if mode == Mode::Enforce {
                Dropped
            } else {
                Passed
            };
            // More than a second apart, so that expiry is stored; in observe the entry moves to the
            // assured map meanwhile.
            for _ in 0..4 {
                fence.age_flows(2 * ringfence_common::SECOND);
                assert_eq!(fence.run(other(originator), &answer), outcome);
                assert_eq!(fence.run(originator, &first), outcome);
            }
            let hits = (fence.hits(FORWARD), fence.hits(BACKWARD));
            assert_eq!(
                hits,
                (4, 4),
                "one for each packet, {mode:?} {originator:?} {protocol}"
            );
            let events = fence.events();
            for (way, rule) in [(originator, FORWARD), (other(originator), BACKWARD)] {
                let of_way = events
                    .iter()
                    .filter(|it| it.direction == direction(way) as u8);
                let rules: Vec<_> = of_way.map(|it| it.rule).collect();
                assert_eq!(rules, [rule], "{mode:?} {way:?}");
            }
            let mut keys: Vec<_> = fence.make_reports_due();
            keys.sort_by_key(|key| key.rule.0);
            let keys: Vec<_> = keys.iter().map(|key| (key.rule, key.direction)).collect();
            let own = [
                (FORWARD, direction(originator) as u8),
                (BACKWARD, direction(other(originator)) as u8),
            ];
            assert_eq!(keys, own, "an aggregate for each");
        }
    }
}

#[test]
fn both_directions_with_an_unknown_peer_are_denied_for_that_reason() {
    for (protocol, v6, originator) in cases() {
        let mut fence = fence();
        let flow = Flow {
            peer: (UNKNOWN_PEER, 443),
            ..flow(v6, 20_000)
        };
        let back = other(originator);
        for (mode, outcome, counted) in [
            (Mode::Observe, Passed, (0, 5)),
            (Mode::Enforce, Dropped, (5, 5)),
        ] {
            fence.set_mode(mode);
            for way in [originator, back, back, originator, back] {
                assert_eq!(fence.run(way, &packet(&flow, way, protocol)), outcome);
            }
            let counted = (DropReason::UnknownPeer, counted.0, counted.1);
            assert_eq!(fence.reasons(), [counted], "{mode:?}");
        }
    }
}

#[test]
fn a_rule_that_rejects_the_other_direction_answers_each_packet() {
    for (protocol, v6, originator) in cases() {
        let mut fence = fence();
        let reject = deny(BACKWARD).with(row::REJECT | row::THEN_REJECT);
        rules(&mut fence, originator, deny(FORWARD), reject);
        let [first, answer] = open(&mut fence, protocol, v6, originator);
        fence.edit(|endpoint| endpoint.table = NEXT);
        for _ in 0..3 {
            assert_eq!(fence.run(other(originator), &answer), Rejected);
            assert_eq!(
                fence.run(originator, &first),
                Dropped,
                "its rule only drops"
            );
        }
        // And the reverse: the originator's rule rejects, and the other direction's does not.
        let reject = deny(FORWARD).with(row::REJECT | row::THEN_REJECT);
        fence.clear_flows();
        rules(&mut fence, originator, reject, deny(BACKWARD));
        open(&mut fence, protocol, v6, originator);
        fence.edit(|endpoint| endpoint.table = NEXT);
        for _ in 0..3 {
            assert_eq!(fence.run(other(originator), &answer), Dropped);
            assert_eq!(fence.run(originator, &first), Rejected);
        }
    }
}

/// An error to the sender of a frame, about it.
fn error(v6: bool, quoted: &[u8]) -> Vec<u8> {
    use std::net::IpAddr;
    let packet = &quoted[IP..];
    let (from, to) = if v6 {
        let part = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        (part(8), part(24))
    } else {
        let part = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        (part(12), part(16))
    };
    let kind = if v6 { (1, 4) } else { (3, 3) };
    frame(to, from, icmp_of(v6), &icmp_error(kind.0, kind.1, packet))
}

#[test]
fn an_error_passes_about_a_packet_that_passed_by_its_own_direction() {
    for (protocol, v6, originator) in cases() {
        let back = other(originator);
        let mut fence = fence();
        let [first, answer] = open(&mut fence, protocol, v6, originator);
        fence.passes(
            back,
            &error(v6, &first),
            "control: about the originator's packet",
        );
        fence.govern(originator, false, true);
        fence.passes(back, &answer, "by itself");
        fence.passes(originator, &error(v6, &answer), "about what passed");
        assert_eq!(fence.run(originator, &first), Dropped);
        let about_denied = error(v6, &first);
        let reason = DropReason::IcmpErrorUnmatched;
        fence.denies(back, &about_denied, reason, "about what was dropped");

        fence.edit(|endpoint| endpoint.table = table(false, false));
        assert_eq!(fence.run(back, &answer), Dropped);
        fence.denies(
            originator,
            &error(v6, &answer),
            reason,
            "neither direction is allowed",
        );
    }
}
