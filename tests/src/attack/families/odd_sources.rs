//! IPv6 source addresses that no workload has as its own.

use std::net::{IpAddr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::SpoofedSource;

use super::announcements::ALL_NODES;
use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, LINK_LOCAL};
use crate::attack::family::{Family, Member, OUT6};
use crate::attack::fixture::{self, protocol};

/// IPv6 source addresses that belong to no endpoint.
pub(super) const ODD_SOURCES: Family = Family {
    name: "odd-ipv6-sources",
    members: &[
        Member::new("link-local", OUT6, |s| from_odd_source(s, LINK_LOCAL)),
        Member::new("multicast", OUT6, |s| from_odd_source(s, ALL_NODES)),
        Member::new("IPv4-mapped own address", OUT6, |s| {
            from_odd_source(s, mapped(fixture::workload(false)));
        }),
        Member::new("IPv4-mapped address of another workload", OUT6, |s| {
            from_odd_source(s, mapped(fixture::other_workload(false)));
        }),
        Member::new("6to4 of its own address", OUT6, |s| {
            from_odd_source(
                s,
                IpAddr::V6(Ipv6Addr::new(0x2002, 0xc612, 0x0102, 0, 0, 0, 0, 1)),
            );
        }),
        Member::new("ICMP echo from link-local", OUT6, |s| {
            s.deny(
                SpoofedSource,
                craft::ip_frame(
                    LINK_LOCAL,
                    s.peer,
                    protocol::ICMPV6,
                    &craft::echo(true, s.port),
                ),
            );
        }),
        Member::new("DHCPv6 to a host", OUT6, |s| {
            let datagram = craft::udp(546, 547, b"carried");
            s.deny(
                SpoofedSource,
                craft::ip_frame(LINK_LOCAL, s.peer, protocol::UDP, &datagram),
            );
        }),
    ],
};

fn from_odd_source(s: &mut CaseBuilder<'_>, source: IpAddr) {
    let protocol = s.rng.choose(&[protocol::TCP, protocol::UDP], protocol::UDP);
    let payload = craft::transport(protocol, s.port, s.allowed_port(protocol));
    s.deny(
        SpoofedSource,
        craft::ip_frame(source, s.peer, protocol, &payload),
    );
}

const fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    }
}
