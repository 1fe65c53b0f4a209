//! Reject packets for hostile packets: whatever is rejected, what is sent is a whole packet of its kind, back
//! to the sender, hardly larger, and never for a packet that may not be answered.
//!
//! Valid packets get faults; what comes back is read here, without the code that wrote it.

use std::net::IpAddr;

use proptest::test_runner::RngSeed;
use ringfence::oracle::cases;
use ringfence_common::{
    mode::{Direction, Verdict},
    policy::{PolicyRow, row},
};
use ringfence_testbed::frame::checksum;

use crate::differential::rng::Rng;
use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, Passed, RULE, Rejected, TABLE, Way,
    any_protocol,
};
use crate::frames::{
    ACK, FIN, IP, PSH, RST, SCTP, SYN, TCP, UDP, echo, extension, frame, icmp_error, icmp_of,
    packet, sctp, tcp, udp,
};

const FRAMES: u32 = 20_000;

fn rejecting() -> Fence {
    let mut fence = Fence::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let row = PolicyRow::lasting(Verdict::Deny, RULE).with(row::REJECT | row::THEN_REJECT);
        fence.put_row(any_protocol(TABLE, FRIENDS, direction), row);
    }
    fence
}

/// A packet that its rule rejects, perhaps with faults.
fn hostile(rng: &mut Rng, way: Way, v6: bool) -> Vec<u8> {
    let (own, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
    let (from, to) = if way == Leaving {
        (own, peer)
    } else {
        (peer, own)
    };
    let data = rng.pick(&[0, 0, 1, 7, 20, 500, 1400]);
    let (mut protocol, mut payload) = match rng.below(8) {
        0..=2 => {
            let flags = rng.pick(&[SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, 0]);
            let mut segment = tcp(rng.next_u16(), 443, flags);
            segment[4..12].copy_from_slice(&rng.next_u64().to_be_bytes());
            segment.extend(rng.bytes(data));
            (TCP, segment)
        }
        3 | 4 => (UDP, udp(rng.next_u16(), 53, data)),
        5 => (SCTP, [sctp(rng.next_u16(), 7), rng.bytes(data)].concat()),
        6 if rng.chance(50) => (icmp_of(v6), [echo(v6, 9), rng.bytes(data)].concat()),
        6 => {
            let quoted = packet(to, from, UDP, &udp(53, 9, 4));
            let kind = rng.pick(if v6 {
                &[1, 2, 3, 4, 100]
            } else {
                &[3, 4, 5, 11, 12]
            });
            (icmp_of(v6), icmp_error(kind, 1, &quoted))
        }
        _ => (47, rng.bytes(data)),
    };
    if v6 && rng.chance(10) {
        payload = [extension(protocol, 0, 1), payload].concat();
        protocol = 60;
    }
    let mut frame = frame(from, to, protocol, &payload);
    if rng.chance(70) {
        for _ in 0..=rng.below(3) {
            // Headers more often than data.
            let within = if rng.chance(80) {
                frame.len().min(90)
            } else {
                frame.len()
            };
            let place = rng.below(within);
            frame[place] = match rng.below(3) {
                0 => rng.next_u8(),
                1 => rng.pick(&[0, 1, 0x7f, 0x80, 0xe0, 0xff]),
                _ => frame[place] ^ (1 << rng.below(8)),
            };
        }
    }
    if rng.chance(10) {
        let length = rng.below(frame.len()).max(if v6 { 54 } else { 34 });
        frame.truncate(length);
    }
    if rng.chance(10) {
        let padding = 1 + rng.below(60);
        frame.extend(rng.bytes(padding));
    }
    frame
}

/// Whether an address can be that of a single host elsewhere (RFC 1122 §3.2.1.3, RFC 4291 §2).
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(v6) => !(v6.is_multicast() || v6.is_unspecified() || v6.is_loopback()),
    }
}

