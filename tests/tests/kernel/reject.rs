//! Rejected packets: what their sender is told, and that nothing else passes for such an answer.

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
    Arriving, Dropped, FRIEND, FRIENDS, Fence, IFINDEX, LOCAL, Leaving, Passed, RULE, Rejected,
    TABLE, Way, key, protocol,
};
use crate::frames::{
    ACK, FIN, IP, PSH, RST, SCTP, SYN, TCP, Talk, UDP, about, echo, fragment, frame, icmp_of,
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

/// A fence whose rule rejects whatever friends are asked, in both directions.
fn rejecting() -> Fence {
    let mut fence = Fence::new();
    for (_, direction) in WAYS {
        let row = PolicyRow::lasting(Verdict::Deny, RULE).with(row::REJECT | row::THEN_REJECT);
        fence.put(key(TABLE, FRIENDS, direction), row);
    }
    fence
}

/// Source and destination of a packet that shows at a hook.
fn ends(way: Way, v6: bool) -> (IpAddr, IpAddr) {
    let (local, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
    match way {
        Leaving => (local, peer),
        _ => (peer, local),
    }
}

fn sent(way: Way, v6: bool, number: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(way, v6);
    frame(from, to, number, payload)
}

fn bytes_of(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// What follows the IP header of an answer to a frame; checks everything before it, and the sums.
#[track_caller]
fn body(way: Way, v6: bool, asked: &[u8], answer: &[u8], number: u8) -> Vec<u8> {
    assert_eq!(answer[..6], asked[6..12], "back to who sent it");
    assert_eq!(answer[6..12], asked[..6]);
    assert_eq!(answer[12..14], asked[12..14]);
    let (to, from) = ends(way, v6);
    let ends = [bytes_of(from), bytes_of(to)].concat();
    let (header, body) = answer[IP..].split_at(if v6 { 40 } else { 20 });
    let length = u16::try_from(body.len()).unwrap();
    if v6 {
        assert_eq!(header[..4], [0x60, 0, 0, 0]);
        assert_eq!(header[4..6], length.to_be_bytes());
        assert_eq!(header[6..8], [number, 64]);
        assert_eq!(header[8..], ends);
    } else {
        assert_eq!(header[..2], [0x45, 0]);
        assert_eq!(header[2..4], (length + 20).to_be_bytes());
        assert_eq!(header[4..10], [0, 0, 0x40, 0, 64, number]);
        assert_eq!(header[12..], ends);
        assert_eq!(checksum(&[header]), 0);
    }
    let pseudo = [&ends[..], &[0, number], &length.to_be_bytes()].concat();
    let sum = if v6 || number == TCP {
        checksum(&[&pseudo, body])
    } else {
        checksum(&[body])
    };
    assert_eq!(sum, 0, "{answer:02x?}");
    body.to_vec()
}

#[test]
fn a_segment_is_reset() {
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
            let asked = sent(way, v6, TCP, &segment);
            let answer = fence.answer(way, &asked);
            let body = body(way, v6, &asked, &answer, TCP);
            assert_eq!(body[..4], [1, 0xbb, 0x9c, 0x40], "ports");
            assert_eq!(body[4..8], u32::to_be_bytes(seq), "{flags:#x}");
            assert_eq!(body[8..12], u32::to_be_bytes(ack), "{flags:#x}");
            assert_eq!(body[12..14], [0x50, control], "{flags:#x}");
            assert_eq!(body.len(), 20);
        }
        assert_eq!(fence.counters().rejects_answered, 5);
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
fn everything_else_is_unreachable() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let (port, prohibited) = if v6 {
            ([1, 4], [1, 1])
        } else {
            ([3, 3], [3, 13])
        };
        for (number, payload, code) in [
            (UDP, udp(40000, 53, 0), port),
            (UDP, udp(40000, 53, 1000), port),
            (SCTP, vec![9; 12], prohibited),
            (icmp_of(v6), echo(v6, 7), prohibited),
            (47, vec![7; 8], prohibited),
        ] {
            let asked = sent(way, v6, number, &payload);
            let answer = fence.answer(way, &asked);
            let body = body(way, v6, &asked, &answer, icmp_of(v6));
            assert_eq!(body[..2], code, "protocol {number}");
            assert_eq!(body[4..8], [0; 4]);
            let quoted = IP + if v6 { 48 } else { 28 };
            assert_eq!(body[8..], asked[IP..quoted], "protocol {number}");
        }
        assert_eq!(fence.counters().rejects_answered, 5);
    }
}

#[test]
fn what_must_not_be_answered_is_dropped_in_silence() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let (from, to) = ends(way, v6);
        let syn = sent(way, v6, TCP, &tcp(40000, 443, SYN));
        let long = fragment((from, to), UDP, (0, true, 9), &udp(40000, 53, 8));
        let later = fragment((from, to), UDP, (2, false, 9), &[0; 8]);
        let silent = [
            ("a reset", sent(way, v6, TCP, &tcp(40000, 443, RST))),
            ("a reset", sent(way, v6, TCP, &tcp(40000, 443, RST | ACK))),
            ("a frame to many", with(syn.clone(), 0, &[0xff; 6])),
            ("less than eight bytes", sent(way, v6, 47, &[0; 7])),
        ];
        for (what, frame) in &silent {
            assert_eq!(fence.run(way, frame), Dropped, "{what}");
        }
        // IPv6 fragments have an extension header and are not answered at all.
        let first = if v6 { Dropped } else { Rejected };
        assert_eq!(fence.run(way, &long), first, "a first fragment");
        assert_eq!(fence.run(way, &later), Dropped, "a later fragment");
        let quoted = packet(to, from, UDP, &udp(53, 40000, 4));
        let kind = if v6 { (1, 4) } else { (3, 3) };
        let error = sent(way, v6, icmp_of(v6), &about(kind.0, kind.1, &quoted));
        assert_eq!(fence.run(way, &error), Dropped, "an ICMP error");
        assert_eq!(fence.run(way, &syn), Rejected, "control");
    }
}

