//! Discovery as a tunnel through a node that routes: to the node's forwarding a discovery message is a
//! packet like any other, as long as it is unicast.

use std::net::IpAddr;

use ringfence_common::drop_reason::DropReason::{DiscoveryHeader, NeighbourSpoof};

use super::announcements::discovery;
use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, AFTER_IP6, FROM, IP};
use crate::attack::family::{ANY6, Family, IN6, Member, OUT6};
use crate::attack::fixture::{self, protocol};

pub(super) const DISCOVERY: Family = Family {
    name: "routed-discovery",
    members: &[
        Member::new("a solicitation", OUT6, |s| {
            let to = elsewhere(s);
            s.deny(NeighbourSpoof, discovery(s.workload(), to, 135, to));
        }),
        Member::new("an advertisement about itself", OUT6, |s| {
            let to = elsewhere(s);
            s.deny(
                NeighbourSpoof,
                discovery(s.workload(), to, 136, s.workload()),
            );
        }),
        Member::new("a router solicitation", OUT6, |s| {
            let to = elsewhere(s);
            s.deny(NeighbourSpoof, discovery(s.workload(), to, 133, to));
        }),
        Member::new("with data after the message", OUT6, |s| {
            let data = [0x5a_u8; 8].repeat(1 + s.rng.below(150));
            let frame = carrying(s, &data);
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("with data in a nonce", OUT6, |s| {
            let units = 2 + s.rng.byte() % 100;
            let value = s.rng.bytes(8 * usize::from(units) - 2);
            let frame = carrying(s, &[&[14, units], value.as_slice()].concat());
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("with an option again and again", OUT6, |s| {
            let count = 2 + s.rng.below(100);
            let frame = carrying(s, &craft::link_option(1, FROM).repeat(count));
            s.deny(DiscoveryHeader, frame);
        }),
        Member::new("with data in reserved bytes", OUT6, |s| {
            let [a, b] = [s.rng.byte() | 1, s.rng.byte()];
            let frame = carrying(s, &[]);
            s.deny(
                DiscoveryHeader,
                craft::with_bytes(frame, AFTER_IP6 + 5, &[a, b, b]),
            );
        }),
        Member::new("behind options with data", OUT6, |s| {
            let to = elsewhere(s);
            let header = craft::extension(protocol::ICMPV6, s.rng.byte() % 30);
            let payload = [header, craft::discovery(136, s.workload())].concat();
            let frame = craft::ip_frame(s.workload(), to, 60, &payload);
            s.deny(DiscoveryHeader, craft::with_bytes(frame, IP + 7, &[255]));
        }),
        Member::new("from beyond the router", IN6, |s| {
            let kind = s.rng.choose(&[133, 134, 135, 136, 137], 135);
            s.deny(
                NeighbourSpoof,
                // One hop less than the router subtracts: as it arrives, and as the model reads it.
                craft::with_bytes(
                    discovery(s.peer, s.workload(), kind, s.workload()),
                    IP + 7,
                    &[254],
                ),
            );
        }),
        Member::new("control: a datagram that policy allows", ANY6, |s| {
            let port = s.allowed_port(protocol::UDP);
            s.permit(s.datagram(port));
        }),
        Member::new("control: an echo request that policy allows", OUT6, |s| {
            s.permit(s.frame(protocol::ICMPV6, &craft::echo(true, s.port)));
        }),
    ],
};

/// A denied host, or an allowed peer.
fn elsewhere(s: &mut CaseBuilder<'_>) -> IpAddr {
    let denied = fixture::unlisted_host(true);
    s.rng.choose(&[denied, s.peer], denied)
}

/// A solicitation or advertisement to elsewhere with these options.
fn carrying(s: &mut CaseBuilder<'_>, options: &[u8]) -> Vec<u8> {
    let to = elsewhere(s);
    let kind = s.rng.choose(&[135, 136], 135);
    let target = if kind == 135 { to } else { s.workload() };
    let message = craft::discovery_with(kind, target, options);
    let frame = craft::ip_frame(s.workload(), to, protocol::ICMPV6, &message);
    craft::with_bytes(frame, IP + 7, &[255])
}
