//! Telemetry of the kernel programs: flow events, counters and rule hits.

use std::net::IpAddr;

use ringfence_common::{
    drop_reason::DropReason,
    event::EventKind,
    ids::{IdentityId, RuleSlot},
    mode::{Action, Direction, Mode, Verdict},
    net::{Address as _, Ip4, Ip6, Port},
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIEND_IDENTITY, Fence, IFINDEX, LOCAL, LOCAL_IDENTITY, Leaving,
    Passed, RULE, TABLE, UNKNOWN_PEER,
};
use crate::frames::{ACK, Flow, SYN, TCP, UDP, frame, framed, tcp};

fn wide(address: IpAddr) -> Ip6 {
    match address {
        IpAddr::V4(address) => Ip4::from_wire(address.octets()).widen(),
        IpAddr::V6(address) => Ip6::from_wire(address.octets()),
    }
}

#[test]
fn a_new_flow_causes_one_complete_flow_event() {
    for direction in [Direction::Egress, Direction::Ingress] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            fence.allow(direction, TCP, 443);
            let (flow, original, reply) = match direction {
                Direction::Egress => (
                    Flow {
                        v6,
                        local: (LOCAL, 40000),
                        peer: (FRIEND, 443),
                    },
                    Leaving,
                    Arriving,
                ),
                Direction::Ingress => (
                    Flow {
                        v6,
                        local: (LOCAL, 443),
                        peer: (FRIEND, 40000),
                    },
                    Arriving,
                    Leaving,
                ),
            };
            let syn = if original == Leaving {
                flow.outbound(TCP, SYN)
            } else {
                flow.inbound(TCP, SYN)
            };
            let before = fence.clocks().ticks;
            fence.passes(original, &syn, "the first packet");
            let after = fence.clocks().ticks;
            let events = fence.events();
            assert_eq!(events.len(), 1);
            let event = events[0];
            assert!((before..=after).contains(&event.time));
            assert_eq!(event.kind, EventKind::New as u8);
            assert_eq!((event.packets, event.bytes), (1, syn.len() as u64));
            assert_eq!(event.local, wide(LOCAL.ip(v6)));
            assert_eq!(event.peer, wide(FRIEND.ip(v6)));
            assert_eq!(event.local_port, Port::new(flow.local.1));
            assert_eq!(event.peer_port, Port::new(flow.peer.1));
            assert_eq!((event.ifindex, event.table), (IFINDEX, TABLE));
            assert_eq!(event.identity, LOCAL_IDENTITY);
            assert_eq!(event.peer_identity, FRIEND_IDENTITY);
            assert_eq!((event.rule, event.reason), (RULE, 0));
            assert_eq!((event.protocol, event.tcp), (TCP, SYN));
            assert_eq!(event.family, if v6 { 6 } else { 4 });
            assert_eq!(event.direction, direction as u8);
            assert_eq!(event.verdict, Verdict::Allow as u8);
            assert_eq!(event.action, Action::Pass as u8);
            assert_eq!(event.from_workload, u8::from(original == Leaving));
            assert!(!event.is_reply());

            let replies = [flow.outbound(TCP, SYN | ACK), flow.inbound(TCP, SYN | ACK)];
            let packet = &replies[usize::from(reply == Arriving)];
            for _ in 0..100 {
                fence.passes(reply, packet, "a reply");
            }
            assert_eq!(fence.events(), [], "none for packets of a known flow");
        }
    }
}

