//! ICMP: errors that match no flow, and replies without a request.

use ringfence_common::drop_reason::DropReason::{IcmpErrorUnmatched, Policy, Truncated};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft;
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::fixture::{self, Direction, protocol};

/// Errors. In each direction they quote packets of the other.
pub(super) const ERRORS: Family = Family {
    name: "icmp-errors",
    members: &[
        Member::new("about no known flow", ANY, |s| {
            let port = s.denied_port();
            let inside = reverse_datagram(s, port);
            deny_error_about(s, &inside);
        }),
        Member::new("about another port of an allowed flow", ANY, |s| {
            open_reverse_flow(s);
            let port = s.denied_port();
            let inside = reverse_datagram(s, port);
            deny_error_about(s, &inside);
        }),
        Member::new("about a foreign flow", ANY, |s| {
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let datagram = craft::udp(s.port, port, b"foreign");
            let (from, to) = (fixture::other_workload(s.v6), fixture::peer(s.v6, s.rng));
            deny_error_about(s, &craft::ip(from, to, protocol::UDP, &datagram));
        }),
        Member::new("about an allowed flow, reversed", ANY, |s| {
            open_reverse_flow(s);
            let (from, to) = s.ends();
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let datagram = craft::udp(s.port, port, b"reversed");
            deny_error_about(s, &craft::ip(from, to, protocol::UDP, &datagram));
        }),
        Member::new("a truncated quote", ANY, |s| {
            open_reverse_flow(s);
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let inside = reverse_datagram(s, port);
            let length = s.rng.below(if s.v6 { 48 } else { 28 });
            deny_error_about(s, inside.get(..length).unwrap_or_default());
        }),
        Member::new("about an error", ANY, |s| {
            open_reverse_flow(s);
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let inside = reverse_datagram(s, port);
            let (to, from) = s.ends();
            let nested = craft::icmp_error(if s.v6 { 1 } else { 3 }, 1, &inside);
            deny_error_about(s, &craft::ip(from, to, s.icmp(), &nested));
        }),
        Member::new("about a later fragment", ANY, |s| {
            open_reverse_flow(s);
            let (to, from) = s.ends();
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let datagram = craft::udp(s.port, port, b"fragment");
            let frame = craft::fragment((from, to), protocol::UDP, (3, false), 1, &datagram);
            deny_error_about(s, frame.get(craft::IP..).unwrap_or_default());
        }),
        Member::new("quoting another address family", ANY, |s| {
            let (v6, peer) = (!s.v6, fixture::peer(!s.v6, s.rng));
            let datagram = craft::udp(s.port, 53, b"other family");
            deny_error_about(
                s,
                &craft::ip(fixture::workload(v6), peer, protocol::UDP, &datagram),
            );
        }),
        Member::new("in a fragment", ANY, |s| {
            open_reverse_flow(s);
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let message =
                craft::icmp_error(if s.v6 { 1 } else { 3 }, 1, &reverse_datagram(s, port));
            let frame = craft::fragment(s.ends(), s.icmp(), (0, true), 1, &message);
            s.deny(IcmpErrorUnmatched, frame);
        }),
        Member::new("about a flow that policy denies", ANY, |s| {
            let port = s.denied_port();
            let inside = reverse_datagram(s, port);
            let original = craft::ethernet(craft::ethertype_of(s.peer), &inside);
            s.deny_back(Policy, original);
            deny_error_about(s, &inside);
        }),
        Member::new("about an allowed flow, to another host", OUT, |s| {
            open_reverse_flow(s);
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let message =
                craft::icmp_error(if s.v6 { 1 } else { 3 }, 1, &reverse_datagram(s, port));
            let frame = craft::ip_frame(
                s.workload(),
                fixture::unlisted_host(s.v6),
                s.icmp(),
                &message,
            );
            s.deny(IcmpErrorUnmatched, frame);
        }),
        Member::new("control: about an allowed flow", ANY, |s| {
            open_reverse_flow(s);
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let (kind, code) = random_error(s);
            let message = craft::icmp_error(kind, code, &reverse_datagram(s, port));
            s.permit(s.frame(s.icmp(), &message));
        }),
        Member::new(
            "control: about an allowed connection, by a router",
            IN,
            |s| {
                s.direction = Direction::Out;
                s.connect();
                let (from, to) = s.ends();
                let segment = craft::tcp(s.port, s.allowed_port(protocol::TCP), craft::flag::ACK);
                s.direction = Direction::In;
                let (kind, code) = random_error(s);
                let message =
                    craft::icmp_error(kind, code, &craft::ip(from, to, protocol::TCP, &segment));
                s.permit(craft::ip_frame(
                    fixture::unlisted_host(s.v6),
                    from,
                    s.icmp(),
                    &message,
                ));
            },
        ),
    ],
};

/// Packet Too Big and Fragmentation Needed, which path MTU discovery depends on.
pub(super) const TOO_BIG: Family = Family {
    name: "path-mtu",
    members: &[
        Member::new("control: about an allowed connection", IN, |s| {
            s.direction = Direction::Out;
            s.connect();
            let inside = large_packet(s, s.port);
            s.direction = Direction::In;
            s.permit(too_big(s, &inside));
        }),
        Member::new("control: about allowed datagrams", ANY, |s| {
            open_reverse_flow(s);
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            let inside = reverse_datagram(s, port);
            s.permit(too_big(s, &inside));
        }),
        Member::new("about a connection that does not exist", IN, |s| {
            s.direction = Direction::Out;
            let inside = large_packet(s, s.port);
            s.direction = Direction::In;
            s.deny(IcmpErrorUnmatched, too_big(s, &inside));
        }),
        Member::new("about another port of an allowed connection", IN, |s| {
            s.direction = Direction::Out;
            s.connect();
            let inside = large_packet(s, s.port ^ 1);
            s.direction = Direction::In;
            s.deny(IcmpErrorUnmatched, too_big(s, &inside));
        }),
        Member::new("about datagrams that policy denies", ANY, |s| {
            let port = s.denied_port();
            let inside = reverse_datagram(s, port);
            s.deny(IcmpErrorUnmatched, too_big(s, &inside));
        }),
    ],
};

