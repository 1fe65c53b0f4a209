//! UDP: replies from elsewhere, lengths that lie, and what policy simply denies.

use ringfence_common::drop_reason::DropReason::{Policy, UdpHeader};

use crate::attack::craft;
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::ground::{self, Lane, number};
use crate::attack::scene::Scene;

/// Answers that are none.
pub(super) const REPLIES: Family = Family {
    name: "udp-replies",
    members: &[
        Member::new("without a question", ANY, |s| {
            let from = ground::service(s.lane.back(), number::UDP);
            s.deny(
                Policy,
                s.frame(number::UDP, &craft::udp(from, s.port, b"answer")),
            );
        }),
        Member::new("from another address", IN, |s| {
            asked(s);
            s.peer = ground::peer(s.v6, s.dice);
            answer(s, 0);
        }),
        Member::new("from another port", IN, |s| {
            asked(s);
            answer(s, 1);
        }),
        Member::new("to another port", IN, |s| {
            asked(s);
            s.port ^= 1;
            answer(s, 0);
        }),
        Member::new("over TCP", IN, |s| {
            asked(s);
            let from = ground::service(Lane::Out, number::UDP);
            let segment = craft::tcp(from, s.port, craft::flag::ACK);
            s.deny(Policy, s.frame(number::TCP, &segment));
        }),
        Member::new("shorter than its header", ANY, |s| {
            let length = s.dice.below(8);
            let datagram = craft::udp_of(s.port, s.service(number::UDP), length, b"short");
            s.deny(UdpHeader, s.frame(number::UDP, &datagram));
        }),
        Member::new("longer than the packet", ANY, |s| {
            let length = 14 + s.dice.below(2000);
            let datagram = craft::udp_of(s.port, s.service(number::UDP), length, b"short");
            s.deny(UdpHeader, s.frame(number::UDP, &datagram));
        }),
        Member::new("control: a reply", ANY, answered),
    ],
};

fn answered(s: &mut Scene<'_>) {
    s.exchange();
}

fn asked(s: &mut Scene<'_>) {
    s.lane = Lane::Out;
    s.exchange();
    s.lane = Lane::In;
}

fn answer(s: &mut Scene<'_>, off: u16) {
    let from = ground::service(Lane::Out, number::UDP) + off;
    s.deny(
        Policy,
        s.frame(number::UDP, &craft::udp(from, s.port, b"answer")),
    );
}

/// Well-formed packets that policy denies.
pub(super) const DENIED: Family = Family {
    name: "plainly-denied",
    members: &[
        Member::new("a denied port", ANY, |s| {
            let protocol = s
                .dice
                .one(&[number::TCP, number::UDP, number::SCTP], number::UDP);
            let port = s.closed();
            s.deny(
                Policy,
                s.frame(protocol, &craft::transport(protocol, s.port, port)),
            );
        }),
        Member::new("the port of another protocol", ANY, |s| {
            let port = s.service(number::TCP);
            s.deny(
                Policy,
                s.frame(number::UDP, &craft::udp(s.port, port, b"denied")),
            );
        }),
        Member::new("the port of the other direction", ANY, |s| {
            let port = ground::service(s.lane.back(), number::UDP);
            s.deny(
                Policy,
                s.frame(number::UDP, &craft::udp(s.port, port, b"denied")),
            );
        }),
        Member::new("a denied host", ANY, |s| {
            s.peer = ground::stranger(s.v6);
            to_service(s);
        }),
        Member::new("a denied workload", ANY, |s| {
            s.peer = ground::other(s.v6);
            to_service(s);
        }),
        Member::new("the node", OUT, |s| {
            s.peer = ground::node(s.v6);
            to_service(s);
        }),
        Member::new("the node, from elsewhere", IN, |s| {
            s.peer = ground::node(s.v6);
            to_service(s);
        }),
        Member::new("control: an allowed port", ANY, |s| {
            let protocol = s
                .dice
                .one(&[number::TCP, number::UDP, number::SCTP], number::UDP);
            let port = s.service(protocol);
            s.permit(s.frame(protocol, &craft::transport(protocol, s.port, port)));
        }),
    ],
};

fn to_service(s: &mut Scene<'_>) {
    let protocol = s
        .dice
        .one(&[number::TCP, number::UDP, number::SCTP], number::UDP);
    let port = s.service(protocol);
    let frame = s.frame(protocol, &craft::transport(protocol, s.port, port));
    s.send(crate::attack::shot::Expect::Denied(None), frame);
}
