//! Reject packets, checked with a straightforward checksum.

#![allow(clippy::cast_possible_truncation, reason = "test frames are short")]

use super::*;
use crate::packet::tests::Bytes;

const FIN: u8 = TcpFlags::FIN;
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

const A4: [u8; 4] = [10, 1, 0, 2];
const B4: [u8; 4] = [10, 255, 3, 4];

fn ip6(last: u8) -> [u8; 16] {
    let mut a = [0xab; 16];
    (a[0], a[1], a[15]) = (0xfd, 0xff, last);
    a
}

/// A frame from A to B.
fn frame(v6: bool, number: u8, payload: &[u8]) -> Bytes {
    let length = payload.len() as u16;
    let mut f = vec![2; 14];
    if v6 {
        f.extend([0x60, 0, 0, 0]);
        f.extend(length.to_be_bytes());
        f.extend([number, 64]);
        f.extend(ip6(2));
        f.extend(ip6(3));
    } else {
        f.extend([0x45, 0]);
        f.extend((length + 20).to_be_bytes());
        f.extend([0x12, 0x34, 0, 0, 63, number, 0xbe, 0xef]);
        f.extend(A4);
        f.extend(B4);
    }
    f.extend(payload);
    Bytes(f)
}

fn head4(frame: &Bytes) -> Option<Head<Ip4>> {
    Ip4::head(frame, &mut [0; 7])
}

fn head6(frame: &Bytes) -> Option<Head<Ip6>> {
    Ip6::head(frame, &mut [0; 12])
}

fn segment(flags: u8, data: usize) -> Vec<u8> {
    let mut s = vec![0x9c, 0x40, 1, 0xbb];
    s.extend(0xffff_fff0_u32.to_be_bytes());
    s.extend(0x0102_0304_u32.to_be_bytes());
    // With four bytes of options.
    s.extend([6 << 4, flags, 0xff, 0xff, 0xaa, 0xbb, 0, 0, 1, 1, 1, 1]);
    s.resize(24 + data, 0x5a);
    s
}

/// The ones' complement sum over bytes in network order.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header of a reject packet, from B to A.
fn pseudo(v6: bool, number: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = Vec::new();
    if v6 {
        p.extend([ip6(3), ip6(2)].concat());
    } else {
        p.extend([B4, A4].concat());
    }
    p.extend([0, number]);
    p.extend((payload.len() as u16).to_be_bytes());
    p
}

