//! An identity borrowed through an overlay: a tunnel packet to a node, which forwards what is inside with the
//! source it has there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::Policy;

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, flag};
use crate::attack::family::{Family, Member, OUT, OUT6};
use crate::attack::fixture::{self, NAMED_TUNNEL, protocol};

pub(super) const NODE_TUNNELS: Family = Family {
    name: "node-tunnel",
    members: &[
        Member::new("VXLAN", OUT, |s| {
            over_udp(s, 8472, &[8, 0, 0, 0, 0, 0, 42, 0]);
        }),
        Member::new("Geneve", OUT, |s| {
            over_udp(s, 6081, &[0, 0, 0x65, 0x58, 0, 0, 42, 0]);
        }),
        Member::new("WireGuard", OUT, |s| {
            let port = s.rng.choose(&[51_820, 51_871], 51_820);
            over_udp(s, port, &[4, 0, 0, 0, 0, 0, 0, 1]);
        }),
        Member::new("IPv4 inside", OUT, |s| {
            s.peer = fixture::other_node(s.v6);
            s.deny(Policy, s.frame(4, &inside(false)));
        }),
        Member::new("IPv6 inside", OUT, |s| {
            s.peer = fixture::other_node(s.v6);
            s.deny(Policy, s.frame(41, &inside(true)));
        }),
        Member::new("in fragments", OUT, |s| {
            s.peer = fixture::other_node(s.v6);
            let port = s.rng.choose(&[8472, 6081], 8472);
            let datagram = craft::udp_with_length(s.port, port, 24, b"payload.");
            let (id, ends) = (s.port, s.ends());
            for (offset, more, bytes) in [(0, true, datagram.as_slice()), (2, false, b"the rest")] {
                let part = craft::fragment(ends, protocol::UDP, (offset, more), id, bytes);
                s.deny(Policy, part);
            }
        }),
        Member::new("to a group, a link-local address, broadcast", OUT, |s| {
            s.peer = on_link(s);
            s.deny(Policy, vxlan(s, 8472));
        }),
        Member::new("control: other ports of these", OUT, |s| {
            s.peer = on_link(s);
            let port = s.rng.choose(&[8470, 8471, 8473, 8474], 8471);
            s.permit(vxlan(s, port));
        }),
        Member::new("control: a tunnel port by its number", OUT, |s| {
            s.peer = fixture::other_node(s.v6);
            s.permit(s.datagram(NAMED_TUNNEL));
        }),
        Member::new("control: a tunnel protocol by its number", OUT, |s| {
            s.peer = fixture::other_node(s.v6);
            let payload = [&[0, 0, 8, 0], inside(false).as_slice()].concat();
            s.permit(s.frame(47, &payload));
        }),
        Member::new("control: other ports", OUT, |s| {
            s.peer = fixture::other_node(s.v6);
            let port = s.rng.choose(&[4790, 8471, 53], 53);
            s.permit(s.datagram(port));
        }),
        Member::new("control: the same number over TCP", OUT, |s| {
            s.peer = fixture::other_node(s.v6);
            s.permit(s.segment(8472, flag::SYN));
        }),
    ],
};

pub(super) const ROUTED: Family = Family {
    name: "routed-tunnel",
    members: &[
        Member::new("VXLAN", OUT6, |s| {
            over_udp(s, 8472, &[8, 0, 0, 0, 0, 0, 42, 0]);
        }),
        Member::new("IPv6 inside", OUT6, |s| {
            s.peer = fixture::other_node(true);
            s.deny(Policy, s.frame(41, &inside(true)));
        }),
        Member::new("control: a tunnel port by its number", OUT6, |s| {
            s.peer = fixture::other_node(true);
            s.permit(s.datagram(NAMED_TUNNEL));
        }),
    ],
};

/// What another workload might send.
fn inside(v6: bool) -> Vec<u8> {
    let segment = craft::tcp(40_000, 8080, flag::SYN);
    let (from, to) = (fixture::other_workload(v6), fixture::unlisted_host(v6));
    craft::ip(from, to, protocol::TCP, &segment)
}

/// What may have the node behind it.
fn on_link(s: &mut CaseBuilder<'_>) -> IpAddr {
    if s.v6 {
        let all = [(0xff02, 1), (0xff05, 0x101), (0xfe80, 1)];
        let (first, last) = s.rng.choose(&all, (0xff02, 1));
        return Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).into();
    }
    let all = [[224, 0, 0, 1], [255; 4], [169, 254, 1, 1]];
    Ipv4Addr::from(s.rng.choose(&all, [224, 0, 0, 1])).into()
}

/// A frame of another workload in a VXLAN packet.
fn vxlan(s: &CaseBuilder<'_>, port: u16) -> Vec<u8> {
    let frame = craft::ethernet(0x0800, &inside(false));
    let payload = [&[8, 0, 0, 0, 0, 0, 42, 0], frame.as_slice()].concat();
    s.frame(protocol::UDP, &craft::udp(s.port, port, &payload))
}

fn over_udp(s: &mut CaseBuilder<'_>, port: u16, header: &[u8]) {
    s.peer = fixture::other_node(s.v6);
    let frame = craft::ethernet(0x0800, &inside(false));
    let payload = [header, frame.as_slice()].concat();
    let datagram = craft::udp(s.port, port, &payload);
    s.deny(Policy, s.frame(protocol::UDP, &datagram));
}
