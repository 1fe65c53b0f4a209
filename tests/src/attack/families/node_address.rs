//! Packets that others send with the node's address, towards ports that a rule opens to the node. The node's
//! own packets need no rule, so this one admits no one else.

use ringfence_common::drop_reason::DropReason::Policy;

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, flag};
use crate::attack::family::{ANY, Family, IN, Member};
use crate::attack::fixture::{self, NODE_ONLY_PORT, protocol};

pub(super) const NODE_ADDRESS: Family = Family {
    name: "node-address",
    members: &[
        Member::new("TCP to a port of the node", IN, |s| {
            as_node(s, protocol::TCP, NODE_ONLY_PORT);
        }),
        Member::new("UDP to a port of the node", IN, |s| {
            as_node(s, protocol::UDP, NODE_ONLY_PORT);
        }),
        Member::new("SCTP to a port of the node", IN, |s| {
            as_node(s, protocol::SCTP, NODE_ONLY_PORT);
        }),
        Member::new("to a port that peers may use", IN, |s| {
            let number = s.rng.choose(&[protocol::TCP, protocol::UDP], protocol::UDP);
            let port = s.allowed_port(number);
            as_node(s, number, port);
        }),
        Member::new("mid-flow", IN, |s| {
            s.peer = fixture::node(s.v6);
            let flags = s.rng.choose(
                &[flag::ACK, flag::SYN | flag::ACK, flag::FIN | flag::ACK],
                flag::ACK,
            );
            s.deny(Policy, s.segment(NODE_ONLY_PORT, flags));
        }),
        Member::new("an echo request", IN, |s| {
            let number = s.icmp();
            as_node(s, number, 0);
        }),
        Member::new("and its reply by the workload", IN, |s| {
            as_node(s, protocol::UDP, NODE_ONLY_PORT);
            let reply = craft::udp(NODE_ONLY_PORT, s.port, b"answer");
            s.deny_back(Policy, s.frame_back(protocol::UDP, &reply));
        }),
        Member::new("control: by a peer", ANY, |s| {
            let port = s.allowed_port(protocol::UDP);
            s.permit(s.datagram(port));
        }),
    ],
};

fn as_node(s: &mut CaseBuilder<'_>, number: u8, port: u16) {
    s.peer = fixture::node(s.v6);
    let payload = craft::transport(number, s.port, port);
    s.deny(Policy, s.frame(number, &payload));
}
