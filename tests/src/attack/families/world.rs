//! Rules for the world, and for wide ranges, to what is not the world: the node, neighbours on the
//! link, groups, broadcast, Services and workloads that have rules of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::Policy;

use crate::attack::builder::CaseBuilder;
use crate::attack::case::Expect;
use crate::attack::family::{ANY, ANY4, Family, IN4, IN6, Member, OUT, OUT4, OUT6};
use crate::attack::fixture::{
    self, NAMED_PORT, RANGE_PORT, UNLISTED_NODE, WORLD_PORT, other_workload, unlisted_host,
};

pub(super) const WORLD: Family = Family {
    name: "world-reach",
    members: &[
        Member::new("a neighbour's link-local address", OUT4, |s| {
            let [_, a, b, ..] = s.rng.next_u64().to_be_bytes();
            deny(s, v4([169, 254, a, b]), wide);
        }),
        Member::new("cloud metadata", OUT4, |s| {
            deny(s, v4([169, 254, 169, 254]), wide);
        }),
        Member::new("all hosts", OUT4, |s| deny(s, v4([224, 0, 0, 1]), wide)),
        Member::new("a group beyond the link", OUT4, |s| {
            let [a, b, c, ..] = s.rng.next_u64().to_be_bytes();
            deny(s, v4([224 + a % 16, b, c, 9]), wide);
        }),
        Member::new("broadcast", OUT4, |s| deny(s, v4([255; 4]), wide)),
        Member::new("a link's broadcast address", OUT4, |s| {
            let last = s.rng.choose(&[0, 255], 255);
            deny(s, v4([198, 19, 7, last]), wide);
        }),
        Member::new("loopback", OUT4, |s| deny(s, v4([127, 0, 0, 1]), wide)),
        Member::new("this network", OUT4, |s| deny(s, v4([0, 0, 0, 7]), wide)),
        Member::new("a neighbour's IPv6 link-local address", OUT6, |s| {
            let last = s.rng.between(1, 60_000);
            deny(s, v6([0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, last]), wide);
        }),
        Member::new("all nodes", OUT6, |s| {
            deny(s, v6([0xff02, 0, 0, 0, 0, 0, 0, 1]), wide);
        }),
        Member::new("a group of any scope", OUT6, |s| {
            let scope = s.rng.choose(&[1, 3, 5, 8, 14], 14);
            deny(s, v6([0xff00 | scope, 0, 0, 0, 0, 0, 0, 0x101]), wide);
        }),
        Member::new("IPv6 loopback", OUT6, |s| {
            deny(s, v6([0, 0, 0, 0, 0, 0, 0, 1]), wide);
        }),
        Member::new("an IPv4-mapped host", OUT6, |s| {
            s.peer = v6([0, 0, 0, 0, 0, 0xffff, 0xcb00, 0x7109]);
            let port = wide(s);
            let frame = s.datagram(port);
            s.send(Expect::Denied(None), frame);
        }),
        Member::new("an unlisted address of the node", ANY4, |s| {
            deny(s, IpAddr::V4(UNLISTED_NODE.0), |_| WORLD_PORT);
        }),
        Member::new("the node", ANY, |s| {
            deny(s, fixture::node(s.v6), |_| WORLD_PORT);
        }),
        Member::new("a workload", ANY, |s| {
            deny(s, other_workload(s.v6), |_| WORLD_PORT);
        }),
        Member::new("a Service", ANY, |s| {
            deny(s, fixture::service(s.v6), |_| WORLD_PORT);
        }),
        Member::new("from a neighbour's link-local address", IN4, |s| {
            deny(s, v4([169, 254, 1, 9]), wide);
        }),
        Member::new("from a neighbour's IPv6 link-local address", IN6, |s| {
            deny(s, v6([0xfe80, 0, 0, 0, 0, 0, 0, 9]), wide);
        }),
        Member::new("control: the world", ANY, |s| {
            permit(s, unlisted_host(s.v6), WORLD_PORT);
        }),
        Member::new("control: other addresses in a wide range", ANY, |s| {
            let v4 = s.rng.choose(
                &[
                    other_workload(false),
                    unlisted_host(false),
                    fixture::service(false),
                ],
                unlisted_host(false),
            );
            let v6 = v6([0xfd00, 0, 0, 0, 0, 0, 0, 9]);
            permit(s, if s.v6 { v6 } else { v4 }, RANGE_PORT);
        }),
        Member::new("control: a link-local address by its range", ANY, |s| {
            let v6 = v6([0xfe80, 0, 0, 0, 0, 0, 0, 9]);
            permit(s, if s.v6 { v6 } else { v4([169, 254, 1, 9]) }, NAMED_PORT);
        }),
        Member::new("control: a group by its range", OUT, |s| {
            let v6 = v6([0xff02, 0, 0, 0, 0, 0, 0, 0xfb]);
            permit(s, if s.v6 { v6 } else { v4([224, 0, 0, 251]) }, NAMED_PORT);
        }),
    ],
};

pub(super) const ROUTED: Family = Family {
    name: "routed-world",
    members: &[
        Member::new("a Service", OUT6, |s| {
            deny(s, fixture::service(true), |_| WORLD_PORT);
        }),
        Member::new("the node", OUT6, |s| {
            deny(s, fixture::node(true), |_| WORLD_PORT);
        }),
        Member::new("a workload", OUT6, |s| {
            deny(s, other_workload(true), |_| WORLD_PORT);
        }),
        Member::new("control: the world", OUT6, |s| {
            permit(s, unlisted_host(true), WORLD_PORT);
        }),
    ],
};

const fn v4(ip: [u8; 4]) -> IpAddr {
    let [a, b, c, d] = ip;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(ip: [u16; 8]) -> IpAddr {
    let [a, b, c, d, e, f, g, h] = ip;
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// A port that is open to the world or to every address.
fn wide(s: &mut CaseBuilder<'_>) -> u16 {
    s.rng.choose(&[WORLD_PORT, RANGE_PORT], RANGE_PORT)
}

fn deny(s: &mut CaseBuilder<'_>, peer: IpAddr, port: fn(&mut CaseBuilder<'_>) -> u16) {
    s.peer = peer;
    let port = port(s);
    s.deny(Policy, s.datagram(port));
}

fn permit(s: &mut CaseBuilder<'_>, peer: IpAddr, port: u16) {
    s.peer = peer;
    s.permit(s.datagram(port));
}
