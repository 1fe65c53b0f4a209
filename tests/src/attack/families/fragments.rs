//! Fragments: split headers, overlapping fragments, and fragments without a first one.

use ringfence_common::drop_reason::DropReason::{
    ExtensionHeaders, OrphanFragment, Policy, TcpHeader, TinyFragment,
};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, flag};
use crate::attack::family::{ANY, ANY4, ANY6, Family, Member};
use crate::attack::fixture::protocol;

/// First fragments that do not hold the transport header.
pub(super) const TINY: Family = Family {
    name: "tiny-fragments",
    members: &[
        Member::new("part of a UDP header", ANY, |s| {
            let length = s.rng.below(8);
            tiny(s, protocol::UDP, length);
        }),
        Member::new("eight bytes of TCP", ANY, |s| tiny(s, protocol::TCP, 8)),
        Member::new("part of a TCP header", ANY, |s| {
            let length = s.rng.below(20);
            tiny(s, protocol::TCP, length);
        }),
        Member::new("TCP without its options", ANY, |s| {
            let words = s.rng.between(6, 15).to_be_bytes()[1];
            let segment = craft::with_bytes(
                craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN),
                12,
                &[words << 4],
            );
            deny_first(s, TinyFragment, protocol::TCP, &segment);
        }),
        Member::new("part of an SCTP header", ANY, |s| {
            let length = s.rng.below(12);
            tiny(s, protocol::SCTP, length);
        }),
        Member::new("part of an ICMP header", ANY, |s| {
            let length = s.rng.below(8);
            tiny(s, s.icmp(), length);
        }),
        Member::new("extension headers without transport", ANY6, |s| {
            let options = craft::extension(protocol::TCP, 0);
            let payload = [craft::fragment_header(60, (0, true), 9), options].concat();
            s.deny(TinyFragment, s.frame(44, &payload));
        }),
        Member::new("eight bytes of TCP, then the rest", ANY, |s| {
            let segment = craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN);
            let (head, rest) = segment.split_at_checked(8).unwrap_or_default();
            let (ends, id) = (s.ends(), s.port);
            deny_first(s, TinyFragment, protocol::TCP, head);
            let second = craft::fragment(ends, protocol::TCP, (1, false), id, rest);
            s.deny(TinyFragment, second);
        }),
        Member::new("an invalid header length", ANY, |s| {
            let segment = craft::with_bytes(
                craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN),
                12,
                &[4 << 4],
            );
            deny_first(s, TcpHeader, protocol::TCP, &segment);
        }),
    ],
};

fn tiny(s: &mut CaseBuilder<'_>, protocol: u8, length: usize) {
    let whole = craft::transport(protocol, s.port, s.allowed_port(protocol));
    deny_first(
        s,
        TinyFragment,
        protocol,
        whole.get(..length).unwrap_or_default(),
    );
}

fn deny_first(
    s: &mut CaseBuilder<'_>,
    reason: ringfence_common::drop_reason::DropReason,
    protocol: u8,
    payload: &[u8],
) {
    let frame = craft::fragment(s.ends(), protocol, (0, true), s.port, payload);
    s.deny(reason, frame);
}

/// Later fragments that overwrite the headers by which the first fragment was evaluated.
pub(super) const OVERLAPPING: Family = Family {
    name: "overlapping-fragments",
    members: &[
        Member::new("over a TCP header, at 8", ANY, |s| {
            permit_first(s, protocol::TCP);
            let evil = craft::tcp(s.port, 22, flag::SYN);
            deny_later(
                s,
                TinyFragment,
                protocol::TCP,
                1,
                evil.get(8..).unwrap_or_default(),
            );
        }),
        Member::new("over a TCP header, at 16", ANY, |s| {
            permit_first(s, protocol::TCP);
            deny_later(s, TinyFragment, protocol::TCP, 2, &[0; 16]);
        }),
        Member::new("over TCP options", ANY, |s| {
            let port = s.allowed_port(protocol::TCP);
            let mut segment =
                craft::with_bytes(craft::tcp(s.port, port, flag::SYN), 12, &[15 << 4]);
            segment.resize(64, 1);
            let frame = craft::fragment(s.ends(), protocol::TCP, (0, true), s.port, &segment);
            s.permit(frame);
            let place = s.rng.between(3, 7);
            deny_later(s, TinyFragment, protocol::TCP, place, &[0; 32]);
        }),
        Member::new("over the ports behind extension headers", ANY6, |s| {
            permit_first_behind_options(s, 0);
            let evil = craft::udp(s.port, 53, &[0; 8]);
            deny_later(s, TinyFragment, 60, 1, &evil);
        }),
        Member::new("over an extension header", ANY6, |s| {
            permit_first_behind_options(s, 2);
            let place = s.rng.between(1, 3);
            deny_later(
                s,
                TinyFragment,
                60,
                place,
                &craft::udp(s.port, 53, &[0; 16]),
            );
        }),
        Member::new("a second first fragment, to a denied port", ANY, |s| {
            permit_first(s, protocol::UDP);
            let port = s.denied_port();
            deny_first(
                s,
                Policy,
                protocol::UDP,
                &craft::udp(s.port, port, &[0; 16]),
            );
            // The later fragments are evaluated by the latest first fragment.
            deny_later(s, Policy, protocol::UDP, 3, &[0; 16]);
        }),
        Member::new("over a denied first fragment, ports included", ANY, |s| {
            let port = s.denied_port();
            deny_first(
                s,
                Policy,
                protocol::UDP,
                &craft::udp(s.port, port, &[0; 16]),
            );
            let allowed = craft::udp(s.port, s.allowed_port(protocol::UDP), &[0; 16]);
            deny_later(s, Policy, protocol::UDP, 1, &allowed);
        }),
        Member::new("control: over payload", ANY, |s| {
            permit_first(s, protocol::UDP);
            permit_later(s, protocol::UDP, (1, true), &[0; 16]);
            permit_later(s, protocol::UDP, (2, false), &[0; 8]);
        }),
        Member::new("control: out of order", ANY, |s| {
            permit_first(s, protocol::UDP);
            permit_later(s, protocol::UDP, (5, false), &[0; 8]);
            permit_later(s, protocol::UDP, (3, true), &[0; 16]);
        }),
    ],
};

