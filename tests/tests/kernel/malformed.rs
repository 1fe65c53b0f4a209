//! Frames that no valid stack sends, at both hooks, each with the one reason it is denied for.
//!
//! Policy allows [`FRIEND`] everything here, so that no other reason applies.

use ringfence_common::drop_reason::DropReason;
use ringfence_testbed::frame::{IPV4, IPV6};

use crate::fence::{Arriving, Dropped, FRIEND, Fence, LOCAL, Leaving, Passed, Way};
use crate::frames::{
    ACK, FIN, IP, L4_OF_4, L4_OF_6, PSH, RST, SCTP, SYN, TCP, UDP, extension, fragment6, frame,
    framed, icmp, icmp_of, packet, sctp, segments, tcp, udp, with,
};

/// A frame with this transport payload, from the workload or to it.
fn sent(way: Way, v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = if way == Leaving {
        (LOCAL, FRIEND)
    } else {
        (FRIEND, LOCAL)
    };
    frame(from.ip(v6), to.ip(v6), protocol, payload)
}

fn permissive() -> Fence {
    let mut fence = Fence::new();
    fence.allow_friends();
    fence
}

fn all_are_denied(cases: impl Fn(Way) -> Vec<(&'static str, Vec<u8>, DropReason)>) {
    let mut fence = permissive();
    for way in [Leaving, Arriving] {
        for (what, frame, reason) in cases(way) {
            fence.denies(way, &frame, reason, what);
        }
    }
}

fn all_pass(cases: impl Fn(Way) -> Vec<(&'static str, Vec<u8>)>) {
    for way in [Leaving, Arriving] {
        for (what, frame) in cases(way) {
            permissive().passes(way, &frame, what);
        }
    }
}

#[test]
fn malformed_ipv4_headers_are_denied() {
    all_are_denied(|way| {
        let good = sent(way, false, TCP, &tcp(1, 2, SYN));
        let header = |at, bytes: &[u8]| with(good.clone(), IP + at, bytes);
        vec![
            ("version 5", header(0, &[0x55]), DropReason::Ipv4Header),
            (
                "version 6 behind the EtherType of IPv4",
                header(0, &[0x65]),
                DropReason::Ipv4Header,
            ),
            (
                "a header length of 16",
                header(0, &[0x44]),
                DropReason::Ipv4Header,
            ),
            (
                "a header length of 0",
                header(0, &[0x40]),
                DropReason::Ipv4Header,
            ),
            (
                "a total length shorter than the header",
                header(2, &[0, 19]),
                DropReason::IpLength,
            ),
            (
                "a total length of zero",
                header(2, &[0, 0]),
                DropReason::IpLength,
            ),
            (
                "longer than the frame",
                header(2, &[0, 41]),
                DropReason::IpLength,
            ),
            (
                "options beyond the total length",
                with(header(0, &[0x4f]), IP + 2, &[0, 40]),
                DropReason::IpLength,
            ),
        ]
    });
}

#[test]
fn malformed_ipv6_headers_are_denied() {
    all_are_denied(|way| {
        let good = sent(way, true, TCP, &tcp(1, 2, SYN));
        let header = |at, bytes: &[u8]| with(good.clone(), IP + at, bytes);
        vec![
            ("version 4", header(0, &[0x40]), DropReason::Ipv6Header),
            ("version 7", header(0, &[0x70]), DropReason::Ipv6Header),
            (
                "longer than the frame",
                header(4, &[0, 21]),
                DropReason::IpLength,
            ),
            (
                "a payload length of zero",
                header(4, &[0, 0]),
                DropReason::TcpHeader,
            ),
        ]
    });
}

#[test]
fn invalid_ipv6_extension_headers_are_denied_and_valid_ones_pass() {
    let chain = |way, first, headers: &[&[u8]], last: &[u8]| {
        sent(
            way,
            true,
            first,
            &[headers.concat(), last.to_vec()].concat(),
        )
    };
    let options = |count: usize| -> Vec<u8> {
        let next = |index| if index + 1 == count { TCP } else { 60 };
        (0..count)
            .flat_map(|index| extension(next(index), 0, 1))
            .collect()
    };
    let segment = tcp(1, 2, SYN);
    all_are_denied(|way| {
        let reason = DropReason::ExtensionHeaders;
        let twice = [fragment6(44, 0, false, 1), fragment6(TCP, 0, false, 1)].concat();
        vec![
            (
                "nine headers",
                chain(way, 60, &[&options(9)], &segment),
                reason,
            ),
            (
                "a hop-by-hop header that is not first",
                chain(
                    way,
                    60,
                    &[&extension(0, 0, 1), &extension(TCP, 0, 1)],
                    &segment,
                ),
                reason,
            ),
            (
                "a header beyond the packet",
                chain(
                    way,
                    60,
                    &[&extension(TCP, 0, 1)[..1], &[200, 1, 0, 0, 0, 0, 0]],
                    &segment,
                ),
                reason,
            ),
            (
                "two fragment headers",
                chain(way, 44, &[&twice], &segment),
                reason,
            ),
            (
                "routing type 0",
                chain(way, 43, &[&extension(TCP, 0, 0)], &segment),
                DropReason::RoutingHeader,
            ),
            (
                "routing type 0 behind another header",
                chain(
                    way,
                    60,
                    &[&extension(43, 0, 1), &extension(TCP, 2, 0)],
                    &segment,
                ),
                DropReason::RoutingHeader,
            ),
            (
                "a segment list that leads elsewhere",
                chain(way, 43, &[&segments(4, 1)], &segment),
                DropReason::RoutingHeader,
            ),
            (
                "a home address",
                chain(way, 43, &[&segments(2, 1)], &segment),
                DropReason::RoutingHeader,
            ),
            (
                "segments left of an unknown type",
                chain(way, 43, &[&segments(200, 255)], &segment),
                DropReason::RoutingHeader,
            ),
            (
                "truncated",
                chain(way, 60, &[], &[TCP, 0, 1, 0]),
                DropReason::Truncated,
            ),
            (
                "truncated in the second header",
                chain(way, 60, &[&extension(60, 0, 1)], &[60]),
                DropReason::Truncated,
            ),
            (
                "no transport header",
                chain(way, 60, &[&extension(TCP, 0, 1)], &[]),
                DropReason::TcpHeader,
            ),
        ]
    });
    all_pass(|way| {
        let authentication = [TCP, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
        vec![
            ("eight headers", chain(way, 60, &[&options(8)], &segment)),
            (
                "a hop-by-hop header first",
                chain(
                    way,
                    0,
                    &[&extension(60, 0, 1), &extension(TCP, 1, 1)],
                    &segment,
                ),
            ),
            (
                "routing type 4 without segments left",
                chain(way, 43, &[&extension(TCP, 0, 4)], &segment),
            ),
            (
                "an authentication header",
                chain(way, 51, &[&authentication], &segment),
            ),
            (
                "an atomic fragment",
                chain(way, 44, &[&fragment6(TCP, 0, false, 1)], &segment),
            ),
        ]
    });
}

#[test]
fn policy_applies_to_the_ports_behind_extension_headers() {
    // The real port is behind the extension header; a decoy is where it would be without one.
    let mut fence = Fence::new();
    fence.allow(ringfence_common::mode::Direction::Egress, TCP, 443);
    let hidden = |port| {
        let mut options = extension(TCP, 0, 1);
        options[2..4].copy_from_slice(&443_u16.to_be_bytes());
        sent(
            Leaving,
            true,
            60,
            &[options, tcp(40000, port, SYN)].concat(),
        )
    };
    fence.passes(Leaving, &hidden(443), "the allowed port behind options");
    fence.denies(
        Leaving,
        &hidden(444),
        DropReason::Policy,
        "another port behind options",
    );
}

#[test]
fn malformed_transport_headers_are_denied() {
    for v6 in [false, true] {
        all_are_denied(|way| {
            let flags = |flags| sent(way, v6, TCP, &tcp(1, 2, flags));
            let good = flags(SYN);
            let l4 = if v6 { L4_OF_6 } else { L4_OF_4 };
            let datagram = sent(way, v6, UDP, &udp(1, 2, 4));
            let length = |bytes: &[u8]| with(datagram.clone(), l4 + 4, bytes);
            vec![
                (
                    "19 bytes of TCP",
                    sent(way, v6, TCP, &tcp(1, 2, SYN)[..19]),
                    DropReason::TcpHeader,
                ),
                (
                    "a TCP header length of 16",
                    with(good.clone(), l4 + 12, &[4 << 4]),
                    DropReason::TcpHeader,
                ),
                (
                    "TCP options beyond the packet",
                    with(good, l4 + 12, &[6 << 4]),
                    DropReason::TcpHeader,
                ),
                ("no flags", flags(0), DropReason::TcpFlags),
                ("SYN and FIN", flags(SYN | FIN), DropReason::TcpFlags),
                ("SYN and RST", flags(SYN | RST), DropReason::TcpFlags),
                ("FIN alone", flags(FIN), DropReason::TcpFlags),
                ("PSH alone", flags(PSH), DropReason::TcpFlags),
                ("FIN and RST", flags(FIN | RST | ACK), DropReason::TcpFlags),
                ("all flags", flags(0xff), DropReason::TcpFlags),
                (
                    "SYN, ACK and URG",
                    flags(SYN | ACK | 0x20),
                    DropReason::TcpFlags,
                ),
                (
                    "7 bytes of UDP",
                    sent(way, v6, UDP, &udp(1, 2, 0)[..7]),
                    DropReason::UdpHeader,
                ),
                ("a UDP length of 7", length(&[0, 7]), DropReason::UdpHeader),
                ("a UDP length of 0", length(&[0, 0]), DropReason::UdpHeader),
                (
                    "a UDP length beyond the packet",
                    length(&[0, 13]),
                    DropReason::UdpHeader,
                ),
                (
                    "7 bytes of ICMP",
                    sent(way, v6, icmp_of(v6), &icmp(8, 0, 1)[..7]),
                    DropReason::Truncated,
                ),
                (
                    "11 bytes of SCTP",
                    sent(way, v6, SCTP, &sctp(1, 2)[..11]),
                    DropReason::Truncated,
                ),
            ]
        });
        all_pass(|way| {
            let flags = |flags| sent(way, v6, TCP, &tcp(1, 2, flags));
            let padded = [sent(way, v6, UDP, &udp(1, 2, 0)), vec![0; 30]].concat();
            vec![
                ("SYN with ECN bits", flags(SYN | 0xc0)),
                ("SYN and URG", flags(SYN | 0x20)),
                ("RST", flags(RST)),
                ("FIN and ACK", flags(FIN | ACK)),
                ("Ethernet padding", padded),
                ("UDP shorter than the packet", {
                    let l4 = if v6 { L4_OF_6 } else { L4_OF_4 };
                    with(sent(way, v6, UDP, &udp(1, 2, 4)), l4 + 4, &[0, 8])
                }),
            ]
        });
    }
}

#[test]
fn policy_applies_to_the_ports_behind_ipv4_options() {
    // The real port is behind the options; a decoy is where it would be without them.
    let mut fence = Fence::new();
    fence.allow(ringfence_common::mode::Direction::Egress, TCP, 443);
    let hidden = |port| {
        let decoy = [0_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
        let bytes = [decoy, tcp(40000, port, SYN)].concat();
        with(sent(Leaving, false, TCP, &bytes), IP, &[0x46])
    };
    fence.passes(Leaving, &hidden(443), "the allowed port behind options");
    fence.denies(
        Leaving,
        &hidden(444),
        DropReason::Policy,
        "another port behind options",
    );
}

#[test]
fn big_tcp_packets_without_a_length_pass() {
    for v6 in [false, true] {
        let whole = sent(Leaving, v6, TCP, &tcp(1, 2, ACK));
        let at = if v6 { IP + 4 } else { IP + 2 };
        let big = with(whole, at, &[0, 0]);
        let mut fence = permissive();
        assert_eq!(
            fence.run_with(Leaving, &big, 0, 1),
            Dropped,
            "control: not a GSO packet"
        );
        assert_eq!(fence.run_with(Leaving, &big, 1400, 1), Passed);
    }
}

#[test]
fn vlan_tags_and_other_ethertypes_are_denied() {
    for v6 in [false, true] {
        all_are_denied(|way| {
            let (from, to) = if way == Leaving {
                (LOCAL, FRIEND)
            } else {
                (FRIEND, LOCAL)
            };
            let inner = packet(from.ip(v6), to.ip(v6), TCP, &tcp(1, 2, SYN));
            let kind = if v6 { IPV6 } else { IPV4 };
            let tag = |id: u16| [id.to_be_bytes(), kind.to_be_bytes()].concat();
            let tagged = |outer, id| framed(outer, &[tag(id), inner.clone()].concat());
            let stacked = [&[0, 0, 0x81, 0], tag(0).as_slice(), &inner].concat();
            vec![
                ("a customer tag", tagged(0x8100, 5), DropReason::Vlan),
                ("a priority tag", tagged(0x8100, 0), DropReason::Vlan),
                ("a service tag", tagged(0x88a8, 5), DropReason::Vlan),
                ("stacked tags", framed(0x8100, &stacked), DropReason::Vlan),
                ("LLDP", framed(0x88cc, &inner), DropReason::Ethertype),
                ("MPLS", framed(0x8847, &inner), DropReason::Ethertype),
                (
                    "a pre-standard service tag",
                    tagged(0x9100, 5),
                    DropReason::Ethertype,
                ),
                (
                    "a length instead of a type",
                    framed(60, &inner),
                    DropReason::Ethertype,
                ),
            ]
        });
    }
}