fn large_packet(s: &CaseBuilder<'_>, port: u16) -> Vec<u8> {
    let (from, to) = s.ends();
    let segment = craft::tcp(port, s.allowed_port(protocol::TCP), craft::flag::ACK);
    craft::ip(from, to, protocol::TCP, &[segment, vec![0; 400]].concat())
}

fn too_big(s: &CaseBuilder<'_>, inside: &[u8]) -> Vec<u8> {
    let (kind, code) = if s.v6 { (2, 0) } else { (3, 4) };
    let message = craft::icmp_error(kind, code, inside);
    s.frame(s.icmp(), &craft::with_bytes(message, 4, &[0, 0, 5, 0]))
}

fn random_error(s: &mut CaseBuilder<'_>) -> (u8, u8) {
    if s.v6 {
        s.rng
            .choose(&[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)], (1, 4))
    } else {
        s.rng
            .choose(&[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)], (3, 3))
    }
}

/// Opens an allowed flow of datagrams in the other direction.
fn open_reverse_flow(s: &mut CaseBuilder<'_>) {
    let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
    let inside = reverse_datagram(s, port);
    s.permit_back(craft::ethernet(craft::ethertype_of(s.peer), &inside));
}

/// A datagram of the other direction to a port.
fn reverse_datagram(s: &CaseBuilder<'_>, port: u16) -> Vec<u8> {
    let (to, from) = s.ends();
    craft::ip(from, to, protocol::UDP, &craft::udp(s.port, port, b"asked"))
}

fn deny_error_about(s: &mut CaseBuilder<'_>, inside: &[u8]) {
    let (kind, code) = random_error(s);
    let mut message = craft::icmp_error(kind, code, inside);
    if s.rng.one_in(2) {
        message.truncate(600);
    }
    s.deny(IcmpErrorUnmatched, s.frame(s.icmp(), &message));
}

/// Echo and other requests and replies. Policy allows requests from the workload and none to it.
pub(super) const ECHO: Family = Family {
    name: "icmp-echo",
    members: &[
        Member::new("a request to it", IN, |s| {
            s.deny(Policy, s.frame(s.icmp(), &craft::echo(s.v6, s.port)));
        }),
        Member::new("a reply without a request", IN, |s| {
            s.deny(Policy, s.frame(s.icmp(), &craft::echo_reply(s.v6, s.port)));
        }),
        Member::new("a reply of another identifier", IN, |s| {
            echo_request(s, s.port);
            s.deny(
                Policy,
                s.frame(s.icmp(), &craft::echo_reply(s.v6, s.port ^ 1)),
            );
        }),
        Member::new("a reply of another host", IN, |s| {
            echo_request(s, s.port);
            s.peer = fixture::peer(s.v6, s.rng);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo_reply(s.v6, s.port)));
        }),
        Member::new("a request of the same identifier, reversed", IN, |s| {
            echo_request(s, s.port);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo(s.v6, s.port)));
        }),
        Member::new("a request of identifier 0, reversed", IN, |s| {
            echo_request(s, 0);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo(s.v6, 0)));
        }),
        Member::new("another type of request after an echo request", IN, |s| {
            echo_request(s, s.port);
            let kind = if s.v6 {
                139
            } else {
                s.rng.choose(&[13, 15, 17], 13)
            };
            s.deny(Policy, s.frame(s.icmp(), &craft::icmp(kind, 0, s.port)));
        }),
        Member::new(
            "another type of request after an echo request of identifier 0",
            IN,
            |s| {
                echo_request(s, 0);
                let kind = if s.v6 {
                    139
                } else {
                    s.rng.choose(&[13, 15, 17], 13)
                };
                s.deny(Policy, s.frame(s.icmp(), &craft::icmp(kind, 0, 0)));
            },
        ),
        Member::new("another type of request after an allowed one", IN, |s| {
            let kinds: &[u8] = if s.v6 { &[139] } else { &[13, 15, 17] };
            let kind = s.rng.choose(kinds, 13);
            let request = s.frame_back(s.icmp(), &craft::icmp(kind, 0, s.port));
            s.permit_back(request);
            let answer = s.frame(s.icmp(), &craft::icmp(kind + 1, 0, s.port));
            s.permit(answer);
            let kind = s.rng.choose(kinds, 13);
            s.deny(Policy, s.frame(s.icmp(), &craft::icmp(kind, 0, s.port)));
        }),
        Member::new("a request to a denied host", OUT, |s| {
            s.peer = fixture::unlisted_host(s.v6);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo(s.v6, s.port)));
        }),
        Member::new("a truncated header", ANY, |s| {
            let length = s.rng.below(8);
            let message = craft::echo(s.v6, s.port);
            s.deny(
                Truncated,
                s.frame(s.icmp(), message.get(..length).unwrap_or_default()),
            );
        }),
        Member::new("control: a reply to a request", IN, |s| {
            echo_request(s, s.port);
            s.permit(s.frame(s.icmp(), &craft::echo_reply(s.v6, s.port)));
        }),
    ],
};

fn echo_request(s: &mut CaseBuilder<'_>, id: u16) {
    s.permit_back(s.frame_back(s.icmp(), &craft::echo(s.v6, id)));
}