#[test]
fn packets_to_many_are_not_answered() {
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
    assert_eq!(fence.counters().rejects_unanswered, 3);
}

#[test]
fn only_enforce_answers() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let syn = sent(way, v6, TCP, &tcp(40000, 443, SYN));
        for (mode, fate) in [
            (Mode::Enforce, Rejected),
            (Mode::Observe, Passed),
            // There is an entry now, which remembers that it rejects.
            (Mode::Lockdown, Dropped),
            (Mode::Enforce, Rejected),
        ] {
            fence.set_mode(mode);
            assert_eq!(fence.run(way, &syn), fate, "{way:?} in {mode:?}");
        }
        fence.set_mode(Mode::Observe);
        fence.edit(|endpoint| endpoint.mode_override = Mode::Lockdown as u8);
        assert_eq!(fence.run(way, &syn), Dropped, "the endpoint's own mode");
    }
}

#[test]
fn a_deny_beside_a_reject_stays_silent() {
    for (way, direction, v6) in cases() {
        let mut fence = rejecting();
        let deny = PolicyRow::lasting(Verdict::Deny, RULE);
        fence.put(protocol(TABLE, FRIENDS, direction, UDP), deny);
        let datagram = sent(way, v6, UDP, &udp(40000, 53, 8));
        assert_eq!(fence.run(way, &datagram), Dropped);
        let syn = sent(way, v6, TCP, &tcp(40000, 443, SYN));
        assert_eq!(fence.run(way, &syn), Rejected, "control");
        // A packet that a doubt denies is nobody's to reject.
        assert_eq!(fence.run(way, &datagram), Dropped, "after a rejected one");
        fence.edit(|endpoint| endpoint.table = TableId(99));
        assert_eq!(fence.run(way, &syn), Dropped, "without rows");
    }
}

#[test]
fn an_established_flow_that_is_rejected_now_is_reset_at_both_ends() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, 443);
        let talk = Talk {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        };
        fence.passes(Leaving, &talk.out(TCP, SYN), "opening");
        fence.passes(Arriving, &talk.back(TCP, SYN | ACK), "its answer");
        fence.deny_by_default(TableId(8));
        let reject = PolicyRow::lasting(Verdict::Deny, RULE).with(row::REJECT);
        fence.put(key(TableId(8), FRIENDS, Direction::Egress), reject);
        fence.edit(|endpoint| endpoint.table = TableId(8));
        // The first is judged again, the others meet the entry.
        for _ in 0..3 {
            assert_eq!(fence.run(Arriving, &talk.back(TCP, ACK | PSH)), Rejected);
            assert_eq!(fence.run(Leaving, &talk.out(TCP, ACK | PSH)), Rejected);
        }
    }
}