/// The first fragment of an allowed datagram, behind destination options of `8 * (units + 1)`
/// bytes.
fn permit_first_behind_options(s: &mut CaseBuilder<'_>, units: u8) {
    let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), &[0; 24]);
    let payload = [craft::extension(protocol::UDP, units), datagram].concat();
    let frame = craft::fragment(s.ends(), 60, (0, true), s.port, &payload);
    s.permit(frame);
}

/// A first fragment that policy allows, 24 bytes long.
fn permit_first(s: &mut CaseBuilder<'_>, protocol: u8) {
    let mut payload = craft::transport(protocol, s.port, s.allowed_port(protocol));
    payload.resize(24, 0);
    let frame = craft::fragment(s.ends(), protocol, (0, true), s.port, &payload);
    s.permit(frame);
}

fn deny_later(
    s: &mut CaseBuilder<'_>,
    reason: ringfence_common::drop_reason::DropReason,
    protocol: u8,
    place: u16,
    payload: &[u8],
) {
    let more = s.rng.one_in(2);
    let frame = craft::fragment(s.ends(), protocol, (place, more), s.port, payload);
    s.deny(reason, frame);
}

fn permit_later(s: &mut CaseBuilder<'_>, protocol: u8, place: (u16, bool), payload: &[u8]) {
    let frame = craft::fragment(s.ends(), protocol, place, s.port, payload);
    s.permit(frame);
}

/// Later fragments without a first fragment, and later fragments that follow another's.
pub(super) const ORPHANS: Family = Family {
    name: "orphan-fragments",
    members: &[
        Member::new("alone", ANY, |s| {
            let place = s.rng.between(2, 8000);
            let decoy = craft::udp(s.port, s.allowed_port(protocol::UDP), &[0; 16]);
            deny_later(s, OrphanFragment, protocol::UDP, place, &decoy);
        }),
        Member::new("of eight bytes", ANY, |s| {
            let place = s.rng.between(1, 8000);
            deny_later(s, OrphanFragment, protocol::UDP, place, &[0; 8]);
        }),
        Member::new("before its first", ANY, |s| {
            deny_later(s, OrphanFragment, protocol::UDP, 3, &[0; 8]);
            permit_first(s, protocol::UDP);
            permit_later(s, protocol::UDP, (3, false), &[0; 8]);
        }),
        Member::new("of another identification", ANY, |s| {
            permit_first(s, protocol::UDP);
            let frame = craft::fragment(s.ends(), protocol::UDP, (3, false), s.port ^ 1, &[0; 8]);
            s.deny(OrphanFragment, frame);
        }),
        Member::new("of another protocol", ANY4, |s| {
            permit_first(s, protocol::UDP);
            deny_later(s, OrphanFragment, protocol::TCP, 3, &[0; 8]);
        }),
        Member::new("in an allowed flow", ANY, |s| {
            s.exchange();
            deny_later(s, OrphanFragment, protocol::UDP, 3, &[0; 8]);
        }),
        Member::new("of an ICMP message", ANY, |s| {
            deny_later(s, OrphanFragment, s.icmp(), 1, &[0; 8]);
        }),
        Member::new("of a raw protocol", ANY, |s| {
            deny_later(s, OrphanFragment, 47, 1, &[0; 8]);
        }),
        Member::new("after a denied first", ANY, |s| {
            let port = s.denied_port();
            deny_first(
                s,
                Policy,
                protocol::UDP,
                &craft::udp(s.port, port, &[0; 16]),
            );
            deny_later(s, Policy, protocol::UDP, 3, &[0; 8]);
        }),
    ],
};

