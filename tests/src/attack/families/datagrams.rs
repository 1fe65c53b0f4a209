//! UDP: forged replies, wrong lengths, and packets that policy simply denies.

use ringfence_common::drop_reason::DropReason::{Policy, UdpHeader};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft;
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::fixture::{self, Direction, protocol};

/// Packets that look like replies but are not.
pub(super) const REPLIES: Family = Family {
    name: "udp-replies",
    members: &[
        Member::new("without a request", ANY, |s| {
            let from = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            s.deny(
                Policy,
                s.frame(protocol::UDP, &craft::udp(from, s.port, b"answer")),
            );
        }),
        Member::new("from another address", IN, |s| {
            request_from_workload(s);
            s.peer = fixture::peer(s.v6, s.rng);
            denied_reply(s, 0);
        }),
        Member::new("from another port", IN, |s| {
            request_from_workload(s);
            denied_reply(s, 1);
        }),
        Member::new("to another port", IN, |s| {
            request_from_workload(s);
            s.port ^= 1;
            denied_reply(s, 0);
        }),
        Member::new("over TCP", IN, |s| {
            request_from_workload(s);
            let from = fixture::allowed_port(Direction::Out, protocol::UDP);
            let segment = craft::tcp(from, s.port, craft::flag::ACK);
            s.deny(Policy, s.frame(protocol::TCP, &segment));
        }),
        Member::new("shorter than its header", ANY, |s| {
            let length = s.rng.below(8);
            let datagram =
                craft::udp_with_length(s.port, s.allowed_port(protocol::UDP), length, b"short");
            s.deny(UdpHeader, s.frame(protocol::UDP, &datagram));
        }),
        Member::new("longer than the packet", ANY, |s| {
            let length = 14 + s.rng.below(2000);
            let datagram =
                craft::udp_with_length(s.port, s.allowed_port(protocol::UDP), length, b"short");
            s.deny(UdpHeader, s.frame(protocol::UDP, &datagram));
        }),
        Member::new("control: a reply", ANY, exchange),
    ],
};

fn exchange(s: &mut CaseBuilder<'_>) {
    s.exchange();
}

fn request_from_workload(s: &mut CaseBuilder<'_>) {
    s.direction = Direction::Out;
    s.exchange();
    s.direction = Direction::In;
}

fn denied_reply(s: &mut CaseBuilder<'_>, off: u16) {
    let from = fixture::allowed_port(Direction::Out, protocol::UDP) + off;
    s.deny(
        Policy,
        s.frame(protocol::UDP, &craft::udp(from, s.port, b"answer")),
    );
}

/// Well-formed packets that policy denies.
pub(super) const DENIED: Family = Family {
    name: "plainly-denied",
    members: &[
        Member::new("a denied port", ANY, |s| {
            let protocol = s.rng.choose(
                &[protocol::TCP, protocol::UDP, protocol::SCTP],
                protocol::UDP,
            );
            let port = s.denied_port();
            s.deny(
                Policy,
                s.frame(protocol, &craft::transport(protocol, s.port, port)),
            );
        }),
        Member::new("the port of another protocol", ANY, |s| {
            let port = s.allowed_port(protocol::TCP);
            s.deny(
                Policy,
                s.frame(protocol::UDP, &craft::udp(s.port, port, b"denied")),
            );
        }),
        Member::new("the port of the other direction", ANY, |s| {
            let port = fixture::allowed_port(s.direction.opposite(), protocol::UDP);
            s.deny(
                Policy,
                s.frame(protocol::UDP, &craft::udp(s.port, port, b"denied")),
            );
        }),
        Member::new("a denied host", ANY, |s| {
            s.peer = fixture::unlisted_host(s.v6);
            to_service(s);
        }),
        Member::new("a denied workload", ANY, |s| {
            s.peer = fixture::other_workload(s.v6);
            to_service(s);
        }),
        Member::new("the node", OUT, |s| {
            s.peer = fixture::node(s.v6);
            to_service(s);
        }),
        Member::new("the node's address, from the segment", IN, |s| {
            s.peer = fixture::node(s.v6);
            to_service(s);
        }),
        Member::new("control: an allowed port", ANY, |s| {
            let protocol = s.rng.choose(
                &[protocol::TCP, protocol::UDP, protocol::SCTP],
                protocol::UDP,
            );
            let port = s.allowed_port(protocol);
            s.permit(s.frame(protocol, &craft::transport(protocol, s.port, port)));
        }),
    ],
};

fn to_service(s: &mut CaseBuilder<'_>) {
    let protocol = s.rng.choose(
        &[protocol::TCP, protocol::UDP, protocol::SCTP],
        protocol::UDP,
    );
    let port = s.allowed_port(protocol);
    let frame = s.frame(protocol, &craft::transport(protocol, s.port, port));
    s.send(crate::attack::case::Expect::Denied(None), frame);
}
