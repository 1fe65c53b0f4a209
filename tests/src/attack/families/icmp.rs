//! ICMP: errors about flows that are not there, answers to questions nobody asked.

use ringfence_common::drop_reason::DropReason::{IcmpErrorUnmatched, Policy, Truncated};

use crate::attack::craft;
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::ground::{self, Lane, number};
use crate::attack::scene::Scene;

/// Errors. On each lane they are about packets of the other.
pub(super) const ERRORS: Family = Family {
    name: "icmp-errors",
    members: &[
        Member::new("about nothing known", ANY, |s| {
            let port = s.closed();
            let inside = asked(s, port);
            complain(s, &inside);
        }),
        Member::new("about another port of an allowed flow", ANY, |s| {
            open_back(s);
            let port = s.closed();
            let inside = asked(s, port);
            complain(s, &inside);
        }),
        Member::new("about a foreign flow", ANY, |s| {
            let service = ground::service(s.lane.back(), number::UDP);
            let datagram = craft::udp(s.port, service, b"foreign");
            let (from, to) = (ground::other(s.v6), ground::peer(s.v6, s.dice));
            complain(s, &craft::ip(from, to, number::UDP, &datagram));
        }),
        Member::new("about an allowed flow, reversed", ANY, |s| {
            open_back(s);
            let (from, to) = s.ends();
            let service = ground::service(s.lane.back(), number::UDP);
            let datagram = craft::udp(s.port, service, b"reversed");
            complain(s, &craft::ip(from, to, number::UDP, &datagram));
        }),
        Member::new("truncated inside", ANY, |s| {
            open_back(s);
            let service = ground::service(s.lane.back(), number::UDP);
            let inside = asked(s, service);
            let length = s.dice.below(if s.v6 { 48 } else { 28 });
            complain(s, inside.get(..length).unwrap_or_default());
        }),
        Member::new("about an error", ANY, |s| {
            open_back(s);
            let service = ground::service(s.lane.back(), number::UDP);
            let inside = asked(s, service);
            let (to, from) = s.ends();
            let nested = craft::about(if s.v6 { 1 } else { 3 }, 1, &inside);
            complain(s, &craft::ip(from, to, s.icmp(), &nested));
        }),
        Member::new("about a later fragment", ANY, |s| {
            open_back(s);
            let (to, from) = s.ends();
            let service = ground::service(s.lane.back(), number::UDP);
            let datagram = craft::udp(s.port, service, b"fragment");
            let frame = craft::fragment((from, to), number::UDP, (3, false), 1, &datagram);
            complain(s, frame.get(craft::IP..).unwrap_or_default());
        }),
        Member::new("of another family inside", ANY, |s| {
            let (v6, peer) = (!s.v6, ground::peer(!s.v6, s.dice));
            let datagram = craft::udp(s.port, 53, b"other family");
            complain(
                s,
                &craft::ip(ground::workload(v6), peer, number::UDP, &datagram),
            );
        }),
        Member::new("in a fragment", ANY, |s| {
            open_back(s);
            let service = ground::service(s.lane.back(), number::UDP);
            let message = craft::about(if s.v6 { 1 } else { 3 }, 1, &asked(s, service));
            let frame = craft::fragment(s.ends(), s.icmp(), (0, true), 1, &message);
            s.deny(IcmpErrorUnmatched, frame);
        }),
        Member::new("about a flow that policy denies", ANY, |s| {
            let port = s.closed();
            let inside = asked(s, port);
            let opener = craft::ethernet(craft::ethertype_of(s.peer), &inside);
            s.deny_back(Policy, opener);
            complain(s, &inside);
        }),
        Member::new("about an allowed flow, to somebody else", OUT, |s| {
            open_back(s);
            let service = ground::service(s.lane.back(), number::UDP);
            let message = craft::about(if s.v6 { 1 } else { 3 }, 1, &asked(s, service));
            let frame = craft::ip_frame(s.own(), ground::stranger(s.v6), s.icmp(), &message);
            s.deny(IcmpErrorUnmatched, frame);
        }),
        Member::new("control: about an allowed flow", ANY, |s| {
            open_back(s);
            let service = ground::service(s.lane.back(), number::UDP);
            let (kind, code) = error(s);
            let message = craft::about(kind, code, &asked(s, service));
            s.permit(s.frame(s.icmp(), &message));
        }),
        Member::new(
            "control: about an allowed connection, by a router",
            IN,
            |s| {
                s.lane = Lane::Out;
                s.connect();
                let (from, to) = s.ends();
                let segment = craft::tcp(s.port, s.service(number::TCP), craft::flag::ACK);
                s.lane = Lane::In;
                let (kind, code) = error(s);
                let message = craft::about(kind, code, &craft::ip(from, to, number::TCP, &segment));
                s.permit(craft::ip_frame(
                    ground::stranger(s.v6),
                    from,
                    s.icmp(),
                    &message,
                ));
            },
        ),
    ],
};

