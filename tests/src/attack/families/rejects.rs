//! Rejected packets, and packets that look like the fence's own reject packets.
//!
//! In each direction the attacker forges reject packets about packets of the other. Those that the fence
//! sends are compared with [`rejection`] for every frame of every family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::{self, IcmpErrorUnmatched, Policy, SpoofedSource};

use crate::attack::builder::CaseBuilder;
use crate::attack::case::Offload;
use crate::attack::craft::{self, AFTER_IP4, AFTER_IP6, IP, flag};
use crate::attack::family::{ANY, ANY4, ANY6, Family, IN, Member, OUT, OUT4, OUT6};
use crate::attack::fixture::{self, REJECTED_PORT, protocol};
use crate::attack::rejection;

mod routed;

pub(super) use routed::ROUTED;

pub(super) const REJECTS: Family = Family {
    name: "rejects",
    members: &[
        Member::new("a SYN", ANY, |s| rejected(s, protocol::TCP)),
        Member::new("a SYN with data", ANY, |s| {
            let data = s.rng.below(400);
            let segment = [tcp(s, flag::SYN), s.rng.bytes(data)].concat();
            reject(s, protocol::TCP, &segment);
        }),
        Member::new("segments without a connection", ANY, |s| {
            let all = [
                flag::ACK,
                flag::ACK | flag::PSH,
                flag::ACK | flag::FIN,
                flag::ACK | flag::SYN,
                flag::ACK | flag::URG,
            ];
            let flags = s.rng.choose(&all, flag::ACK);
            let data = s.rng.below(1400);
            let segment = [tcp(s, flags), s.rng.bytes(data)].concat();
            reject(s, protocol::TCP, &segment);
        }),
        Member::new("a datagram", ANY, |s| rejected(s, protocol::UDP)),
        Member::new("a large datagram", ANY, |s| {
            let length = 1400 + s.rng.below(7000);
            let datagram = craft::udp(s.port, 53, &vec![0x5a; length]);
            reject(s, protocol::UDP, &datagram);
        }),
        Member::new("SCTP", ANY, |s| rejected(s, protocol::SCTP)),
        Member::new("an echo request", ANY, |s| rejected(s, s.icmp())),
        Member::new("another protocol", ANY, |s| {
            let number = s.rng.choose(&[2, 50, 89, 112, 253], 50);
            let length = 8 + s.rng.below(90);
            let payload = s.rng.bytes(length);
            reject(s, number, &payload);
        }),
        Member::new("the smallest packet", ANY, |s| {
            let payload = s.rng.bytes(8);
            reject(s, 253, &payload);
        }),
        Member::new("a packet in a packet", ANY, |s| {
            peer_that_is_rejected(s);
            // The kernel has found the header inside, and `bpf_skb_change_tail` does not cut that off
            // (`__bpf_skb_min_len`): most are dropped silently.
            let inner = craft::ip(
                s.workload(),
                s.peer,
                protocol::UDP,
                &craft::udp(s.port, 53, b"inner"),
            );
            let number = if s.v6 { 41 } else { 4 };
            s.deny(Policy, s.frame(number, &inner));
            s.may_be_rejected();
        }),
        Member::new("with bytes after its end", ANY, |s| {
            peer_that_is_rejected(s);
            let frame = s.frame(protocol::UDP, &craft::udp(s.port, 53, b"padded"));
            let length = 1 + s.rng.below(200);
            let padding = s.rng.bytes(length);
            s.reject([frame, padding].concat());
        }),
        Member::new("a rejected port of an allowed peer", ANY, |s| {
            let number = ported(s);
            let payload = craft::transport(number, s.port, REJECTED_PORT);
            s.reject(s.frame(number, &payload));
        }),
        Member::new("TCP to be segmented", ANY, |s| {
            let segment = [tcp(s, flag::ACK), vec![0x5a; 5000]].concat();
            offloaded(s, protocol::TCP, &segment);
        }),
        Member::new("a datagram to be segmented", ANY, |s| {
            offloaded(s, protocol::UDP, &craft::udp(s.port, 53, &[0x5a; 5000]));
        }),
        Member::new("a first fragment", ANY4, |s| {
            peer_that_is_rejected(s);
            let datagram = craft::udp(s.port, 53, &[0x5a; 24]);
            let place = |offset, more| (offset, more);
            s.reject(craft::fragment(
                s.ends(),
                protocol::UDP,
                place(0, true),
                s.port,
                &datagram,
            ));
            let later = craft::fragment(s.ends(), protocol::UDP, place(4, false), s.port, &[0; 8]);
            s.deny(Policy, later);
        }),
        Member::new("fragments", ANY6, |s| {
            peer_that_is_rejected(s);
            let datagram = craft::udp(s.port, 53, &[0x5a; 24]);
            let first = craft::fragment(s.ends(), protocol::UDP, (0, true), s.port, &datagram);
            s.deny(Policy, first);
            let later = craft::fragment(s.ends(), protocol::UDP, (4, false), s.port, &[0; 8]);
            s.deny(Policy, later);
        }),
        Member::new("a reset", ANY, |s| {
            peer_that_is_rejected(s);
            let flags = s.rng.choose(&[flag::RST, flag::RST | flag::ACK], flag::RST);
            let segment = tcp(s, flags);
            s.deny(Policy, s.frame(protocol::TCP, &segment));
        }),
        Member::new("an error", ANY, |s| {
            peer_that_is_rejected(s);
            let kinds: &[u8] = if s.v6 {
                &[1, 2, 3, 4, 100]
            } else {
                &[3, 4, 5, 11, 12]
            };
            let kind = s.rng.choose(kinds, 3);
            let (to, from) = s.ends();
            let quoted = craft::ip(from, to, protocol::UDP, &craft::udp(53, s.port, b"quoted"));
            s.deny(
                IcmpErrorUnmatched,
                s.frame(s.icmp(), &craft::icmp_error(kind, 0, &quoted)),
            );
        }),
        Member::new("too short to be quoted", ANY, |s| {
            peer_that_is_rejected(s);
            let length = s.rng.below(8);
            let payload = s.rng.bytes(length);
            s.deny(Policy, s.frame(47, &payload));
        }),
        Member::new("in a frame to a group of hardware addresses", ANY, |s| {
            peer_that_is_rejected(s);
            let number = ported(s);
            let frame = s.frame(number, &craft::transport(number, s.port, 443));
            s.deny(Policy, craft::with_bytes(frame, 0, &[0xff; 6]));
        }),
        Member::new("with IP options", ANY4, |s| {
            peer_that_is_rejected(s);
            let (from, to) = s.ends();
            let datagram = craft::udp(s.port, 53, b"options");
            let packet = craft::ip(
                from,
                to,
                protocol::UDP,
                &[&[1; 8], datagram.as_slice()].concat(),
            );
            s.deny(
                Policy,
                craft::with_bytes(craft::ethernet(0x0800, &packet), IP, &[0x47]),
            );
        }),
        Member::new("behind an extension header", ANY6, |s| {
            peer_that_is_rejected(s);
            let header = craft::extension(protocol::UDP, 0);
            let payload = [header, craft::udp(s.port, 53, b"behind")].concat();
            s.deny(Policy, s.frame(60, &payload));
        }),
        Member::new("to groups and broadcast", OUT4, |s| {
            let [_, a, b, ..] = s.rng.next_u64().to_be_bytes();
            let all = [
                [224, 0, 0, 251],
                [239, 1, a, b],
                [255; 4],
                [127, 0, 0, 1],
                [0, 0, 0, 9],
            ];
            let [a, b, c, d] = s.rng.choose(&all, [255; 4]);
            to_rejected_port(s, IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        }),
        Member::new("to IPv6 groups", OUT6, |s| {
            let scope = s.rng.choose(&[1, 2, 5, 14], 2);
            to_rejected_port(
                s,
                Ipv6Addr::new(0xff00 | scope, 0, 0, 0, 0, 0, 0, 0xfb).into(),
            );
        }),
        Member::new("to itself", OUT, |s| {
            s.peer = s.workload();
            let number = ported(s);
            let payload = craft::transport(number, s.port, REJECTED_PORT);
            s.reject(s.frame(number, &payload));
        }),
        Member::new("to another host of the segment", IN, |s| {
            peer_that_is_rejected(s);
            let number = ported(s);
            let payload = craft::transport(number, s.port, 443);
            let other = fixture::other_workload(s.v6);
            s.deny(Policy, craft::ip_frame(s.peer, other, number, &payload));
        }),
        Member::new("from a victim's address", OUT, |s| {
            peer_that_is_rejected(s);
            let victims = [
                fixture::other_workload(s.v6),
                fixture::rejected_peer(s.v6, s.rng),
            ];
            let victim = s.rng.choose(&victims, fixture::node(s.v6));
            spoofed(s, victim, s.peer);
        }),
        Member::new("from the workload's own address", IN, |s| {
            peer_that_is_rejected(s);
            spoofed(s, s.workload(), s.peer);
        }),
        Member::new("a forged reset about nothing", ANY, |s| {
            forge(s, About::Nothing, protocol::TCP, |_, frame| frame);
        }),
        Member::new("a forged error about nothing", ANY, |s| {
            let number = without_reset(s);
            forge(s, About::Nothing, number, |_, frame| frame);
        }),
        Member::new("a forged reset before the rejected segment", ANY, |s| {
            let (rejected, forged) = pair(s, protocol::TCP);
            s.deny(Policy, forged.clone());
            s.reject_back(rejected);
            s.deny(Policy, forged);
        }),
        Member::new("a reset a second and a third time", ANY, |s| {
            let forged = forge(s, About::Rejected, protocol::TCP, |_, frame| frame);
            s.deny(Policy, forged);
        }),
        Member::new("an error a second and a third time", ANY, |s| {
            let number = without_reset(s);
            let forged = forge(s, About::Rejected, number, |_, frame| frame);
            s.deny(IcmpErrorUnmatched, forged);
        }),
        Member::new("a reset with data", ANY, |s| {
            forge(s, About::Rejected, protocol::TCP, with_data);
        }),
        Member::new("an error with data", ANY, |s| {
            let number = without_reset(s);
            forge(s, About::Rejected, number, with_data);
        }),
        Member::new("a reset with bytes after its end", ANY, |s| {
            forge(s, About::Rejected, protocol::TCP, with_padding);
        }),
        Member::new("an error with bytes after its end", ANY, |s| {
            let number = without_reset(s);
            forge(s, About::Rejected, number, with_padding);
        }),
        Member::new("a reset with other numbers or flags", ANY, |s| {
            forge(s, About::Rejected, protocol::TCP, |s, frame| {
                let at = transport(s.v6) + s.rng.choose(&[5, 7, 9, 11, 14, 15, 17, 19], 7);
                flipped(s, frame, at)
            });
        }),
        Member::new("a reset of another port", ANY, |s| {
            forge(s, About::Rejected, protocol::TCP, |s, frame| {
                let at = transport(s.v6) + s.rng.choose(&[1, 3], 1);
                flipped(s, frame, at)
            });
        }),
        Member::new("an error with data in its quote", ANY, |s| {
            let number = without_reset(s);
            forge(s, About::Rejected, number, |s, frame| {
                let start = transport(s.v6) + 8;
                // Not its addresses and ports, so that the checksum alone differs.
                let at = start
                    + if s.v6 {
                        s.rng.choose(&[1, 2, 3], 1)
                    } else {
                        s.rng.choose(&[1, 4, 5], 1)
                    };
                flipped(s, frame, at)
            });
        }),
        Member::new("an error of another type or code", ANY, |s| {
            let number = without_reset(s);
            forge(s, About::Rejected, number, |s, frame| {
                let other = if s.v6 { [3, 1] } else { [11, 1] };
                craft::with_bytes(frame, transport(s.v6), &other)
            });
        }),
        Member::new("an error about a rejected segment", ANY, |s| {
            let (rejected, _) = pair(s, protocol::TCP);
            let quoted = rejected.get(IP..).unwrap_or_default().to_vec();
            s.reject_back(rejected);
            let (kind, code) = if s.v6 { (1, 1) } else { (3, 13) };
            let error = craft::icmp_error(kind, code, &quoted);
            s.deny(IcmpErrorUnmatched, s.frame(s.icmp(), &error));
        }),
        Member::new("a reset about a rejected datagram", ANY, |s| {
            let (rejected, _) = pair(s, protocol::UDP);
            s.reject_back(rejected);
            let segment = craft::tcp(53, s.port, flag::RST | flag::ACK);
            s.deny(Policy, s.frame(protocol::TCP, &segment));
        }),
        Member::new("a reject packet with its ends exchanged", ANY, |s| {
            let number = s.rng.choose(&[protocol::TCP, protocol::UDP], protocol::TCP);
            let (rejected, forged) = pair(s, number);
            s.reject_back(rejected);
            s.deny_back(SpoofedSource, forged);
        }),
        Member::new("a reject packet about a packet to another peer", ANY, |s| {
            let number = s.rng.choose(&[protocol::TCP, protocol::UDP], protocol::TCP);
            let (rejected, _) = pair(s, number);
            s.reject_back(rejected);
            forge(s, About::Nothing, number, |_, frame| frame);
        }),
        Member::new("a reject packet in a fragment", ANY, |s| {
            let (rejected, forged) = pair(s, protocol::UDP);
            s.reject_back(rejected);
            let message = forged.get(transport(s.v6)..).unwrap_or_default().to_vec();
            let fragment = craft::fragment(s.ends(), s.icmp(), (0, true), s.port, &message);
            s.deny(IcmpErrorUnmatched, fragment);
        }),
        Member::new("control: an allowed peer", ANY, |s| {
            s.exchange();
        }),
        Member::new("control: a reset in an allowed connection", ANY, |s| {
            s.connect();
            let port = s.allowed_port(protocol::TCP);
            s.permit(s.segment(port, flag::RST | flag::ACK));
        }),
        Member::new("control: an error about an allowed flow", ANY, |s| {
            let port = s.allowed_port(protocol::UDP);
            let frame = s.datagram(port);
            s.permit(frame.clone());
            s.permit_back(rejection::about(&frame).unwrap_or_default());
        }),
    ],
};

fn peer_that_is_rejected(s: &mut CaseBuilder<'_>) {
    s.peer = fixture::rejected_peer(s.v6, s.rng);
}

fn ported(s: &mut CaseBuilder<'_>) -> u8 {
    let all = [protocol::TCP, protocol::UDP, protocol::SCTP];
    s.rng.choose(&all, protocol::UDP)
}

/// A protocol whose packets are rejected with an error.
fn without_reset(s: &mut CaseBuilder<'_>) -> u8 {
    let all = [protocol::UDP, protocol::SCTP, s.icmp(), 253];
    s.rng.choose(&all, protocol::UDP)
}

/// A segment with random numbers.
fn tcp(s: &mut CaseBuilder<'_>, flags: u8) -> Vec<u8> {
    let [a, b, c, d, e, f, g, h] = s.rng.next_u64().to_be_bytes();
    let numbers = [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes);
    craft::tcp_with_sequence(s.port, 443, flags, (numbers[0], numbers[1]))
}

fn payload(s: &mut CaseBuilder<'_>, number: u8) -> Vec<u8> {
    match number {
        protocol::TCP => tcp(s, flag::SYN),
        _ => craft::transport(number, s.port, 443),
    }
}

/// A packet of a protocol with a peer from and to which everything is rejected.
fn rejected(s: &mut CaseBuilder<'_>, number: u8) {
    let payload = payload(s, number);
    reject(s, number, &payload);
}

fn reject(s: &mut CaseBuilder<'_>, number: u8, payload: &[u8]) {
    peer_that_is_rejected(s);
    s.reject(s.frame(number, payload));
}

/// A packet that the kernel segments if nothing drops it before.
fn offloaded(s: &mut CaseBuilder<'_>, number: u8, payload: &[u8]) {
    /// `VIRTIO_NET_HDR_GSO_…`.
    const TCPV4: u8 = 1;
    const TCPV6: u8 = 4;
    const UDP_L4: u8 = 5;
    peer_that_is_rejected(s);
    let (kind, header, checksum) = match (number, s.v6) {
        (protocol::TCP, false) => (TCPV4, 20, 16),
        (protocol::TCP, true) => (TCPV6, 20, 16),
        _ => (UDP_L4, 8, 6),
    };
    let start = if s.v6 { AFTER_IP6 } else { AFTER_IP4 };
    let offload = Offload {
        segment: 1000,
        kind,
        headers: u16::try_from(start + header).unwrap_or(0),
        checksum: Some((u16::try_from(start).unwrap_or(0), checksum)),
    };
    s.reject_offloaded(s.frame(number, payload), offload);
}

/// A packet to a peer whose address no reject packet may have as its source.
fn to_rejected_port(s: &mut CaseBuilder<'_>, peer: IpAddr) {
    s.peer = peer;
    let number = ported(s);
    s.deny(
        Policy,
        s.frame(number, &craft::transport(number, s.port, REJECTED_PORT)),
    );
}

fn spoofed(s: &mut CaseBuilder<'_>, from: IpAddr, to: IpAddr) {
    let number = ported(s);
    let payload = craft::transport(number, s.port, REJECTED_PORT);
    s.deny(SpoofedSource, craft::ip_frame(from, to, number, &payload));
}

/// Whether the forged reject packet is about a packet that was rejected before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Nothing,
    Rejected,
}

