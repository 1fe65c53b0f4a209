//! IPv6 extension headers: in any order, up to ten of them, with wrong lengths.

use ringfence_common::drop_reason::DropReason::{
    ExtensionHeaders, Policy, RoutingHeader, TcpHeader, Truncated,
};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, flag};
use crate::attack::family::{ANY6, Family, Member};
use crate::attack::fixture::protocol;

const KINDS: [u8; 5] = [0, 43, 44, 51, 60];

/// Chains in any order, with the real port behind them.
pub(super) const ORDER: Family = Family {
    name: "extension-order",
    members: &[
        Member::new("up to eight options before a denied port", ANY6, |s| {
            let count = 1 + s.rng.below(8);
            let port = s.denied_port();
            let frame = with_headers(s, &vec![60; count], port);
            s.deny(Policy, frame);
        }),
        Member::new("up to eight options before an allowed port", ANY6, |s| {
            let count = 1 + s.rng.below(8);
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &vec![60; count], port);
            s.permit(frame);
        }),
        Member::new("nine and ten options", ANY6, |s| {
            let count = 9 + s.rng.below(2);
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &vec![60; count], port);
            s.deny(ExtensionHeaders, frame);
        }),
        Member::new("any order before a denied port", ANY6, |s| {
            let count = 1 + s.rng.below(10);
            let mut kinds: Vec<u8> = (0..count).map(|_| s.rng.choose(&KINDS, 60)).collect();
            // Fragment headers in the chain are atomic, so the packet is not a fragment.
            let port = s.denied_port();
            if s.rng.one_in(2) {
                kinds.sort_unstable();
            }
            let frame = with_headers(s, &kinds, port);
            s.send(crate::attack::case::Expect::Denied(None), frame);
        }),
        Member::new("hop-by-hop second", ANY6, |s| {
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &[60, 0], port);
            s.deny(ExtensionHeaders, frame);
        }),
        Member::new("hop-by-hop twice", ANY6, |s| {
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &[0, 0], port);
            s.deny(ExtensionHeaders, frame);
        }),
        Member::new("all types in the recommended order", ANY6, |s| {
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &[0, 60, 43, 44, 51, 60], port);
            s.permit(frame);
        }),
        Member::new("all types before a denied port", ANY6, |s| {
            let port = s.denied_port();
            let frame = with_headers(s, &[0, 60, 43, 44, 51, 60], port);
            s.deny(Policy, frame);
        }),
        Member::new(
            "a decoy port where a shorter chain would have it",
            ANY6,
            |s| {
                let port = s.denied_port();
                let frame = with_headers(s, &[60, 60], port);
                let decoy = s.allowed_port(protocol::TCP).to_be_bytes();
                s.deny(
                    Policy,
                    craft::with_bytes(frame, craft::AFTER_IP6 + 2, &[1, 4, decoy[0], decoy[1]]),
                );
            },
        ),
        Member::new("in an allowed flow, nine options", ANY6, |s| {
            s.connect();
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &[60; 9], port);
            s.deny(ExtensionHeaders, frame);
        }),
        Member::new(
            "mobility, host identity, shim6 and experiments",
            ANY6,
            |s| {
                let kind = s.rng.choose(&[135, 139, 140, 253, 254], 135);
                let hidden = [
                    craft::extension(protocol::TCP, 0),
                    craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN),
                ];
                s.deny(Policy, s.frame(kind, &hidden.concat()));
            },
        ),
        Member::new("no next header", ANY6, |s| {
            let hidden = craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN);
            s.deny(Policy, s.frame(59, &hidden));
        }),
    ],
};