/// Two packets with the same identification.
pub(super) const REUSE: Family = Family {
    name: "fragment-reuse",
    members: &[
        Member::new("an allowed packet, then a denied one", ANY, |s| {
            permit_first(s, protocol::UDP);
            permit_later(s, protocol::UDP, (3, false), &[0; 8]);
            let port = s.denied_port();
            deny_first(
                s,
                Policy,
                protocol::UDP,
                &craft::udp(s.port, port, &[0; 16]),
            );
            deny_later(s, Policy, protocol::UDP, 3, &[0; 8]);
        }),
        Member::new("a denied packet, then an allowed one", ANY, |s| {
            let port = s.denied_port();
            deny_first(
                s,
                Policy,
                protocol::UDP,
                &craft::udp(s.port, port, &[0; 16]),
            );
            permit_first(s, protocol::UDP);
            permit_later(s, protocol::UDP, (3, false), &[0; 8]);
        }),
        Member::new("to another host", ANY, |s| {
            permit_first(s, protocol::UDP);
            s.peer = crate::attack::fixture::peer(s.v6, s.rng);
            deny_later(s, OrphanFragment, protocol::UDP, 3, &[0; 8]);
        }),
        Member::new("with another protocol, IPv6", ANY6, |s| {
            permit_first(s, protocol::UDP);
            // Reassembly ignores the next header of later fragments (RFC 8200 §4.5).
            permit_later(s, protocol::TCP, (3, false), &[0; 8]);
        }),
    ],
};

/// Invalid and unusual fragment headers.
pub(super) const HEADERS: Family = Family {
    name: "fragment-headers",
    members: &[
        Member::new("two of them", ANY6, |s| {
            let headers = [
                craft::fragment_header(44, (0, false), 1),
                craft::fragment_header(protocol::UDP, (0, false), 2),
            ];
            let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), b"twice");
            s.deny(
                ExtensionHeaders,
                s.frame(44, &[headers.concat(), datagram].concat()),
            );
        }),
        Member::new("atomic, to a denied port", ANY6, |s| {
            let port = s.denied_port();
            let frame = craft::fragment(
                s.ends(),
                protocol::UDP,
                (0, false),
                1,
                &craft::udp(s.port, port, b"atomic"),
            );
            s.deny(Policy, frame);
        }),
        Member::new("atomic, to an allowed port", ANY6, |s| {
            let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), b"atomic");
            let frame = craft::fragment(s.ends(), protocol::UDP, (0, false), 1, &datagram);
            s.permit(frame);
        }),
        Member::new("a fragment with the don't-fragment bit", ANY4, |s| {
            let frame = craft::fragment(s.ends(), protocol::UDP, (3, true), s.port, &[0; 16]);
            s.deny(
                OrphanFragment,
                craft::with_bytes(frame, craft::IP + 6, &[0x60, 3]),
            );
        }),
        Member::new("the reserved bit, to a denied port", ANY4, |s| {
            let port = s.denied_port();
            let frame = s.datagram(port);
            s.deny(Policy, craft::with_bytes(frame, craft::IP + 6, &[0x80, 0]));
        }),
        Member::new("reserved bits of the header, to a denied port", ANY6, |s| {
            let port = s.denied_port();
            let payload = craft::udp(s.port, port, b"reserved");
            let frame = craft::fragment(s.ends(), protocol::UDP, (0, false), 1, &payload);
            s.deny(
                Policy,
                craft::with_bytes(frame, craft::AFTER_IP6 + 1, &[0xff, 0, 6]),
            );
        }),
    ],
};

/// Fragments that end beyond the maximum packet size.
pub(super) const OVERSIZED: Family = Family {
    name: "oversized-reassembly",
    members: &[
        Member::new("of no packet", ANY, |s| {
            let place = s.rng.between(8185, 8191);
            deny_later(s, OrphanFragment, protocol::UDP, place, &[0; 1000]);
        }),
        Member::new("of a denied packet", ANY, |s| {
            let port = s.denied_port();
            deny_first(
                s,
                Policy,
                protocol::UDP,
                &craft::udp(s.port, port, &[0; 16]),
            );
            deny_later(s, Policy, protocol::UDP, 8191, &[0; 1400]);
        }),
        Member::new("of an ICMP message that policy denies", ANY, |s| {
            if s.direction == crate::attack::fixture::Direction::Out {
                s.peer = crate::attack::fixture::unlisted_host(s.v6);
            }
            let message = [craft::echo(s.v6, s.port), vec![0; 1400]].concat();
            deny_first(s, Policy, s.icmp(), &message);
            deny_later(s, Policy, s.icmp(), 8190, &[0; 1000]);
        }),
        Member::new("control: of an allowed packet", ANY, |s| {
            permit_first(s, protocol::UDP);
            permit_later(s, protocol::UDP, (8191, false), &[0; 1400]);
        }),
    ],
};