#[test]
fn a_thousand_denied_packets_cause_one_event_and_an_exact_count() {
    for (way, direction) in [(Leaving, Direction::Egress), (Arriving, Direction::Ingress)] {
        for v6 in [false, true] {
            let mut fence = Fence::new();
            let flow = Flow {
                v6,
                local: (LOCAL, 5000),
                peer: (FRIEND, 6000),
            };
            let frame = if way == Leaving {
                flow.outbound(UDP, 0)
            } else {
                flow.inbound(UDP, 0)
            };
            assert_eq!(fence.run_with(way, &frame, 0, 1000), Dropped);
            assert_eq!(fence.reasons(), [(DropReason::Policy, 1000, 0)]);
            assert_eq!(fence.hits(RuleSlot::DEFAULT_DENY), 1000);
            let counters = fence.counters();
            assert_eq!((counters.flows_denied, counters.flows_allowed), (1000, 0));
            assert_eq!((counters.events_written, counters.events_lost), (1, 0));
            let events = fence.events();
            assert_eq!(events.len(), 1);
            let event = events[0];
            assert_eq!(event.kind, EventKind::Denied as u8);
            assert_eq!((event.packets, event.bytes), (1, frame.len() as u64));
            assert_eq!(event.local, wide(LOCAL.ip(v6)));
            assert_eq!(event.peer, wide(FRIEND.ip(v6)));
            assert_eq!(event.local_port, Port::new(5000));
            assert_eq!(event.peer_port, Port::new(6000));
            assert_eq!(event.peer_identity, FRIEND_IDENTITY);
            assert_eq!(event.rule, RuleSlot::DEFAULT_DENY);
            assert_eq!(event.reason, DropReason::Policy as u8);
            assert_eq!((event.protocol, event.tcp), (UDP, 0));
            assert_eq!(event.direction, direction as u8);
            assert_eq!(event.verdict, Verdict::Deny as u8);
            assert_eq!(event.action, Action::Drop as u8);

            // Another port or action is another aggregate and is reported on its own.
            let other = Flow {
                peer: (FRIEND, 6001),
                local: (LOCAL, 5001),
                v6,
            };
            let other = if way == Leaving {
                other.outbound(UDP, 0)
            } else {
                other.inbound(UDP, 0)
            };
            fence.run_with(way, &other, 0, 10);
            fence.set_mode(Mode::Observe);
            assert_eq!(fence.run_with(way, &frame, 0, 10), Passed);
            let events = fence.events();
            assert_eq!(events.len(), 2);
            assert_eq!(events[1].action, Action::Pass as u8);
            assert_eq!(fence.reasons(), [(DropReason::Policy, 1010, 10)]);
        }
    }
}

#[test]
fn denied_packets_without_a_flow_are_reported() {
    let mut fence = Fence::new();
    let spoofed = frame(
        UNKNOWN_PEER.ip(false),
        FRIEND.ip(false),
        TCP,
        &tcp(1, 2, SYN),
    );
    fence.run(Leaving, &spoofed);
    fence.run(Leaving, &framed(0x88cc, &[0; 60]));
    let unknown = Flow {
        v6: true,
        local: (LOCAL, 80),
        peer: (UNKNOWN_PEER, 9),
    };
    fence.run(Arriving, &unknown.inbound(TCP, SYN));
    let events = fence.events();
    let reported: Vec<_> = events
        .iter()
        .map(|e| (e.reason, e.family, e.protocol))
        .collect();
    assert_eq!(
        reported,
        [
            (DropReason::SpoofedSource as u8, 4, TCP),
            (DropReason::Ethertype as u8, 0, 0),
            (DropReason::UnknownPeer as u8, 6, TCP),
        ]
    );
    for event in &events {
        assert_eq!(event.kind, EventKind::Denied as u8);
        assert_eq!(event.peer_identity, IdentityId::UNKNOWN);
        assert_eq!(event.rule, RuleSlot::NONE);
    }
    assert_eq!(
        events[0].local,
        wide(UNKNOWN_PEER.ip(false)),
        "the address in the packet"
    );
}

#[test]
fn events_lost_to_a_full_ring_are_counted() {
    let mut fence = Fence::new();
    fence.allow(Direction::Ingress, UDP, 53);
    let room = ringfence_common::maps::EVENTS_BYTES / 104;
    let mut sent = 0_u64;
    // Every source port is a new flow and causes an event; conntrack evicts old flows.
    for port in 1..=u16::MAX {
        let flow = Flow {
            v6: false,
            local: (LOCAL, 53),
            peer: (FRIEND, port),
        };
        fence.arriving(&flow.inbound(UDP, 0));
        sent += 1;
        if sent > u64::from(room) + 100 {
            break;
        }
    }
    let counters = fence.counters();
    assert!(counters.events_lost >= 100, "{counters:?}");
    assert_eq!(counters.events_lost + counters.events_written, sent);
    assert_eq!(fence.events().len() as u64, counters.events_written);
}
