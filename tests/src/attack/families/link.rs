//! Below IP: VLAN tags, Ethernet types and lengths that hide a packet from a fence that only checks
//! IPv4 and IPv6.

use ringfence_common::drop_reason::DropReason::{
    Ethertype, Ipv4Header, Ipv6Header, Policy, Truncated, Vlan,
};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, ethertype_of};
use crate::attack::family::{ANY, ANY4, ANY6, Family, Member};
use crate::attack::fixture::protocol;
use crate::frame::{IPV4, IPV6};

/// VLAN tags, single and stacked.
pub(super) const VLANS: Family = Family {
    name: "vlan",
    members: &[
        Member::new("a customer tag", ANY, |s| {
            let id = s.rng.between(1, 4094);
            deny_tagged(s, &[(0x8100, id)]);
        }),
        Member::new("a priority tag", ANY, |s| deny_tagged(s, &[(0x8100, 0)])),
        Member::new("a priority tag with priority", ANY, |s| {
            deny_tagged(s, &[(0x8100, 0xe000)]);
        }),
        Member::new("a service tag", ANY, |s| deny_tagged(s, &[(0x88a8, 5)])),
        Member::new("service and customer tags", ANY, |s| {
            deny_tagged(s, &[(0x88a8, 5), (0x8100, 6)]);
        }),
        Member::new("stacked priority tags", ANY, |s| {
            deny_tagged(s, &[(0x8100, 0), (0x8100, 0)]);
        }),
        Member::new("many priority tags", ANY, |s| {
            let count = 3 + s.rng.below(6);
            deny_tagged(s, &vec![(0x8100, 0); count]);
        }),
        Member::new("a tag around ARP", ANY4, |s| {
            let body = [
                &[0, 0, 8, 6],
                craft::arp(2, s.workload(), s.peer).as_slice(),
            ]
            .concat();
            s.deny(Vlan, craft::ethernet(0x8100, &body));
        }),
        Member::new("a tag in an allowed flow", ANY, |s| {
            s.connect();
            deny_tagged(s, &[(0x8100, 0)]);
        }),
    ],
};

fn deny_tagged(s: &mut CaseBuilder<'_>, tags: &[(u16, u16)]) {
    let (from, to) = s.ends();
    let protocol = s.rng.choose(&[protocol::TCP, protocol::UDP], protocol::UDP);
    let packet = craft::ip(
        from,
        to,
        protocol,
        &craft::transport(protocol, s.port, s.allowed_port(protocol)),
    );
    let mut body = [ethertype_of(to).to_be_bytes().as_slice(), &packet].concat();
    for (kind, tag) in tags.iter().rev() {
        body = [kind.to_be_bytes().as_slice(), &tag.to_be_bytes(), &body].concat();
    }
    let kind = tags.first().map_or(0x8100, |(kind, _)| *kind);
    s.deny(
        Vlan,
        craft::ethernet(kind, body.get(2..).unwrap_or_default()),
    );
}

/// Ethernet types that are not IP, on a packet that policy allows, and types of the wrong IP
/// version.
pub(super) const ETHERTYPES: Family = Family {
    name: "ethertypes",
    members: &[
        Member::new("a pre-standard stacked tag", ANY, |s| {
            deny_ethertype(s, 0x9100);
        }),
        Member::new("MPLS", ANY, |s| deny_ethertype(s, 0x8847)),
        Member::new("PPPoE", ANY, |s| deny_ethertype(s, 0x8864)),
        Member::new("reverse ARP", ANY, |s| deny_ethertype(s, 0x8035)),
        Member::new("transparent bridging", ANY, |s| deny_ethertype(s, 0x6558)),
        Member::new("MACsec", ANY, |s| deny_ethertype(s, 0x88e5)),
        Member::new("802.1X", ANY, |s| deny_ethertype(s, 0x888e)),
        Member::new("LLDP", ANY, |s| deny_ethertype(s, 0x88cc)),
        Member::new("an unassigned type", ANY, |s| {
            let kind = s.rng.between(0xa000, 0xfffe);
            deny_ethertype(s, kind);
        }),
        Member::new("802.3 with a length", ANY, |s| {
            let length = s.rng.between(0, 0x5ff);
            deny_ethertype(s, length);
        }),
        Member::new("802.3 with SNAP around IP", ANY, |s| {
            let (from, to) = s.ends();
            let packet = craft::ip(
                from,
                to,
                protocol::UDP,
                &craft::udp(s.port, s.allowed_port(protocol::UDP), b"in SNAP"),
            );
            let [high, low] = ethertype_of(to).to_be_bytes();
            let body = [&[0xaa, 0xaa, 3, 0, 0, 0, high, low], packet.as_slice()].concat();
            let length = u16::try_from(body.len()).unwrap_or(60);
            s.deny(Ethertype, craft::ethernet(length, &body));
        }),
        Member::new("raw 802.3", ANY, |s| {
            let length = s.rng.between(60, 1500);
            s.deny(Ethertype, craft::ethernet(length, &[0xff; 60]));
        }),
        Member::new("IPv6 with IPv4's type", ANY6, |s| {
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            s.deny(
                Ipv4Header,
                craft::with_bytes(frame, 12, &IPV4.to_be_bytes()),
            );
        }),
        Member::new("IPv4 with IPv6's type", ANY4, |s| {
            let (from, to) = s.ends();
            let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), &[0; 40]);
            s.deny(
                Ipv6Header,
                craft::ethernet(IPV6, &craft::ip(from, to, protocol::UDP, &datagram)),
            );
        }),
        Member::new("no IP packet", ANY, |s| {
            let kind = if s.v6 { IPV6 } else { IPV4 };
            let count = 4 + s.rng.below(15);
            let body = s.rng.bytes(count);
            s.deny(Truncated, craft::ethernet(kind, &body));
        }),
        Member::new("control: padding after the packet", ANY, |s| {
            let mut frame = s.datagram(s.allowed_port(protocol::UDP));
            let count = 1 + s.rng.below(60);
            let padding = s.rng.bytes(count);
            frame.extend(padding);
            s.permit(frame);
        }),
        Member::new("a denied packet with an allowed one as padding", ANY, |s| {
            let port = s.denied_port();
            let mut frame = s.datagram(port);
            frame.extend(s.datagram(s.allowed_port(protocol::UDP)));
            s.deny(Policy, frame);
        }),
    ],
};

fn deny_ethertype(s: &mut CaseBuilder<'_>, kind: u16) {
    let frame = s.datagram(s.allowed_port(protocol::UDP));
    s.deny(Ethertype, craft::with_bytes(frame, 12, &kind.to_be_bytes()));
}
