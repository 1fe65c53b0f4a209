//! Packets to the workload's own address, under the hardware address of another: on a shared link they
//! reach it, so they need a rule like all others.

use ringfence_common::drop_reason::DropReason::{Policy, SpoofedSource};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, flag};
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::fixture::protocol;

pub(super) const OWN_DESTINATION: Family = Family {
    name: "own-destination",
    members: &[
        Member::new("TCP", OUT, |s| {
            let port = s.denied_port();
            to_itself(s, protocol::TCP, port);
        }),
        Member::new("UDP", OUT, |s| {
            let port = s.denied_port();
            to_itself(s, protocol::UDP, port);
        }),
        Member::new("SCTP", OUT, |s| {
            let port = s.denied_port();
            to_itself(s, protocol::SCTP, port);
        }),
        Member::new("ICMP echo", OUT, |s| to_itself(s, s.icmp(), 0)),
        Member::new("any protocol", OUT, |s| {
            let number = s.rng.choose(&[2, 4, 41, 47, 50, 89, 97, 112, 253], 253);
            to_itself(s, number, 0);
        }),
        Member::new("to a port that peers have open", OUT, |s| {
            let port = s.allowed_port(protocol::UDP);
            to_itself(s, protocol::UDP, port);
        }),
        Member::new("within a connection", OUT, |s| {
            s.peer = s.workload();
            let flags = s.rng.choose(&[flag::ACK, flag::SYN | flag::ACK], flag::ACK);
            let port = s.denied_port();
            s.deny(Policy, s.segment(port, flags));
        }),
        Member::new("in fragments", OUT, |s| {
            let ends = (s.workload(), s.workload());
            let port = s.denied_port();
            let datagram = craft::udp_with_length(s.port, port, 24, b"payload.");
            let (id, number) = (s.port, protocol::UDP);
            s.deny(
                Policy,
                craft::fragment(ends, number, (0, true), id, &datagram),
            );
            s.deny(
                Policy,
                craft::fragment(ends, number, (2, false), id, b"the rest"),
            );
        }),
        Member::new("from the segment", IN, |s| {
            s.peer = s.workload();
            let port = s.denied_port();
            s.deny(SpoofedSource, s.datagram(port));
        }),
        Member::new("control: to a peer", ANY, |s| {
            let port = s.allowed_port(protocol::UDP);
            s.permit(s.datagram(port));
        }),
    ],
};

fn to_itself(s: &mut CaseBuilder<'_>, protocol: u8, port: u16) {
    s.peer = s.workload();
    let payload = craft::transport(protocol, s.port, port);
    s.deny(Policy, s.frame(protocol, &payload));
}
