//! Rejected packets: the reject packet that is sent, and that no other packet passes as one.

use std::net::IpAddr;
use std::time::Duration;

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode, Verdict},
    policy::{PolicyRow, row},
    reject::REJECTS_PER_SECOND,
};
use ringfence_testbed::{eventually, frame::checksum};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, IFINDEX, LOCAL, Leaving, OTHER, Passed, RULE,
    Rejected, TABLE, Way, any_port, any_protocol,
};
use crate::frames::{
    ACK, FIN, Flow, IP, PSH, RST, SCTP, SYN, TCP, UDP, echo, fragment, frame, icmp_error, icmp_of,
    packet, tcp, udp, with,
};

const WAYS: [(Way, Direction); 2] = [(Leaving, Direction::Egress), (Arriving, Direction::Ingress)];

fn cases() -> impl Iterator<Item = (Way, Direction, bool)> {
    WAYS.into_iter()
        .flat_map(|(way, direction)| [false, true].map(|v6| (way, direction, v6)))
}

const fn opposite(way: Way) -> Way {
    match way {
        Leaving => Arriving,
        _ => Leaving,
    }
}

/// A fence whose rule rejects everything from and to [`FRIEND`].
fn rejecting() -> Fence {
    let mut fence = Fence::new();
    for (_, direction) in WAYS {
        let row = PolicyRow::lasting(Verdict::Deny, RULE).with(row::REJECT | row::THEN_REJECT);
        fence.put_row(any_protocol(TABLE, FRIENDS, direction), row);
    }
    fence
}

/// Source and destination of a packet at a hook.
fn ends(way: Way, v6: bool) -> (IpAddr, IpAddr) {
    let (local, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
    match way {
        Leaving => (local, peer),
        _ => (peer, local),
    }
}

fn sent(way: Way, v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(way, v6);
    frame(from, to, protocol, payload)
}

fn bytes_of(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The payload of a reject packet's IP header; checks all headers before it and the checksums.
#[track_caller]
fn body(way: Way, v6: bool, original: &[u8], reject: &[u8], protocol: u8) -> Vec<u8> {
    assert_eq!(reject[..6], original[6..12], "back to the sender");
    assert_eq!(reject[6..12], original[..6]);
    assert_eq!(reject[12..14], original[12..14]);
    let (to, from) = ends(way, v6);
    let ends = [bytes_of(from), bytes_of(to)].concat();
    let (header, body) = reject[IP..].split_at(if v6 { 40 } else { 20 });
    let length = u16::try_from(body.len()).unwrap();
    if v6 {
        assert_eq!(header[..4], [0x60, 0, 0, 0]);
        assert_eq!(header[4..6], length.to_be_bytes());
        assert_eq!(header[6..8], [protocol, 64]);
        assert_eq!(header[8..], ends);
    } else {
        assert_eq!(header[..2], [0x45, 0]);
        assert_eq!(header[2..4], (length + 20).to_be_bytes());
        assert_eq!(header[4..10], [0, 0, 0x40, 0, 64, protocol]);
        assert_eq!(header[12..], ends);
        assert_eq!(checksum(&[header]), 0);
    }
    let pseudo = [&ends[..], &[0, protocol], &length.to_be_bytes()].concat();
    let sum = if v6 || protocol == TCP {
        checksum(&[&pseudo, body])
    } else {
        checksum(&[body])
    };
    assert_eq!(sum, 0, "{reject:02x?}");
    body.to_vec()
}

#[test]
fn a_rejected_tcp_segment_is_answered_with_a_reset() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        // `tcp` has sequence and acknowledgement number 1.
        for (flags, data, seq, ack, control) in [
            (SYN, 0, 0, 2, RST | ACK),
            (SYN, 5, 0, 7, RST | ACK),
            (SYN | ACK, 0, 1, 0, RST),
            (ACK | PSH, 100, 1, 0, RST),
            (FIN | ACK, 0, 1, 0, RST),
        ] {
            let mut segment = tcp(40000, 443, flags);
            segment.resize(20 + data, 0x5a);
            let original = sent(way, v6, TCP, &segment);
            let reject = fence.reject_packet(way, &original);
            let body = body(way, v6, &original, &reject, TCP);
            assert_eq!(body[..4], [1, 0xbb, 0x9c, 0x40], "ports");
            assert_eq!(body[4..8], u32::to_be_bytes(seq), "{flags:#x}");
            assert_eq!(body[8..12], u32::to_be_bytes(ack), "{flags:#x}");
            assert_eq!(body[12..14], [0x50, control], "{flags:#x}");
            assert_eq!(body.len(), 20);
        }
        assert_eq!(fence.counters().rejects_sent, 5);
        assert_eq!(fence.count(DropReason::Policy), (5, 0));
        assert!(fence.hits(RULE) == 5);
        let event = fence.events()[0];
        assert_eq!(
            (event.rejected, event.reason),
            (1, DropReason::Policy as u8)
        );
    }
}