fn ends_of(ip: &[u8]) -> (IpAddr, IpAddr) {
    if ip[0] >> 4 == 6 {
        let [from, to] = [8, 24].map(|at| <[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        (from.into(), to.into())
    } else {
        let [from, to] = [12, 16].map(|at| <[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        (from.into(), to.into())
    }
}

/// Whether a packet may be answered at all; it has been rejected, so it is whole.
#[track_caller]
fn may_be_answered(frame: &[u8]) {
    assert_eq!(frame[0] & 1, 0, "to a group of the link");
    let ip = &frame[IP..];
    let (from, to) = ends_of(ip);
    assert!(is_host(from) && is_host(to), "{from} to {to}");
    let v6 = ip[0] >> 4 == 6;
    let (protocol, body) = if v6 {
        (ip[6], &ip[40..])
    } else {
        assert_eq!(ip[0], 0x45, "options");
        assert_eq!(
            u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff,
            0,
            "a later fragment"
        );
        (ip[9], &ip[20..])
    };
    let is_error = |kind| {
        if v6 {
            kind < 128
        } else {
            [3, 4, 5, 11, 12].contains(&kind)
        }
    };
    match protocol {
        6 => assert_eq!(body[13] & RST, 0, "a reset"),
        1 if !v6 => assert!(!is_error(body[0]), "an error"),
        58 if v6 => assert!(!is_error(body[0]), "an error"),
        0 | 43 | 44 | 51 | 60 if v6 => panic!("behind an extension header"),
        _ => {}
    }
}

/// Whether the answer is a whole packet to the sender of the other.
#[track_caller]
fn answers(frame: &[u8], answer: &[u8]) {
    assert_eq!(answer[..6], frame[6..12], "to another station");
    assert_eq!(answer[6..14], [&frame[..6], &frame[12..14]].concat());
    let (asked, ip) = (&frame[IP..], &answer[IP..]);
    let (from, to) = ends_of(asked);
    assert_eq!(ends_of(ip), (to, from));
    let v6 = ip[0] >> 4 == 6;
    let (header, body) = ip.split_at(if v6 { 40 } else { 20 });
    let length = u16::try_from(body.len()).unwrap();
    let protocol = if v6 {
        assert_eq!(header[4..6], length.to_be_bytes());
        header[6]
    } else {
        assert_eq!(header[2..4], (length + 20).to_be_bytes());
        assert_eq!(checksum(&[header]), 0, "IPv4 checksum");
        header[9]
    };
    let ends = &header[if v6 { 8 } else { 12 }..];
    let pseudo = [ends, &[0, protocol], &length.to_be_bytes()].concat();
    let sum = if v6 || protocol == TCP {
        checksum(&[&pseudo, body])
    } else {
        checksum(&[body])
    };
    assert_eq!(sum, 0, "checksum");
    if protocol == TCP {
        assert_eq!(body.len(), 20);
        assert!(body[13] & RST != 0 && body[13] & SYN == 0);
        assert!(answer.len() <= frame.len(), "a reset is never larger");
        return;
    }
    assert_eq!(protocol, icmp_of(v6));
    assert_eq!(body[0], if v6 { 1 } else { 3 });
    let quote = &body[8..];
    assert_eq!(quote, &asked[..quote.len()], "the quote");
    let overhead = header.len() + 8;
    assert_eq!(quote.len(), overhead, "an IP header and eight bytes");
    assert!(
        answer.len() <= frame.len() + overhead,
        "what an ICMP error adds"
    );
}

#[test]
fn whatever_is_rejected_the_answer_is_whole_small_and_to_its_sender() {
    let config = cases(FRAMES);
    let RngSeed::Fixed(seed) = config.rng_seed else {
        panic!("the run has no fixed seed");
    };
    let mut rng = Rng::new(seed);
    let mut fence = rejecting();
    let mut sent = [0_u64; 2];
    for _ in 0..config.cases {
        let (way, v6) = (rng.pick(&[Leaving, Arriving]), rng.chance(50));
        let frame = hostile(&mut rng, way, v6);
        let (outcome, answer) = fence.answer(way, &frame);
        match outcome {
            Rejected => {
                may_be_answered(&frame);
                answers(&frame, &answer);
                sent[usize::from(v6)] += 1;
            }
            Dropped => {}
            // A reject packet that comes by chance is the only one that passes; none does.
            Passed => assert!(is_discovery(&frame), "{way:?} {frame:02x?}"),
        }
    }
    let counters = fence.counters();
    println!(
        "{sent:?} answered over IPv4 and IPv6, {} limited",
        counters.rejects_limited
    );
    assert_eq!(sent[0] + sent[1], counters.rejects_sent);
    assert!(sent.iter().all(|count| *count > 100), "{sent:?} answered");
}

/// ARP, discovery and listener reports pass without a rule; a fault may make a packet of them.
fn is_discovery(frame: &[u8]) -> bool {
    const ICMPV6: u8 = 58;
    const HOP_BY_HOP: u8 = 0;
    if frame[12..14] == [0x08, 0x06] {
        return true;
    }
    // The router alert of listener messages is eight bytes.
    let message = match frame[20] {
        ICMPV6 => 54,
        HOP_BY_HOP if frame[54] == ICMPV6 => 62,
        _ => return false,
    };
    frame[12..14] == [0x86, 0xdd] && matches!(frame.get(message), Some(130..=137 | 143))
}
