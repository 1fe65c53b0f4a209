//! A million denied packets without a reader: none passes, and every one is accounted for.
//!
//! Some deny aggregates count thousands of packets, others a few that are never seen again; both
//! the event ring and the map of aggregates (512 entries in these tests) are too small.

use std::net::{IpAddr, Ipv6Addr};

use ringfence_common::{
    drop_reason::DropReason,
    event::{EventKind, FlowEvent},
    maps::EVENTS_BYTES,
    mode::{Direction, Mode, Verdict},
    net::Port,
    quota::{AGGREGATE_BURST, AGGREGATES_PER_SECOND},
};

use crate::fence::{Arriving, Dropped, FRIEND, Fence, LOCAL, Leaving, OTHER, Passed, Way};
use crate::frames::{UDP, frame, udp};

/// Size of a record in the ring, without its header.
const RECORD: u32 = 96;
const SENT: u64 = 1_000_000;
/// Packets sent at once for an aggregate with many packets, and for one with few.
const MANY: u32 = 1000;
const FEW: u32 = 12;

/// A datagram between the workload and a peer, to the given port of the receiver.
fn datagram(way: Way, peer: IpAddr, port: u16) -> Vec<u8> {
    let own = LOCAL.ip(peer.is_ipv6());
    let (from, to) = if way == Leaving {
        (own, peer)
    } else {
        (peer, own)
    };
    frame(from, to, UDP, &udp(40_000, port, 4))
}

/// Number of packets that the records of denied packets stand for.
fn reported(events: &[FlowEvent]) -> u64 {
    let denied = |event: &&FlowEvent| event.kind == EventKind::Denied as u8;
    let denied = events.iter().filter(denied);
    denied
        .map(|event| {
            assert_eq!(event.verdict, Verdict::Deny as u8);
            event.packets
        })
        .sum()
}

/// Fills the ring up to room for some hundred records. Returns the number of records in it.
fn fill_ring(fence: &mut Fence) -> usize {
    fence.allow(Direction::Ingress, UDP, 9);
    let flows = EVENTS_BYTES / (RECORD + 8) - 300;
    for port in 0..flows {
        let from = u16::try_from(port).unwrap();
        let (friend, own) = (FRIEND.ip(false), LOCAL.ip(false));
        let frame = frame(friend, own, UDP, &udp(from, 9, 4));
        assert_eq!(fence.arriving(&frame), Passed);
    }
    usize::try_from(flows).unwrap()
}

#[test]
fn a_million_denials_without_a_reader_are_all_accounted_for() {
    let mut fence = Fence::new();
    fence.set_mode(Mode::Observe);
    for (way, peer, port) in [(Leaving, FRIEND, 53), (Arriving, OTHER, 100)] {
        for v6 in [false, true] {
            let frame = datagram(way, peer.ip(v6), port);
            assert_eq!(
                fence.run(way, &frame),
                Passed,
                "control: observe lets it pass"
            );
        }
    }
    drop(fence);

    let mut fence = Fence::new();
    let others = fill_ring(&mut fence);
    let (mut sent, mut round) = (0, 0_u32);
    while sent < SENT {
        round += 1;
        let way = if round.is_multiple_of(3) {
            Arriving
        } else {
            Leaving
        };
        let v6 = round.is_multiple_of(2);
        let (peer, port, count) = if round.is_multiple_of(80) {
            (FRIEND, 53, MANY)
        } else {
            let port = u16::try_from(round % 60_000).unwrap();
            (OTHER, 100 + port % 60_000, FEW)
        };
        let count = u64::from(count).min(SENT - sent);
        let frame = datagram(way, peer.ip(v6), port);
        let outcome = fence.run_with(way, &frame, 0, u32::try_from(count).unwrap());
        assert_eq!(outcome, Dropped);
        sent += count;
    }
    assert_eq!(fence.reasons(), [(DropReason::Policy, SENT, 0)]);
    let denials = fence.denials();
    assert_eq!(denials.written + denials.waiting + denials.lost, SENT);
    assert!(denials.waiting > 0 && denials.lost > 0, "{denials:?}");
    let counters = fence.counters();
    assert!(counters.events_lost > 0, "the ring had room: {counters:?}");

    // A reader starts: what was written is in the ring, and nothing else.
    let events = fence.events();
    let mut received = reported(&events);
    assert_eq!(received, denials.written);
    assert!(received > 0 && events.len() > others, "some records fitted");

    // The aggregates still in the map report the rest with their next packet.
    for key in fence.make_reports_due() {
        let peer = Ipv6Addr::from(key.peer.to_wire()).to_canonical();
        let way = if key.direction == Direction::Egress as u8 {
            Leaving
        } else {
            Arriving
        };
        if !peer.is_unspecified() {
            let frame = datagram(way, peer, key.port.number());
            assert_eq!(fence.run(way, &frame), Dropped);
            sent += 1;
            continue;
        }
        // The aggregate of everything beyond the per-endpoint limit of detailed aggregates.
        for port in 61_000..63_000 {
            let frame = datagram(way, OTHER.ip(peer.is_ipv6()), port);
            assert_eq!(fence.run(way, &frame), Dropped);
            sent += 1;
        }
        received += reported(&fence.events());
    }
    received += reported(&fence.events());
    let denials = fence.denials();
    assert_eq!(denials.written, received);
    assert_eq!(received + denials.waiting + denials.lost, sent);
    assert!(denials.waiting < 10_000, "{denials:?}");
    assert_eq!(fence.reasons(), [(DropReason::Policy, sent, 0)]);
}

#[test]
fn a_report_counts_the_packets_since_the_previous_report() {
    let mut fence = Fence::new();
    let frame = datagram(Leaving, FRIEND.ip(false), 53);
    fence.run_with(Leaving, &frame, 0, 10);
    assert_eq!(
        reported(&fence.events()),
        1,
        "the first packet is reported at once"
    );
    let denials = fence.denials();
    assert_eq!((denials.written, denials.waiting, denials.lost), (1, 9, 0));
    for _ in 0..2 {
        fence.make_reports_due();
        fence.run_with(Leaving, &frame, 0, 10);
    }
    let events = fence.events();
    let packets: Vec<_> = events.iter().map(|event| event.packets).collect();
    assert_eq!(packets, [10, 10]);
    let length = frame.len() as u64;
    assert!(events.iter().all(|event| event.bytes == 10 * length));
    assert_eq!(fence.denials().waiting, 9);
}

#[test]
fn a_scan_is_aggregated_by_rule_and_protocol() {
    let mut fence = Fence::new();
    let sent = 20_000_u32;
    for port in 1..=sent {
        let v6 = port.is_multiple_of(2);
        let frame = datagram(Leaving, FRIEND.ip(v6), u16::try_from(port).unwrap());
        assert_eq!(fence.leaving(&frame), Dropped);
    }
    let events = fence.events();
    let most = AGGREGATE_BURST + 10 * AGGREGATES_PER_SECOND;
    assert!(
        (AGGREGATE_BURST..most).contains(&(events.len() as u64)),
        "{}",
        events.len()
    );
    let without_port = |event: &&FlowEvent| event.peer_port == Port::NONE;
    for family in [4, 6] {
        let of_family = events.iter().filter(|event| event.family == family);
        assert_eq!(of_family.filter(without_port).count(), 1, "IPv{family}");
    }
    let denials = fence.denials();
    assert_eq!(
        denials.written + denials.waiting + denials.lost,
        u64::from(sent)
    );
    assert!(denials.waiting > u64::from(sent / 2), "{denials:?}");
}