#[test]
fn other_rejected_packets_are_answered_with_icmp_unreachable() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let (port, prohibited) = if v6 {
            ([1, 4], [1, 1])
        } else {
            ([3, 3], [3, 13])
        };
        for (protocol, payload, code) in [
            (UDP, udp(40000, 53, 0), port),
            (UDP, udp(40000, 53, 1000), port),
            (SCTP, vec![9; 12], prohibited),
            (icmp_of(v6), echo(v6, 7), prohibited),
            (47, vec![7; 8], prohibited),
        ] {
            let original = sent(way, v6, protocol, &payload);
            let reject = fence.reject_packet(way, &original);
            let body = body(way, v6, &original, &reject, icmp_of(v6));
            assert_eq!(body[..2], code, "protocol {protocol}");
            assert_eq!(body[4..8], [0; 4]);
            let quoted = IP + if v6 { 48 } else { 28 };
            assert_eq!(body[8..], original[IP..quoted], "protocol {protocol}");
        }
        assert_eq!(fence.counters().rejects_sent, 5);
    }
}

#[test]
fn packets_that_must_not_be_answered_are_dropped_silently() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let (from, to) = ends(way, v6);
        let syn = sent(way, v6, TCP, &tcp(40000, 443, SYN));
        let long = fragment((from, to), UDP, (0, true, 9), &udp(40000, 53, 8));
        let later = fragment((from, to), UDP, (2, false, 9), &[0; 8]);
        let silent = [
            ("a reset", sent(way, v6, TCP, &tcp(40000, 443, RST))),
            ("a reset", sent(way, v6, TCP, &tcp(40000, 443, RST | ACK))),
            ("a broadcast frame", with(syn.clone(), 0, &[0xff; 6])),
            ("less than eight bytes", sent(way, v6, 47, &[0; 7])),
        ];
        for (what, frame) in &silent {
            assert_eq!(fence.run(way, frame), Dropped, "{what}");
        }
        // IPv6 fragments have an extension header, so no reject packet is sent for them.
        let first = if v6 { Dropped } else { Rejected };
        assert_eq!(fence.run(way, &long), first, "a first fragment");
        assert_eq!(fence.run(way, &later), Dropped, "a later fragment");
        let quoted = packet(to, from, UDP, &udp(53, 40000, 4));
        let kind = if v6 { (1, 4) } else { (3, 3) };
        let error = sent(way, v6, icmp_of(v6), &icmp_error(kind.0, kind.1, &quoted));
        assert_eq!(fence.run(way, &error), Dropped, "an ICMP error");
        assert_eq!(fence.run(way, &syn), Rejected, "control");
    }
}

#[test]
fn multicast_and_broadcast_packets_are_not_answered() {
    let mut fence = rejecting();
    for (group, v6) in [
        ("224.0.0.251", false),
        ("255.255.255.255", false),
        ("ff02::fb", true),
    ] {
        let group: IpAddr = group.parse().unwrap();
        fence.write(Action::PutAddress(group, crate::fence::FRIEND_IDENTITY));
        let frame = frame(LOCAL.ip(v6), group, UDP, &udp(5353, 5353, 8));
        assert_eq!(fence.run(Leaving, &frame), Dropped, "{group}");
        assert_eq!(fence.events()[0].rejected, 1, "{group}");
    }
    assert_eq!(fence.counters().rejects_failed, 3);
}

