//! IPv4 headers: options with decoy ports, wrong total lengths and header lengths.

use ringfence_common::drop_reason::DropReason::{
    IpLength, Ipv4Header, Ipv6Header, Policy, Truncated,
};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, IP, flag};
use crate::attack::family::{ANY, ANY4, ANY6, Family, Member};
use crate::attack::fixture::protocol;

/// Options before the real transport header.
pub(super) const OPTIONS: Family = Family {
    name: "ipv4-options",
    members: &[
        Member::new("a decoy port, the real one denied", ANY4, |s| {
            let words = 1 + s.rng.below(10);
            let port = s.denied_port();
            let frame = behind_options(s, words, port);
            s.deny(Policy, frame);
        }),
        Member::new("a decoy port, the real one allowed", ANY4, |s| {
            let words = 1 + s.rng.below(10);
            let port = s.allowed_port(protocol::TCP);
            let frame = behind_options(s, words, port);
            s.permit(frame);
        }),
        Member::new("a loose source route to a denied port", ANY4, |s| {
            let port = s.denied_port();
            let frame = behind_options(s, 2, port);
            s.deny(
                Policy,
                craft::with_bytes(frame, craft::AFTER_IP4, &[0x83, 7, 4, 198, 19, 9, 9, 0]),
            );
        }),
        Member::new("an option of length zero, denied port", ANY4, |s| {
            let port = s.denied_port();
            let frame = behind_options(s, 3, port);
            s.deny(Policy, craft::with_bytes(frame, craft::AFTER_IP4, &[7, 0]));
        }),
        Member::new("options past the packet", ANY4, |s| {
            let frame = s.segment(s.allowed_port(protocol::TCP), flag::SYN);
            let frame = craft::with_bytes(frame, IP, &[0x4f]);
            s.deny(IpLength, craft::with_bytes(frame, IP + 2, &[0, 40]));
        }),
        Member::new("in an allowed flow, another port", ANY4, |s| {
            s.connect();
            let port = s.denied_port();
            let frame = behind_options(s, 4, port);
            s.deny(Policy, frame);
        }),
    ],
};

/// A SYN to a port, behind `words` words of options that look like a TCP header with the allowed
/// port.
fn behind_options(s: &mut CaseBuilder<'_>, words: usize, port: u16) -> Vec<u8> {
    let mut options = craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN).repeat(2);
    options.resize(words * 4, 0);
    let payload = [options, craft::tcp(s.port, port, flag::SYN)].concat();
    let header = u8::try_from(0x45 + words).unwrap_or(0x4f);
    craft::with_bytes(s.frame(protocol::TCP, &payload), IP, &[header])
}

/// Versions and header lengths.
pub(super) const HEADERS: Family = Family {
    name: "ip-headers",
    members: &[
        Member::new("a header length under five", ANY4, |s| {
            let length = s.rng.between(0, 4).to_be_bytes()[1];
            deny_first_byte(s, 0x40 | length);
        }),
        Member::new("another version", ANY4, |s| {
            let version = s.rng.choose(&[0, 1, 2, 3, 5, 6, 7, 8, 15], 5);
            deny_first_byte(s, version << 4 | 5);
        }),
        Member::new("a header length over five, denied port inside", ANY4, |s| {
            let words = s.rng.between(1, 10);
            let port = s.denied_port();
            let frame = behind_options(s, words.into(), port);
            s.deny(Policy, frame);
        }),
        Member::new("another version, IPv6", ANY6, |s| {
            let version = s.rng.choose(&[0, 4, 5, 7, 15], 4);
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            s.deny(Ipv6Header, craft::with_bytes(frame, IP, &[version << 4]));
        }),
        Member::new("another version in an allowed flow", ANY4, |s| {
            s.exchange();
            deny_first_byte(s, 0x65);
        }),
    ],
};

fn deny_first_byte(s: &mut CaseBuilder<'_>, first: u8) {
    let frame = s.datagram(s.allowed_port(protocol::UDP));
    s.deny(Ipv4Header, craft::with_bytes(frame, IP, &[first]));
}

/// Total and payload lengths.
pub(super) const LENGTHS: Family = Family {
    name: "ip-lengths",
    members: &[
        Member::new("longer than the frame", ANY, |s| {
            let more = s.rng.between(1, 2000);
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            let true_length =
                u16::try_from(frame.len() - IP).unwrap_or(0) - if s.v6 { 40 } else { 0 };
            deny_length(s, frame, true_length.saturating_add(more), Some(IpLength));
        }),
        Member::new("the maximum", ANY, |s| {
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            deny_length(s, frame, u16::MAX, Some(IpLength));
        }),
        Member::new("zero", ANY, |s| {
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            deny_length(s, frame, 0, None);
        }),
        Member::new("shorter than the header", ANY4, |s| {
            let length = s.rng.between(1, 19);
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            deny_length(s, frame, length, Some(IpLength));
        }),
        Member::new("without the transport header", ANY, |s| {
            let length = s.rng.between(0, 7) + if s.v6 { 0 } else { 20 };
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            deny_length(s, frame, length, None);
        }),
        Member::new("with part of the TCP header", ANY, |s| {
            let length = s.rng.between(0, 19) + if s.v6 { 0 } else { 20 };
            let frame = s.segment(s.allowed_port(protocol::TCP), flag::SYN);
            deny_length(s, frame, length, None);
        }),
        Member::new("a truncated IP header", ANY, |s| {
            let mut frame = s.datagram(s.allowed_port(protocol::UDP));
            frame.truncate(IP + 4 + s.rng.below(if s.v6 { 36 } else { 16 }));
            s.deny(Truncated, frame);
        }),
        Member::new("longer than the frame, in an allowed flow", ANY, |s| {
            s.exchange();
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            deny_length(s, frame, 1400, Some(IpLength));
        }),
    ],
};

fn deny_length(
    s: &mut CaseBuilder<'_>,
    frame: Vec<u8>,
    length: u16,
    reason: Option<ringfence_common::drop_reason::DropReason>,
) {
    let at = if s.v6 { IP + 4 } else { IP + 2 };
    let expect = crate::attack::case::Expect::Denied(reason);
    s.send(expect, craft::with_bytes(frame, at, &length.to_be_bytes()));
}