/// Finishes a checksum as the kernel does (`skb_checksum_help`).
fn finish(payload: &mut [u8], at: usize) {
    let sum = match !sum(&[payload]) {
        0 => 0xffff,
        sum => sum,
    };
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn reset_of(v6: bool, flags: u8, data: usize, checksum: Checksum) -> Option<TcpHeader> {
    let segment = segment(flags, data);
    let frame = frame(v6, protocol::TCP, &segment);
    let tcp = segment[..20].try_into().unwrap();
    if !may_be_reset(&tcp) {
        return None;
    }
    let (mut four, mut six) = ([0; 7], [0; 12]);
    Some(if v6 {
        let head = Ip6::head(&frame, &mut six).unwrap();
        reset::<Ip6>(&six, head.payload, &tcp, checksum)
    } else {
        let head = Ip4::head(&frame, &mut four).unwrap();
        reset::<Ip4>(&four, head.payload, &tcp, checksum)
    })
}

#[test]
fn a_reset_takes_sequence_numbers_from_the_segment() {
    for v6 in [false, true] {
        for (flags, data, seq, ack, reset_flags) in [
            (SYN, 0, 0, 0xffff_fff1_u32, TcpFlags::RST | ACK),
            (SYN, 20, 0, 5, TcpFlags::RST | ACK),
            (ACK, 20, 0x0102_0304, 0, TcpFlags::RST),
            (SYN | ACK, 0, 0x0102_0304, 0, TcpFlags::RST),
            (FIN | ACK, 7, 0x0102_0304, 0, TcpFlags::RST),
        ] {
            for checksum in [Checksum::Complete, Checksum::Partial] {
                let mut s = reset_of(v6, flags, data, checksum).unwrap();
                assert_eq!(s[..4], [1, 0xbb, 0x9c, 0x40], "ports");
                assert_eq!(s[4..8], u32::to_be_bytes(seq), "{flags:#x}");
                assert_eq!(s[8..12], ack.to_be_bytes(), "{flags:#x}");
                assert_eq!(s[12..16], [0x50, reset_flags, 0, 0]);
                if checksum == Checksum::Partial {
                    finish(&mut s, 16);
                }
                let pseudo = pseudo(v6, protocol::TCP, &s);
                assert_eq!(sum(&[&pseudo, &s]), 0xffff, "{checksum:?}, IPv6: {v6}");
            }
        }
        let rst = TcpFlags::RST;
        assert_eq!(reset_of(v6, rst, 0, Checksum::Complete), None);
        assert_eq!(reset_of(v6, rst | ACK, 0, Checksum::Complete), None);
    }
}

fn message_of(v6: bool, number: u8, checksum: Checksum) -> Vec<u8> {
    fn whole<A: Reject>(frame: &Bytes, quote: &mut A::Quote, checksum: Checksum) -> Vec<u8> {
        let head = A::head(frame, quote).unwrap();
        let start = unreachable::<A>(quote, head.protocol, checksum);
        let message = [start.as_slice(), A::bytes_of_quote(quote)].concat();
        let length = usize::from(message_length::<A>());
        assert_eq!(message.len(), length);
        assert_eq!(message[8..], frame.0[14..14 + length - 8]);
        message
    }
    let frame = frame(v6, number, &[0xff, 0xfe, 0xfd, 4, 5, 6, 7, 8, 9]);
    if v6 {
        whole::<Ip6>(&frame, &mut [0; 12], checksum)
    } else {
        whole::<Ip4>(&frame, &mut [0; 7], checksum)
    }
}

#[test]
fn an_icmp_checksum_is_right_complete_and_partial() {
    for v6 in [false, true] {
        for (number, code) in [
            (protocol::UDP, if v6 { [1, 4] } else { [3, 3] }),
            (protocol::SCTP, if v6 { [1, 1] } else { [3, 13] }),
            (47, if v6 { [1, 1] } else { [3, 13] }),
        ] {
            let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
            for checksum in [Checksum::Complete, Checksum::Partial] {
                let mut message = message_of(v6, number, checksum);
                assert_eq!(message[..2], code);
                if checksum == Checksum::Partial {
                    finish(&mut message, 6);
                } else {
                    assert_eq!(message[4..8], [0; 4], "unused");
                }
                let pseudo = if v6 {
                    pseudo(v6, icmp, &message)
                } else {
                    Vec::new()
                };
                assert_eq!(sum(&[&pseudo, &message]), 0xffff, "{checksum:?}, {v6}");
            }
        }
    }
}

#[test]
fn the_ip_header_of_a_reject_packet_has_a_right_checksum() {
    let mut quote = [0; 7];
    Ip4::head(&frame(false, protocol::TCP, &[0; 8]), &mut quote).unwrap();
    let header = Ip4::header(&quote, protocol::TCP, 20);
    assert_eq!(header[..10], [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    assert_eq!((&header[12..16], &header[16..]), (&B4[..], &A4[..]));
    assert_eq!(sum(&[&header]), 0xffff);
    let mut quote = [0; 12];
    Ip6::head(&frame(true, protocol::UDP, &[0; 8]), &mut quote).unwrap();
    let header = Ip6::header(&quote, protocol::ICMPV6, 56);
    assert_eq!(header[..8], [0x60, 0, 0, 0, 0, 56, 58, 64]);
    assert_eq!(header[8..], [ip6(3), ip6(2)].concat());
}

#[test]
fn only_plain_headers_have_a_head() {
    let plain = frame(false, protocol::UDP, &[0; 8]);
    let with = |at: usize, byte: u8| {
        let mut other = plain.0.clone();
        other[at] = byte;
        Bytes(other)
    };
    let head = head4(&plain).unwrap();
    assert_eq!((head.protocol, head.payload), (protocol::UDP, 8));
    assert!(head4(&with(14, 0x46)).is_none(), "options");
    assert!(head4(&with(21, 1)).is_none(), "a later fragment");
    assert!(head4(&with(20, 0x20)).is_some(), "a first fragment");
    assert!(head4(&frame(false, 47, &[0; 7])).is_none(), "too short");
    for extension in [0, 43, 44, 51, 60] {
        assert!(head6(&frame(true, extension, &[0; 8])).is_none());
    }
    assert_eq!(head6(&frame(true, 47, &[0; 9])).unwrap().payload, 9);
}

#[test]
fn packets_without_a_single_sender_and_receiver_are_not_rejected() {
    let head = head4(&frame(false, protocol::UDP, &[0; 8])).unwrap();
    assert!(may_reject(2, &head, 0));
    assert!(!may_reject(3, &head, 0), "to many machines");
    for no_host in [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255; 4],
    ] {
        let other = Ip4::from_wire(no_host);
        let to = Head {
            destination: other,
            ..head
        };
        let from = Head {
            source: other,
            ..head
        };
        assert!(
            !may_reject(2, &to, 0) && !may_reject(2, &from, 0),
            "{no_host:?}"
        );
    }
    let head = head6(&frame(true, protocol::UDP, &[0; 8])).unwrap();
    assert!(may_reject(2, &head, 0));
    let mut multicast = [0; 16];
    (multicast[0], multicast[15]) = (0xff, 2);
    let mut loopback = [0; 16];
    loopback[15] = 1;
    for no_host in [[0; 16], multicast, loopback] {
        let other = Ip6::from_wire(no_host);
        let to = Head {
            destination: other,
            ..head
        };
        let from = Head {
            source: other,
            ..head
        };
        assert!(
            !may_reject(2, &to, 0) && !may_reject(2, &from, 0),
            "{no_host:?}"
        );
    }
}

#[test]
fn an_icmp_error_is_not_rejected() {
    let head = head4(&frame(false, protocol::ICMP, &[0; 8])).unwrap();
    for kind in [3, 4, 5, 11, 12] {
        assert!(!may_reject(2, &head, kind));
    }
    assert!(may_reject(2, &head, 8));
    let head = head6(&frame(true, protocol::ICMPV6, &[0; 8])).unwrap();
    for kind in [1, 2, 3, 4, 127] {
        assert!(!may_reject(2, &head, kind));
    }
    assert!(may_reject(2, &head, 128));
}