#[test]
fn reject_packets_are_sent_only_in_enforce() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let syn = sent(way, v6, TCP, &tcp(40000, 443, SYN));
        for (mode, outcome) in [
            (Mode::Enforce, Rejected),
            (Mode::Observe, Passed),
            // There is an entry now, with a verdict that rejects.
            (Mode::Lockdown, Dropped),
            (Mode::Enforce, Rejected),
        ] {
            fence.set_mode(mode);
            assert_eq!(fence.run(way, &syn), outcome, "{way:?} in {mode:?}");
        }
        fence.set_mode(Mode::Observe);
        fence.edit(|endpoint| endpoint.mode_override = Mode::Lockdown as u8);
        assert_eq!(
            fence.run(way, &syn),
            Dropped,
            "the endpoint's mode override"
        );
    }
}

#[test]
fn a_rule_that_denies_sends_no_reject_packet() {
    for (way, direction, v6) in cases() {
        let mut fence = rejecting();
        let deny = PolicyRow::lasting(Verdict::Deny, RULE);
        fence.put_row(any_port(TABLE, FRIENDS, direction, UDP), deny);
        let datagram = sent(way, v6, UDP, &udp(40000, 53, 8));
        assert_eq!(fence.run(way, &datagram), Dropped);
        let syn = sent(way, v6, TCP, &tcp(40000, 443, SYN));
        assert_eq!(fence.run(way, &syn), Rejected, "control");
        // A packet that is denied because no decision could be made is not rejected.
        assert_eq!(fence.run(way, &datagram), Dropped, "after a rejected one");
        fence.edit(|endpoint| endpoint.table = TableId(99));
        assert_eq!(fence.run(way, &syn), Dropped, "without rows");
    }
}

#[test]
fn an_established_flow_that_a_new_rule_rejects_is_reset_at_both_ends() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let flow = Flow {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        };
        fence.passes(Leaving, &flow.outbound(TCP, SYN), "the SYN");
        fence.passes(Arriving, &flow.inbound(TCP, SYN | ACK), "the SYN+ACK");
        fence.deny_by_default(TableId(8));
        let reject = PolicyRow::lasting(Verdict::Deny, RULE).with(row::REJECT);
        fence.put_row(any_protocol(TableId(8), FRIENDS, Direction::Egress), reject);
        fence.edit(|endpoint| endpoint.table = TableId(8));
        // The first packet is re-evaluated, the others use the entry.
        for _ in 0..3 {
            assert_eq!(fence.run(Arriving, &flow.inbound(TCP, ACK | PSH)), Rejected);
            assert_eq!(fence.run(Leaving, &flow.outbound(TCP, ACK | PSH)), Rejected);
        }
    }
}

#[test]
fn a_reject_packet_passes_the_other_hook_once() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let other_hook = opposite(way);
        for (protocol, payload) in [(TCP, tcp(40000, 443, SYN)), (UDP, udp(40000, 53, 40))] {
            let original = sent(way, v6, protocol, &payload);
            let reject = fence.reject_packet(way, &original);
            assert_eq!(fence.run(way, &reject), Dropped, "at the same hook");
            assert_eq!(fence.run(other_hook, &reject), Passed, "{way:?} {protocol}");
            assert_eq!(fence.run(other_hook, &reject), Dropped, "a second time");
        }
    }
}