/// Packets too big: what path MTU discovery lives on.
pub(super) const TOO_BIG: Family = Family {
    name: "path-mtu",
    members: &[
        Member::new("control: about an allowed connection", IN, |s| {
            s.lane = Lane::Out;
            s.connect();
            let inside = big(s, s.port);
            s.lane = Lane::In;
            s.permit(too_big(s, &inside));
        }),
        Member::new("control: about allowed datagrams", ANY, |s| {
            open_back(s);
            let service = ground::service(s.lane.back(), number::UDP);
            let inside = asked(s, service);
            s.permit(too_big(s, &inside));
        }),
        Member::new("about a connection that is not there", IN, |s| {
            s.lane = Lane::Out;
            let inside = big(s, s.port);
            s.lane = Lane::In;
            s.deny(IcmpErrorUnmatched, too_big(s, &inside));
        }),
        Member::new("about another port of an allowed connection", IN, |s| {
            s.lane = Lane::Out;
            s.connect();
            let inside = big(s, s.port ^ 1);
            s.lane = Lane::In;
            s.deny(IcmpErrorUnmatched, too_big(s, &inside));
        }),
        Member::new("about datagrams that policy denies", ANY, |s| {
            let port = s.closed();
            let inside = asked(s, port);
            s.deny(IcmpErrorUnmatched, too_big(s, &inside));
        }),
    ],
};

fn big(s: &Scene<'_>, port: u16) -> Vec<u8> {
    let (from, to) = s.ends();
    let segment = craft::tcp(port, s.service(number::TCP), craft::flag::ACK);
    craft::ip(from, to, number::TCP, &[segment, vec![0; 400]].concat())
}

fn too_big(s: &Scene<'_>, inside: &[u8]) -> Vec<u8> {
    let (kind, code) = if s.v6 { (2, 0) } else { (3, 4) };
    let message = craft::about(kind, code, inside);
    s.frame(s.icmp(), &craft::with(message, 4, &[0, 0, 5, 0]))
}

fn error(s: &mut Scene<'_>) -> (u8, u8) {
    if s.v6 {
        s.dice
            .one(&[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)], (1, 4))
    } else {
        s.dice
            .one(&[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)], (3, 3))
    }
}

/// Datagrams of the other lane that policy allows.
fn open_back(s: &mut Scene<'_>) {
    let service = ground::service(s.lane.back(), number::UDP);
    let inside = asked(s, service);
    s.permit_back(craft::ethernet(craft::ethertype_of(s.peer), &inside));
}

/// A datagram of the other lane, to a port.
fn asked(s: &Scene<'_>, port: u16) -> Vec<u8> {
    let (to, from) = s.ends();
    craft::ip(from, to, number::UDP, &craft::udp(s.port, port, b"asked"))
}

fn complain(s: &mut Scene<'_>, inside: &[u8]) {
    let (kind, code) = error(s);
    let mut message = craft::about(kind, code, inside);
    if s.dice.once_in(2) {
        message.truncate(600);
    }
    s.deny(IcmpErrorUnmatched, s.frame(s.icmp(), &message));
}

/// Echo, and other questions and answers. Policy lets the workload ask, and nobody ask it.
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
            ask(s, s.port);
            s.deny(
                Policy,
                s.frame(s.icmp(), &craft::echo_reply(s.v6, s.port ^ 1)),
            );
        }),
        Member::new("a reply of another host", IN, |s| {
            ask(s, s.port);
            s.peer = ground::peer(s.v6, s.dice);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo_reply(s.v6, s.port)));
        }),
        Member::new("a request of the same identifier, reversed", IN, |s| {
            ask(s, s.port);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo(s.v6, s.port)));
        }),
        Member::new("a request of identifier 0, reversed", IN, |s| {
            ask(s, 0);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo(s.v6, 0)));
        }),
        Member::new("another question after a request", IN, |s| {
            ask(s, s.port);
            let kind = if s.v6 {
                139
            } else {
                s.dice.one(&[13, 15, 17], 13)
            };
            s.deny(Policy, s.frame(s.icmp(), &craft::icmp(kind, 0, s.port)));
        }),
        Member::new(
            "another question after a request of identifier 0",
            IN,
            |s| {
                ask(s, 0);
                let kind = if s.v6 {
                    139
                } else {
                    s.dice.one(&[13, 15, 17], 13)
                };
                s.deny(Policy, s.frame(s.icmp(), &craft::icmp(kind, 0, 0)));
            },
        ),
        Member::new("another question after one that was allowed", IN, |s| {
            let kinds: &[u8] = if s.v6 { &[139] } else { &[13, 15, 17] };
            let kind = s.dice.one(kinds, 13);
            let asked = s.frame_back(s.icmp(), &craft::icmp(kind, 0, s.port));
            s.permit_back(asked);
            let answer = s.frame(s.icmp(), &craft::icmp(kind + 1, 0, s.port));
            s.permit(answer);
            let kind = s.dice.one(kinds, 13);
            s.deny(Policy, s.frame(s.icmp(), &craft::icmp(kind, 0, s.port)));
        }),
        Member::new("a request to a denied host", OUT, |s| {
            s.peer = ground::stranger(s.v6);
            s.deny(Policy, s.frame(s.icmp(), &craft::echo(s.v6, s.port)));
        }),
        Member::new("half a header", ANY, |s| {
            let length = s.dice.below(8);
            let message = craft::echo(s.v6, s.port);
            s.deny(
                Truncated,
                s.frame(s.icmp(), message.get(..length).unwrap_or_default()),
            );
        }),
        Member::new("control: a reply to a request", IN, |s| {
            ask(s, s.port);
            s.permit(s.frame(s.icmp(), &craft::echo_reply(s.v6, s.port)));
        }),
    ],
};

fn ask(s: &mut Scene<'_>, id: u16) {
    s.permit_back(s.frame_back(s.icmp(), &craft::echo(s.v6, id)));
}
