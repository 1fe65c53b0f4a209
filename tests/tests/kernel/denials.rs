//! A million denials while nobody reads: none gets through, and every one is accounted for.
//!
//! Some kinds of denial have thousands of packets, others come by once and are never seen again, so
//! that both the ring and the map of kinds (of 1024 in these tests) have too little room.

use std::net::{IpAddr, Ipv6Addr};

use ringfence_common::{
    event::{EventKind, FlowEvent},
    mode::{Direction, Verdict},
    reason::DropReason,
};

use crate::fence::{Arriving, Dropped, FRIEND, Fence, LOCAL, Leaving, OTHER, Way};
use crate::frames::{UDP, frame, udp};

const SENT: u64 = 1_000_000;
/// Packets of a kind that has many, and of one that has few, at a time.
const MANY: u32 = 1000;
const FEW: u32 = 12;

/// A datagram between the workload and a peer, to a port of the one or the other.
fn datagram(way: Way, peer: IpAddr, port: u16) -> Vec<u8> {
    let own = LOCAL.ip(peer.is_ipv6());
    let (from, to) = if way == Leaving {
        (own, peer)
    } else {
        (peer, own)
    };
    frame(from, to, UDP, &udp(40_000, port, 4))
}

/// Packets that records of denials stand for.
fn told(events: &[FlowEvent]) -> u64 {
    let denied = |event: &&FlowEvent| event.kind == EventKind::Denied as u8;
    assert!(events.iter().all(|e| e.verdict == Verdict::Deny as u8));
    events
        .iter()
        .filter(denied)
        .map(|event| event.packets)
        .sum()
}

#[test]
fn a_million_denials_without_a_reader_are_all_accounted_for() {
    let mut fence = Fence::new();
    let (mut sent, mut place) = (0, 0_u32);
    while sent < SENT {
        place += 1;
        let way = if place.is_multiple_of(3) {
            Arriving
        } else {
            Leaving
        };
        let v6 = place.is_multiple_of(2);
        let (peer, port, count) = if place.is_multiple_of(80) {
            (FRIEND, 53, MANY)
        } else {
            let port = u16::try_from(place % 60_000).unwrap();
            (OTHER, 100 + port % 60_000, FEW)
        };
        let count = u64::from(count).min(SENT - sent);
        let frame = datagram(way, peer.ip(v6), port);
        let fate = fence.run_as(way, &frame, 0, u32::try_from(count).unwrap());
        assert_eq!(fate, Dropped);
        sent += count;
    }
    assert_eq!(fence.reasons(), [(DropReason::Policy, SENT, 0)]);
    let denials = fence.denials();
    assert_eq!(denials.written + denials.waiting + denials.lost, SENT);
    assert!(denials.waiting > 0 && denials.lost > 0, "{denials:?}");
    let counters = fence.counters();
    assert!(counters.events_lost > 0, "the ring had room: {counters:?}");

    // Now the reader is back: what was written is there, and not a packet more.
    let mut received = told(&fence.events());
    assert_eq!(received, denials.written);

    // The kinds that are still known tell the rest with their next packet.
    for kind in fence.make_reports_due() {
        let peer = Ipv6Addr::from(kind.peer.to_wire()).to_canonical();
        let way = if kind.direction == Direction::Egress as u8 {
            Leaving
        } else {
            Arriving
        };
        let frame = datagram(way, peer, kind.port.number());
        assert_eq!(fence.run(way, &frame), Dropped);
        sent += 1;
    }
    received += told(&fence.events());
    let denials = fence.denials();
    assert_eq!((denials.written, denials.waiting), (received, 0));
    assert_eq!(received + denials.lost, sent);
    assert_eq!(fence.reasons(), [(DropReason::Policy, sent, 0)]);
}

#[test]
fn a_report_tells_of_the_packets_since_the_last_one() {
    let mut fence = Fence::new();
    let frame = datagram(Leaving, FRIEND.ip(false), 53);
    fence.run_as(Leaving, &frame, 0, 10);
    assert_eq!(told(&fence.events()), 1, "the first is told at once");
    let denials = fence.denials();
    assert_eq!((denials.written, denials.waiting, denials.lost), (1, 9, 0));
    for _ in 0..2 {
        fence.make_reports_due();
        fence.run_as(Leaving, &frame, 0, 10);
    }
    let events = fence.events();
    let packets: Vec<_> = events.iter().map(|event| event.packets).collect();
    assert_eq!(packets, [10, 10]);
    let length = frame.len() as u64;
    assert!(events.iter().all(|event| event.bytes == 10 * length));
    assert_eq!(fence.denials().waiting, 9);
}