#[test]
fn a_modified_reject_packet_does_not_pass() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let other_hook = opposite(way);
        for (protocol, payload) in [(TCP, tcp(40000, 443, SYN)), (UDP, udp(40000, 53, 40))] {
            let original = sent(way, v6, protocol, &payload);
            let reject = fence.reject_packet(way, &original);
            // Also what no checksum of the record covers, such as the IP header's type of service.
            for at in IP..reject.len() {
                // A packet that is not a reject packet may itself be rejected.
                let other = with(reject.clone(), at, &[reject[at] ^ 0x10]);
                assert_ne!(
                    fence.run(other_hook, &other),
                    Passed,
                    "byte {at} of {protocol}"
                );
            }
            let longer = [&reject[..], &[0; 4]].concat();
            assert_eq!(
                fence.run(other_hook, &longer),
                Dropped,
                "with bytes after its end, {protocol}"
            );
            let length = if v6 { IP + 4 } else { IP + 2 };
            let total = u16::from_be_bytes([longer[length], longer[length + 1]]) + 4;
            let longer = with(longer, length, &total.to_be_bytes());
            assert_eq!(
                fence.run(other_hook, &longer),
                Dropped,
                "longer, {protocol}"
            );
            fence.set_mode(Mode::Lockdown);
            let other = fence.run(way, &original);
            assert_eq!(other, Dropped, "lockdown");
            fence.set_mode(Mode::Enforce);
            assert_eq!(
                fence.run(other_hook, &reject),
                Passed,
                "control: the reject packet itself"
            );
        }
    }
}

/// A bridge floods packets to other hosts. A reject packet about one would have another host's address
/// as its source, and the other hook would report the workload for it.
#[test]
fn packets_to_other_hosts_are_not_answered() {
    for v6 in [false, true] {
        let mut fence = rejecting();
        let syn = frame(FRIEND.ip(v6), OTHER.ip(v6), TCP, &tcp(40000, 443, SYN));
        assert_eq!(fence.arriving(&syn), Dropped);
        assert_eq!(fence.events()[0].rejected, 1);
        let counters = fence.counters();
        assert_eq!((counters.rejects_sent, counters.rejects_failed), (0, 1));
        let control = sent(Arriving, v6, TCP, &tcp(40000, 443, SYN));
        assert_eq!(fence.run(Arriving, &control), Rejected, "control");
    }
}

#[test]
fn a_reject_packet_of_the_other_family_does_not_pass() {
    let mapped = |ip| match ip {
        IpAddr::V4(ip) => IpAddr::from(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => panic!(),
    };
    let mut fence = rejecting();
    let original = sent(Leaving, false, TCP, &tcp(40000, 443, SYN));
    let reject = fence.reject_packet(Leaving, &original);
    let (from, to) = ends(Arriving, false);
    let other = frame(mapped(from), mapped(to), TCP, &reject[IP + 20..]);
    assert_eq!(
        fence.arriving(&other),
        Dropped,
        "the same packet in the other family"
    );
    fence.passes(Arriving, &reject, "control: the reject packet itself");
    fence.set_mode(Mode::Observe);
    assert_eq!(fence.arriving(&other), Passed, "control: in observe");
}

#[test]
fn reject_packets_are_rate_limited() {
    let mut fence = rejecting();
    let syn = sent(Leaving, false, TCP, &tcp(40000, 443, SYN));
    let start = fence.now();
    let count = 3 * REJECTS_PER_SECOND;
    for _ in 0..count {
        fence.run(Leaving, &syn);
    }
    let seconds = (fence.now() - start) / 1_000_000_000 + 2;
    let counters = fence.counters();
    let (sent, limited) = (counters.rejects_sent, counters.rejects_limited);
    // An earlier test may have used up a part of the first second.
    assert!(sent > 0 && sent <= seconds * REJECTS_PER_SECOND, "{sent}");
    assert_eq!(sent + limited, count);
    assert!(limited > 0 || seconds > 3, "{sent} in {seconds} s");
    assert_eq!(fence.count(DropReason::Policy).0, count, "all are dropped");
    eventually(Duration::from_secs(5), "the next second", || {
        Ok((fence.run(Leaving, &syn) == Rejected).then_some(()))
    })
    .unwrap();
}

#[test]
fn packets_of_an_unknown_endpoint_are_not_rejected() {
    let mut fence = rejecting();
    let syn = sent(Leaving, false, TCP, &tcp(40000, 443, SYN));
    assert_eq!(fence.run(Leaving, &syn), Rejected, "control");
    fence.write(Action::DeleteEndpoint(IFINDEX));
    assert_eq!(fence.run(Leaving, &syn), Dropped);
}
