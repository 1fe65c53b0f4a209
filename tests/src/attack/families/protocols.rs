//! Every protocol number, tunnels, and special destination addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attack::builder::CaseBuilder;
use crate::attack::case::Expect;
use crate::attack::craft::{self, flag};
use crate::attack::family::{ANY, Family, Member, OUT4, OUT6};
use crate::attack::fixture::{self, protocol};

/// Protocols without a rule, with payloads that look like allowed ports.
pub(super) const RAW: Family = Family {
    name: "raw-protocols",
    members: &[
        Member::new("any number", ANY, |s| {
            let protocol = s.rng.byte();
            raw(s, protocol);
        }),
        Member::new("IGMP", ANY, |s| raw(s, 2)),
        Member::new("UDP-Lite", ANY, |s| raw(s, 136)),
        Member::new("DCCP", ANY, |s| raw(s, 33)),
        Member::new("ESP", ANY, |s| raw(s, 50)),
        Member::new("VRRP", ANY, |s| raw(s, 112)),
        Member::new("OSPF", ANY, |s| raw(s, 89)),
        Member::new("reserved", ANY, |s| raw(s, 255)),
        Member::new("IPv6 extension numbers over IPv4", OUT4, |s| {
            let protocol = s.rng.choose(&[0, 43, 44, 51, 60], 0);
            raw(s, protocol);
        }),
    ],
};

/// A packet that looks like UDP to the allowed port. Protocols that other families cover are
/// replaced by number 253.
fn raw(s: &mut CaseBuilder<'_>, protocol: u8) {
    let known = [
        protocol::TCP,
        protocol::UDP,
        protocol::SCTP,
        protocol::ICMP,
        protocol::ICMPV6,
        0,
        43,
        44,
        51,
        60,
    ];
    let number = if known.contains(&protocol) && (s.v6 || !matches!(protocol, 0 | 43..=60)) {
        253
    } else {
        protocol
    };
    let number = if number == protocol::ICMPV6 {
        253
    } else {
        number
    };
    let payload = craft::udp(s.port, s.allowed_port(protocol::UDP), b"raw");
    s.send(Expect::Denied(None), s.frame(number, &payload));
}

/// A packet to a denied destination, encapsulated in a packet to a peer.
pub(super) const TUNNELS: Family = Family {
    name: "tunnels",
    members: &[
        Member::new("IPv4 inside", ANY, |s| tunnel(s, 4, &[], false)),
        Member::new("IPv6 inside", ANY, |s| tunnel(s, 41, &[], true)),
        Member::new("GRE", ANY, |s| tunnel(s, 47, &[0, 0, 8, 0], false)),
        Member::new("GRE around Ethernet", ANY, |s| {
            tunnel(s, 47, &[0, 0, 0x65, 0x58], false);
        }),
        Member::new("Ethernet in IP", ANY, |s| tunnel(s, 97, &[0x30, 0], false)),
        Member::new("MPLS in IP", ANY, |s| {
            tunnel(s, 137, &[0, 0, 0x11, 0xff], false);
        }),
        Member::new("L2TP", ANY, |s| tunnel(s, 115, &[0, 0, 0, 1], false)),
        Member::new("ESP around IP", ANY, |s| {
            tunnel(s, 50, &[0, 0, 1, 0, 0, 0, 0, 1], false);
        }),
        Member::new("VXLAN to a denied port", ANY, |s| over_udp(s, 4789)),
        Member::new("Geneve to a denied port", ANY, |s| over_udp(s, 6081)),
        Member::new("WireGuard to a denied port", ANY, |s| over_udp(s, 51820)),
        Member::new("IP in IP in an allowed flow", ANY, |s| {
            s.exchange();
            tunnel(s, 4, &[], false);
        }),
    ],
};

fn inside(s: &CaseBuilder<'_>, v6: bool) -> Vec<u8> {
    let segment = craft::tcp(s.port, 8080, flag::SYN);
    craft::ip(
        fixture::workload(v6),
        fixture::other_workload(v6),
        protocol::TCP,
        &segment,
    )
}

fn tunnel(s: &mut CaseBuilder<'_>, protocol: u8, header: &[u8], v6: bool) {
    let payload = [header, &inside(s, v6)].concat();
    s.deny(
        ringfence_common::drop_reason::DropReason::Policy,
        s.frame(protocol, &payload),
    );
}