#[test]
fn an_answer_passes_the_other_hook_once() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let back = opposite(way);
        for (number, payload) in [(TCP, tcp(40000, 443, SYN)), (UDP, udp(40000, 53, 40))] {
            let asked = sent(way, v6, number, &payload);
            let answer = fence.answer(way, &asked);
            assert_eq!(fence.run(way, &answer), Dropped, "at the same hook");
            assert_eq!(fence.run(back, &answer), Passed, "{way:?} {number}");
            assert_eq!(fence.run(back, &answer), Dropped, "a second time");
        }
    }
}

#[test]
fn nothing_else_passes_for_an_answer() {
    for (way, _, v6) in cases() {
        let mut fence = rejecting();
        let back = opposite(way);
        let transport = IP + if v6 { 40 } else { 20 };
        for (number, payload) in [(TCP, tcp(40000, 443, SYN)), (UDP, udp(40000, 53, 40))] {
            let asked = sent(way, v6, number, &payload);
            let answer = fence.answer(way, &asked);
            for at in transport..transport + 20 {
                // What is no answer at all may be rejected in its turn.
                let other = with(answer.clone(), at, &[answer[at] ^ 0x10]);
                assert_ne!(fence.run(back, &other), Passed, "byte {at} of {number}");
            }
            let longer = [&answer[..], &[0; 4]].concat();
            let length = if v6 { IP + 4 } else { IP + 2 };
            let total = u16::from_be_bytes([longer[length], longer[length + 1]]) + 4;
            let longer = with(longer, length, &total.to_be_bytes());
            assert_eq!(fence.run(back, &longer), Dropped, "longer, {number}");
            fence.set_mode(Mode::Lockdown);
            let other = fence.run(way, &asked);
            assert_eq!(other, Dropped, "lockdown");
            fence.set_mode(Mode::Enforce);
            assert_eq!(
                fence.run(back, &answer),
                Passed,
                "control: the answer itself"
            );
        }
    }
}

#[test]
fn an_answer_of_one_family_is_none_of_the_other() {
    let mapped = |ip| match ip {
        IpAddr::V4(ip) => IpAddr::from(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => panic!(),
    };
    let mut fence = rejecting();
    let asked = sent(Leaving, false, TCP, &tcp(40000, 443, SYN));
    let answer = fence.answer(Leaving, &asked);
    let (from, to) = ends(Arriving, false);
    let other = frame(mapped(from), mapped(to), TCP, &answer[IP + 20..]);
    assert_eq!(
        fence.arriving(&other),
        Dropped,
        "the same but for the family"
    );
    fence.passes(Arriving, &answer, "control: the answer itself");
    fence.set_mode(Mode::Observe);
    assert_eq!(fence.arriving(&other), Passed, "control: observed");
}

#[test]
fn answers_have_a_limit() {
    let mut fence = rejecting();
    let syn = sent(Leaving, false, TCP, &tcp(40000, 443, SYN));
    let start = fence.now();
    let asked = 3 * REJECTS_PER_SECOND;
    for _ in 0..asked {
        fence.run(Leaving, &syn);
    }
    let seconds = (fence.now() - start) / 1_000_000_000 + 2;
    let counters = fence.counters();
    let (answered, limited) = (counters.rejects_answered, counters.rejects_limited);
    // An earlier test may have used up a part of the first second.
    assert!(
        answered > 0 && answered <= seconds * REJECTS_PER_SECOND,
        "{answered}"
    );
    assert_eq!(answered + limited, asked);
    assert!(limited > 0 || seconds > 3, "{answered} in {seconds} s");
    assert_eq!(fence.count(DropReason::Policy).0, asked, "all are dropped");
    eventually(Duration::from_secs(5), "the next second", || {
        Ok((fence.run(Leaving, &syn) == Rejected).then_some(()))
    })
    .unwrap();
}

#[test]
fn an_unknown_endpoint_rejects_nothing() {
    let mut fence = rejecting();
    let syn = sent(Leaving, false, TCP, &tcp(40000, 443, SYN));
    assert_eq!(fence.run(Leaving, &syn), Rejected, "control");
    fence.write(Action::DeleteEndpoint(IFINDEX));
    assert_eq!(fence.run(Leaving, &syn), Dropped);
}
