//! Spoofed addresses: forged IP source addresses, in new flows and within an allowed flow, and
//! forged hardware addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::SpoofedSource;

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, flag};
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::fixture::{self, protocol};

/// New flows with a forged source address, to destinations that policy allows for the workload.
pub(super) const FORGED_SOURCE: Family = Family {
    name: "forged-source",
    members: &[
        Member::new("another workload", OUT, |s| {
            forge(s, fixture::other_workload(s.v6));
        }),
        Member::new("the node", OUT, |s| forge(s, fixture::node(s.v6))),
        Member::new("outside", OUT, |s| forge(s, fixture::unlisted_host(s.v6))),
        Member::new("an allowed peer", OUT, |s| {
            let peer = fixture::peer(s.v6, s.rng);
            forge(s, peer);
        }),
        Member::new("the destination's address", OUT, |s| forge(s, s.peer)),
        Member::new("unspecified", OUT, |s| forge(s, unspecified(s.v6))),
        Member::new("loopback", OUT, |s| forge(s, loopback(s.v6))),
        Member::new("broadcast", OUT, |s| forge(s, all_hosts(s.v6))),
        Member::new("one bit off", OUT, one_bit_off),
        Member::new("the workload's address, from the segment", IN, |s| {
            forge(s, s.workload());
        }),
        Member::new("control: its own address", ANY, |s| {
            let port = s.allowed_port(protocol::UDP);
            s.permit(s.datagram(port));
        }),
    ],
};

/// Forged source addresses within a flow that policy allows.
pub(super) const FORGED_MID_FLOW: Family = Family {
    name: "forged-mid-flow",
    members: &[
        Member::new("TCP from another workload", OUT, |s| {
            mid_flow(s, protocol::TCP, fixture::other_workload(s.v6));
        }),
        Member::new("TCP from the node", OUT, |s| {
            mid_flow(s, protocol::TCP, fixture::node(s.v6));
        }),
        Member::new("TCP from outside", OUT, |s| {
            mid_flow(s, protocol::TCP, fixture::unlisted_host(s.v6));
        }),
        Member::new("UDP from another workload", OUT, |s| {
            mid_flow(s, protocol::UDP, fixture::other_workload(s.v6));
        }),
        Member::new("UDP from outside", OUT, |s| {
            mid_flow(s, protocol::UDP, fixture::unlisted_host(s.v6));
        }),
        Member::new("TCP from the workload itself", IN, |s| {
            mid_flow(s, protocol::TCP, s.workload());
        }),
        Member::new("the peer's direction of the flow", OUT, |s| {
            s.connect();
            let answer = craft::tcp(s.allowed_port(protocol::TCP), s.port, flag::ACK);
            let frame = s.frame_back(protocol::TCP, &answer);
            s.deny(SpoofedSource, frame);
        }),
        Member::new("a reset with the peer's address", OUT, |s| {
            s.connect();
            let reset = craft::tcp(s.allowed_port(protocol::TCP), s.port, flag::RST);
            let frame = s.frame_back(protocol::TCP, &reset);
            s.deny(SpoofedSource, frame);
        }),
    ],
};

/// Hardware addresses are not part of any identity: forging one has no effect.
pub(super) const FORGED_MAC: Family = Family {
    name: "forged-mac",
    members: &[
        Member::new("to a denied port", ANY, |s| {
            let port = s.denied_port();
            let frame = readdressed(s, s.datagram(port));
            s.deny(ringfence_common::drop_reason::DropReason::Policy, frame);
        }),
        Member::new("with a forged IP address", OUT, |s| {
            let (_, to) = s.ends();
            let datagram = craft::udp(s.port, s.allowed_port(protocol::UDP), b"forged");
            let frame =
                craft::ip_frame(fixture::other_workload(s.v6), to, protocol::UDP, &datagram);
            let frame = readdressed(s, frame);
            s.deny(SpoofedSource, frame);
        }),
        Member::new("to an allowed port", ANY, |s| {
            let port = s.allowed_port(protocol::UDP);
            let frame = readdressed(s, s.datagram(port));
            s.permit(frame);
        }),
        Member::new("broadcast, an allowed packet", ANY, |s| {
            let port = s.allowed_port(protocol::UDP);
            s.permit(craft::with_bytes(s.datagram(port), 0, &[0xff; 6]));
        }),
        Member::new("broadcast, a denied packet", ANY, |s| {
            let port = s.denied_port();
            let frame = craft::with_bytes(s.datagram(port), 0, &[0xff; 6]);
            s.deny(ringfence_common::drop_reason::DropReason::Policy, frame);
        }),
    ],
};

fn forge(s: &mut CaseBuilder<'_>, source: IpAddr) {
    let (_, to) = s.ends();
    let protocol = s.rng.choose(
        &[protocol::TCP, protocol::UDP, protocol::SCTP],
        protocol::UDP,
    );
    let payload = craft::transport(protocol, s.port, s.allowed_port(protocol));
    s.deny(
        SpoofedSource,
        craft::ip_frame(source, to, protocol, &payload),
    );
}

fn one_bit_off(s: &mut CaseBuilder<'_>) {
    let bit = s.rng.below(if s.v6 { 128 } else { 32 });
    let source = match s.workload() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ 1 << bit)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ 1 << bit)),
    };
    forge(s, source);
}

fn mid_flow(s: &mut CaseBuilder<'_>, protocol: u8, source: IpAddr) {
    let port = s.allowed_port(protocol);
    let payload = if protocol == protocol::TCP {
        s.connect();
        craft::tcp(s.port, port, flag::ACK)
    } else {
        s.exchange();
        craft::udp(s.port, port, b"forged")
    };
    let (_, to) = s.ends();
    s.deny(
        SpoofedSource,
        craft::ip_frame(source, to, protocol, &payload),
    );
}

/// The frame with another source hardware address.
fn readdressed(s: &mut CaseBuilder<'_>, frame: Vec<u8>) -> Vec<u8> {
    let mut address = s.rng.bytes(6);
    craft::write(&mut address, 0, &[2]);
    craft::with_bytes(frame, 6, &address)
}

const fn unspecified(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}

const fn loopback(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::LOCALHOST)
    } else {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

const fn all_hosts(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))
    } else {
        IpAddr::V4(Ipv4Addr::BROADCAST)
    }
}