fn over_udp(s: &mut CaseBuilder<'_>, port: u16) {
    let payload = [&[8, 0, 0, 0, 0, 0, 1, 0], inside(s, false).as_slice()].concat();
    let frame = s.frame(protocol::UDP, &craft::udp(s.port, port, &payload));
    s.deny(ringfence_common::drop_reason::DropReason::Policy, frame);
}

/// Broadcast, multicast, loopback, link-local and cloud metadata destinations.
pub(super) const DESTINATIONS: Family = Family {
    name: "special-destinations",
    members: &[
        Member::new("broadcast", OUT4, |s| to4(s, [255, 255, 255, 255])),
        Member::new("directed broadcast", OUT4, |s| to4(s, [198, 18, 1, 255])),
        Member::new("multicast", OUT4, |s| {
            let [_, last] = s.rng.between(0, 255).to_be_bytes();
            to4(s, [224, 0, 0, last]);
        }),
        Member::new("administratively scoped multicast", OUT4, |s| {
            let bytes = [s.rng.byte(), s.rng.byte(), s.rng.byte()];
            to4(s, [239, bytes[0], bytes[1], bytes[2]]);
        }),
        Member::new("network 0", OUT4, |s| {
            let last = s.rng.byte();
            to4(s, [0, 0, 0, last]);
        }),
        Member::new("loopback", OUT4, |s| {
            let last = s.rng.byte();
            to4(s, [127, 0, 0, last]);
        }),
        Member::new("cloud metadata", OUT4, |s| to4(s, [169, 254, 169, 254])),
        Member::new("link-local", OUT4, |s| to4(s, [169, 254, 1, 1])),
        Member::new("class E", OUT4, |s| to4(s, [250, 1, 2, 3])),
        Member::new("all nodes", OUT6, |s| to6(s, [0xff02, 0, 0, 0, 0, 0, 0, 1])),
        Member::new("a global group", OUT6, |s| {
            to6(s, [0xff0e, 0, 0, 0, 0, 0, 0, 0x101]);
        }),
        Member::new("unspecified", OUT6, |s| to6(s, [0; 8])),
        Member::new("IPv6 loopback", OUT6, |s| to6(s, [0, 0, 0, 0, 0, 0, 0, 1])),
        Member::new("IPv6 link-local", OUT6, |s| {
            to6(s, [0xfe80, 0, 0, 0, 0, 0, 0, 1]);
        }),
        Member::new("IPv4-mapped peer", OUT6, |s| {
            to6(s, [0, 0, 0, 0, 0, 0xffff, 0x0a01, 0x0203]);
        }),
        Member::new("IPv6 cloud metadata", OUT6, |s| {
            to6(s, [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]);
        }),
        Member::new("control: DHCP", OUT4, |s| {
            let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let all = IpAddr::V4(Ipv4Addr::BROADCAST);
            s.permit(craft::ip_frame(
                none,
                all,
                protocol::UDP,
                &craft::udp(68, 67, b"discover"),
            ));
        }),
        Member::new("like DHCP, but other ports", OUT4, |s| {
            let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let all = IpAddr::V4(Ipv4Addr::BROADCAST);
            let (from, to) = s
                .rng
                .choose(&[(68, 68), (67, 68), (1068, 67), (68, 53)], (67, 68));
            let frame = craft::ip_frame(none, all, protocol::UDP, &craft::udp(from, to, b"offer"));
            s.deny(
                ringfence_common::drop_reason::DropReason::SpoofedSource,
                frame,
            );
        }),
    ],
};

fn to4(s: &mut CaseBuilder<'_>, to: [u8; 4]) {
    special(s, IpAddr::V4(Ipv4Addr::from(to)));
}

fn to6(s: &mut CaseBuilder<'_>, to: [u16; 8]) {
    special(s, IpAddr::V6(Ipv6Addr::from(to)));
}

fn special(s: &mut CaseBuilder<'_>, to: IpAddr) {
    let protocol = s.rng.choose(
        &[protocol::TCP, protocol::UDP, protocol::ICMP],
        protocol::UDP,
    );
    let protocol = if protocol == protocol::ICMP {
        s.icmp()
    } else {
        protocol
    };
    let payload = craft::transport(protocol, s.port, s.allowed_port(protocol));
    let frame = craft::ip_frame(s.workload(), to, protocol, &payload);
    s.send(Expect::Denied(None), frame);
}