/// A packet of the other direction that is rejected, and the reject packet about it, which has this
/// direction.
fn pair(s: &mut CaseBuilder<'_>, number: u8) -> (Vec<u8>, Vec<u8>) {
    peer_that_is_rejected(s);
    let payload = payload(s, number);
    let rejected = s.frame_back(number, &payload);
    let forged = rejection::about(&rejected).unwrap_or_default();
    (rejected, forged)
}

/// A forged reject packet that is changed; returns it unchanged.
fn forge(
    s: &mut CaseBuilder<'_>,
    about: About,
    number: u8,
    change: fn(&mut CaseBuilder<'_>, Vec<u8>) -> Vec<u8>,
) -> Vec<u8> {
    let (rejected, forged) = pair(s, number);
    if about == About::Rejected {
        s.reject_back(rejected);
    }
    let changed = change(s, forged.clone());
    s.deny(denial_of(number), changed);
    forged
}

/// Why a reject packet about a packet of this protocol is denied if the fence did not send it.
const fn denial_of(number: u8) -> DropReason {
    if number == protocol::TCP {
        Policy
    } else {
        IcmpErrorUnmatched
    }
}

const fn transport(v6: bool) -> usize {
    if v6 { AFTER_IP6 } else { AFTER_IP4 }
}

fn flipped(s: &mut CaseBuilder<'_>, mut frame: Vec<u8>, at: usize) -> Vec<u8> {
    let bit = 1 << s.rng.below(8);
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= bit;
    }
    frame
}

/// With more bytes, which its IP header counts.
fn with_data(s: &mut CaseBuilder<'_>, frame: Vec<u8>) -> Vec<u8> {
    let longer = with_padding(s, frame);
    let at = IP + if s.v6 { 4 } else { 2 };
    let length = longer.len() - IP - if s.v6 { 40 } else { 0 };
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    craft::with_bytes(longer, at, &length.to_be_bytes())
}

/// With more bytes, which its IP header does not count.
fn with_padding(s: &mut CaseBuilder<'_>, frame: Vec<u8>) -> Vec<u8> {
    let length = 1 + s.rng.below(1000);
    let more = s.rng.bytes(length);
    [frame, more].concat()
}