/// Headers that extend past the packet, are too short, or are not allowed.
pub(super) const LENGTHS: Family = Family {
    name: "extension-lengths",
    members: &[
        Member::new("past the packet", ANY6, |s| {
            let length = s.rng.between(4, 255).to_be_bytes()[1];
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &[60], port);
            s.deny(
                ExtensionHeaders,
                craft::with_bytes(frame, craft::AFTER_IP6 + 1, &[length]),
            );
        }),
        Member::new("truncated", ANY6, |s| {
            let header = [protocol::TCP, 0, 1, 4, 0, 0, 0];
            let length = 1 + s.rng.below(7);
            let cut = header.get(..length).unwrap_or_default();
            s.deny(Truncated, s.frame(60, cut));
        }),
        Member::new("an unterminated chain", ANY6, |s| {
            let mut payload = craft::extension(60, 0);
            payload.extend([60]);
            s.deny(Truncated, s.frame(60, &payload));
        }),
        Member::new("no transport header", ANY6, |s| {
            s.deny(TcpHeader, s.frame(60, &craft::extension(protocol::TCP, 0)));
        }),
        Member::new("the transport header outside the packet", ANY6, |s| {
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &[60], port);
            s.deny(TcpHeader, craft::with_bytes(frame, craft::IP + 4, &[0, 8]));
        }),
        Member::new("routing type 0", ANY6, |s| {
            let count = s.rng.below(3);
            let mut kinds = vec![60; count];
            kinds.push(43);
            let port = s.allowed_port(protocol::TCP);
            let frame = with_headers(s, &kinds, port);
            s.deny(
                RoutingHeader,
                craft::with_bytes(frame, craft::AFTER_IP6 + count * 8 + 2, &[0]),
            );
        }),
        Member::new("routing type 0 with addresses", ANY6, |s| {
            let mut header = craft::extension(protocol::UDP, 2);
            craft::write(&mut header, 2, &[0, 1]);
            let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), b"routed");
            s.deny(RoutingHeader, s.frame(43, &[header, datagram].concat()));
        }),
        Member::new("a segment list", ANY6, |s| {
            // An allowed destination that is to send the packet on.
            let mut header = craft::extension(protocol::UDP, 2);
            let kind = s.rng.choose(&[2, 3, 4, 253], 4);
            craft::write(&mut header, 2, &[kind, 1]);
            let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), b"routed");
            s.deny(RoutingHeader, s.frame(43, &[header, datagram].concat()));
        }),
        Member::new("a jumbogram", ANY6, |s| {
            let options = [protocol::UDP, 0, 0xc2, 4, 0, 1, 0, 0];
            let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), b"jumbo");
            let frame = s.frame(0, &[options.as_slice(), &datagram].concat());
            s.deny(
                ExtensionHeaders,
                craft::with_bytes(frame, craft::IP + 4, &[0, 0]),
            );
        }),
        Member::new("authentication of an odd length", ANY6, |s| {
            let port = s.denied_port();
            let mut header = vec![protocol::TCP, 2];
            header.resize(16, 0);
            let segment = craft::tcp(s.port, port, flag::SYN);
            s.deny(Policy, s.frame(51, &[header, segment].concat()));
        }),
        Member::new("long headers before a denied port", ANY6, |s| {
            let words = s.rng.between(1, 200).to_be_bytes()[1];
            let port = s.denied_port();
            let segment = craft::tcp(s.port, port, flag::SYN);
            s.deny(
                Policy,
                s.frame(
                    60,
                    &[craft::extension(protocol::TCP, words), segment].concat(),
                ),
            );
        }),
        Member::new("control: long headers before an allowed port", ANY6, |s| {
            let words = s.rng.between(1, 200).to_be_bytes()[1];
            let segment = craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN);
            s.permit(s.frame(
                60,
                &[craft::extension(protocol::TCP, words), segment].concat(),
            ));
        }),
    ],
};

/// A SYN to a port behind a chain of headers of these types; fragment headers are atomic.
fn with_headers(s: &mut CaseBuilder<'_>, kinds: &[u8], port: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(protocol::TCP);
        payload.extend(match kind {
            44 => craft::fragment_header(next, (0, false), 5),
            51 => vec![next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
            43 => vec![next, 0, 4, 0, 0, 0, 0, 0],
            _ => craft::extension(next, 0),
        });
    }
    payload.extend(craft::tcp(s.port, port, flag::SYN));
    let first = kinds.first().copied().unwrap_or(protocol::TCP);
    s.frame(first, &payload)
}
