#![allow(clippy::cast_possible_truncation, reason = "test frames are short")]

use proptest::prelude::*;

use super::{neighbour::may_announce, own_source::OwnSource, *};
use crate::{
    endpoint::Endpoint,
    net::{Address, Ip4, Ip6},
};

/// A frame in host memory.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Frame for Bytes {
    fn len(&self) -> u32 {
        self.0.len() as u32
    }
    fn load<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> bool {
        let at = offset as usize;
        let Some(bytes) = self.0.get(at..at.saturating_add(N)) else {
            return false;
        };
        into.copy_from_slice(bytes);
        true
    }
    fn is_gso(&self) -> bool {
        false
    }
}

const A4: [u8; 4] = [10, 1, 0, 2];
const B4: [u8; 4] = [10, 1, 0, 3];

fn ip6(last: u8) -> [u8; 16] {
    let mut a = [0; 16];
    (a[0], a[15]) = (0xfd, last);
    a
}

fn ipv4(proto: u8, fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let total = (header + payload.len()) as u16;
    let mut f = vec![0u8; 12];
    f.extend([8, 0, 0x40 | (header / 4) as u8, 0]);
    f.extend(total.to_be_bytes());
    f.extend([0x12, 0x34]);
    f.extend(fragment.to_be_bytes());
    f.extend([64, proto, 0, 0]);
    f.extend(A4);
    f.extend(B4);
    f.extend(vec![1; options]);
    f.extend(payload);
    f
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![0u8; 12];
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend((payload.len() as u16).to_be_bytes());
    f.extend([next, 255]);
    f.extend(ip6(2));
    f.extend(ip6(3));
    f.extend(payload);
    f
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut h = vec![0x80, 0, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags];
    h.extend([0; 6]);
    h
}

fn udp(payload: usize) -> Vec<u8> {
    let mut h = vec![0x80, 0, 0, 53];
    h.extend((8 + payload as u16).to_be_bytes());
    h.extend(vec![0; 2 + payload]);
    h
}

fn icmp(kind: u8, id: u16, quoted: &[u8]) -> Vec<u8> {
    let mut h = vec![kind, 0, 0, 0];
    h.extend(id.to_be_bytes());
    h.extend([0, 1]);
    h.extend(quoted);
    h
}

fn parse<A: Parse>(frame: &Bytes) -> Result<Packet<A>, DropReason> {
    let mut packet = Packet::unknown();
    A::parse(frame, &mut packet).map(|()| packet)
}

fn parse_quoted<A: Parse>(frame: &Bytes, at: u32) -> Result<Packet<A>, DropReason> {
    let mut packet = Packet::unknown();
    A::parse_quoted(frame, at, &mut packet).map(|()| packet)
}

fn parse4(bytes: Vec<u8>) -> Result<Packet<Ip4>, DropReason> {
    parse(&Bytes(bytes))
}

fn parse6(bytes: Vec<u8>) -> Result<Packet<Ip6>, DropReason> {
    parse(&Bytes(bytes))
}

#[test]
fn ports_lie_after_the_options() {
    for options in [0, 4, 40] {
        let packet = parse4(ipv4(6, 0, options, &tcp(TcpFlags::SYN))).unwrap();
        assert_eq!(
            packet.destination_port,
            Port::new(8080),
            "{options} bytes of options"
        );
        assert!(packet.tcp.is_pure_syn());
        assert_eq!(packet.source, Ip4::from_wire(A4));
    }
}

#[test]
fn lengths_must_agree() {
    let mut long = ipv4(17, 0, 0, &udp(4));
    long[17] += 1;
    assert_eq!(parse4(long), Err(DropReason::IpLength));
    let mut short = ipv4(17, 0, 0, &udp(4));
    short[17] = 19;
    assert_eq!(parse4(short), Err(DropReason::IpLength));
    let mut padded = ipv4(17, 0, 0, &udp(4));
    padded.extend([0; 18]);
    assert!(
        parse4(padded).is_ok(),
        "Ethernet padding is not part of the packet"
    );
    let mut tiny_header = ipv4(17, 0, 0, &udp(4));
    tiny_header[14] = 0x44;
    assert_eq!(parse4(tiny_header), Err(DropReason::Ipv4Header));
    let mut udp_long = udp(4);
    udp_long[5] += 1;
    assert_eq!(
        parse4(ipv4(17, 0, 0, &udp_long)),
        Err(DropReason::UdpHeader)
    );
    assert_eq!(parse4(vec![0; 20]), Err(DropReason::Truncated));
}

#[test]
fn a_tcp_header_hidden_in_padding_is_not_read() {
    let mut frame = ipv4(6, 0, 0, &tcp(TcpFlags::SYN)[..8]);
    frame.extend(&tcp(TcpFlags::SYN)[8..]);
    assert_eq!(parse4(frame), Err(DropReason::TcpHeader));
}

#[test]
fn fragments_carry_ports_only_in_the_first() {
    const MORE: u16 = 0x2000;
    let first = parse4(ipv4(17, MORE, 0, &udp(600))).unwrap();
    assert_eq!(
        (first.kind, first.destination_port),
        (Kind::FirstFragment, Port::new(53))
    );
    let later = parse4(ipv4(17, 76, 0, &[0xaa; 32])).unwrap();
    assert_eq!(
        (later.kind, later.destination_port),
        (Kind::LaterFragment, Port::NONE)
    );
    assert_eq!(first.fragment_id, later.fragment_id);
    assert_eq!(
        parse4(ipv4(17, MORE, 0, &udp(0)[..4])),
        Err(DropReason::TinyFragment)
    );
    assert_eq!(
        parse4(ipv4(6, MORE, 0, &tcp(2)[..16])),
        Err(DropReason::TinyFragment)
    );
    assert_eq!(
        parse4(ipv4(6, 1, 0, &[0; 12])),
        Err(DropReason::TinyFragment)
    );
}

#[test]
fn flags_that_no_stack_sends_are_refused() {
    use TcpFlags as F;
    for sane in [
        F::SYN,
        F::SYN | F::ACK,
        F::ACK,
        F::RST,
        F::RST | F::ACK,
        F::FIN | F::ACK,
        0xc2,
    ] {
        assert!(parse4(ipv4(6, 0, 0, &tcp(sane))).is_ok(), "{sane:#x}");
    }
    for odd in [
        0,
        F::FIN,
        F::SYN | F::FIN,
        F::SYN | F::RST,
        F::FIN | F::PSH | F::URG,
        0x3f,
    ] {
        assert_eq!(
            parse4(ipv4(6, 0, 0, &tcp(odd))),
            Err(DropReason::TcpFlags),
            "{odd:#x}"
        );
    }
}

#[test]
fn an_echo_request_and_its_reply_are_one_flow_and_two_requests_are_two() {
    let request = parse4(ipv4(1, 0, 0, &icmp(8, 77, &[]))).unwrap();
    assert_eq!(
        (request.source_port, request.destination_port),
        (Port::new(77), Port::NONE)
    );
    let reply = parse4(ipv4(1, 0, 0, &icmp(0, 77, &[]))).unwrap();
    assert_eq!(
        (reply.source_port, reply.destination_port),
        (Port::NONE, Port::new(77))
    );
    let six = parse6(ipv6(58, &icmp(128, 77, &[]))).unwrap();
    assert_eq!(six.source_port, Port::new(77));
}

#[test]
fn an_icmp_query_matches_only_its_own_response_type() {
    let ends = |kind| {
        let packet = parse4(ipv4(1, 0, 0, &icmp(kind, 77, &[]))).unwrap();
        (packet.source_port, packet.destination_port)
    };
    for query in [13, 15, 17] {
        let (from, to) = ends(query);
        assert_eq!(ends(query + 1), (to, from));
        for other in (13..=20).filter(|kind| *kind != query + 1) {
            assert_ne!(ends(other), (to, from), "{other} matches {query}");
        }
    }
    let six = |kind| {
        let packet = parse6(ipv6(58, &icmp(kind, 77, &[]))).unwrap();
        (packet.source_port, packet.destination_port)
    };
    let (from, to) = six(139);
    assert_eq!(six(140), (to, from));
    assert_ne!(six(139), (to, from));
}

#[test]
fn an_error_quotes_the_packet_it_is_about() {
    let quoted = &ipv4(17, 0, 8, &udp(0))[14..];
    let bytes = Bytes(ipv4(1, 0, 0, &icmp(3, 0, quoted)));
    let error = parse::<Ip4>(&bytes).unwrap();
    assert_eq!(error.kind, Kind::Error);
    let inner = parse_quoted::<Ip4>(&bytes, error.transport + 8).unwrap();
    assert_eq!(
        (inner.protocol, inner.destination_port),
        (17, Port::new(53))
    );

    let nested = &ipv4(1, 0, 0, &icmp(3, 0, &[0; 8]))[14..];
    let bytes = Bytes(ipv4(1, 0, 0, &icmp(3, 0, nested)));
    let refused = parse_quoted::<Ip4>(&bytes, ETHERNET + 28);
    assert_eq!(refused.unwrap_err(), DropReason::IcmpErrorUnmatched);
}

#[test]
fn quoted_icmp_of_the_other_family_has_no_ports() {
    for body in [icmp(8, 77, &[]), icmp(3, 0, &[])] {
        let whole = parse4(ipv4(58, 0, 0, &body)).unwrap();
        let quoted = &ipv4(58, 0, 0, &body)[14..];
        let bytes = Bytes(ipv4(1, 0, 0, &icmp(3, 0, quoted)));
        let inner = parse_quoted::<Ip4>(&bytes, ETHERNET + 28).unwrap();
        let ports = (inner.source_port, inner.destination_port);
        assert_eq!(ports, (whole.source_port, whole.destination_port));
        assert_eq!(ports, (Port::NONE, Port::NONE));
    }
}

#[test]
fn extension_headers_are_walked_to_the_limit_and_no_further() {
    let chain = |n: usize| {
        let mut payload = Vec::new();
        for i in 0..n {
            payload.extend([if i + 1 == n { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        payload.extend(tcp(TcpFlags::SYN));
        ipv6(if n == 0 { 6 } else { 60 }, &payload)
    };
    for n in 0..=8 {
        assert_eq!(
            parse6(chain(n)).unwrap().destination_port,
            Port::new(8080),
            "{n} headers"
        );
    }
    assert_eq!(parse6(chain(9)), Err(DropReason::ExtensionHeaders));
}

#[test]
fn bad_extension_headers_are_refused() {
    let with = |next: u8, header: [u8; 8]| {
        let mut payload = header.to_vec();
        payload.extend(tcp(TcpFlags::SYN));
        parse6(ipv6(next, &payload))
    };
    assert_eq!(
        with(43, [6, 0, 0, 1, 0, 0, 0, 0]),
        Err(DropReason::RoutingHeader)
    );
    assert_eq!(
        with(43, [6, 0, 4, 1, 0, 0, 0, 0]),
        Err(DropReason::RoutingHeader),
        "type 4 is segment routing, and a segment is left"
    );
    assert!(with(43, [6, 0, 4, 0, 0, 0, 0, 0]).is_ok(), "the last one");
    assert_eq!(
        with(60, [6, 200, 0, 0, 0, 0, 0, 0]),
        Err(DropReason::ExtensionHeaders)
    );
    assert_eq!(
        with(60, [0, 0, 1, 4, 0, 0, 0, 0]),
        Err(DropReason::ExtensionHeaders)
    );
    let atomic = with(44, [6, 0, 0, 0, 1, 2, 3, 4]).unwrap();
    assert_eq!(
        (atomic.kind, atomic.destination_port),
        (Kind::Flow, Port::new(8080))
    );
    let later = with(44, [6, 0, 1, 8, 1, 2, 3, 4]).unwrap();
    assert_eq!(
        (later.kind, later.fragment_id),
        (Kind::LaterFragment, 0x0102_0304)
    );
    assert_eq!(
        with(44, [6, 0, 0, 8, 1, 2, 3, 4]),
        Err(DropReason::TinyFragment),
        "it would overwrite the TCP header's flags"
    );
    assert!(with(44, [17, 0, 0, 8, 1, 2, 3, 4]).is_ok());
}

fn owner() -> Endpoint {
    let mut endpoint = Endpoint::default();
    endpoint.ip4[0] = Ip4::from_wire(A4);
    endpoint.ip6[0] = Ip6::from_wire(ip6(2));
    endpoint
}

#[test]
fn a_workload_advertises_its_own_addresses_only() {
    let announce = |kind: u8, target: [u8; 16]| {
        let mut frame = ipv6(
            58,
            &[&[kind, 0, 0, 0, 0, 0, 0, 0], target.as_slice()].concat(),
        );
        // To all nodes.
        frame[38..54].copy_from_slice(&Ip6::ALL_NODES.to_wire());
        let bytes = Bytes(frame);
        let packet = parse::<Ip6>(&bytes).unwrap();
        may_announce(&bytes, &packet, &owner(), |_| false, |_| false)
    };
    assert_eq!(announce(136, ip6(2)), Ok(()));
    assert_eq!(announce(136, ip6(9)), Err(DropReason::NeighbourSpoof));
    assert_eq!(announce(135, ip6(9)), Ok(()), "asking is free");
    assert_eq!(announce(134, ip6(2)), Err(DropReason::RouterAdvertisement));
    assert_eq!(announce(137, ip6(2)), Err(DropReason::Redirect));
}

#[test]
fn the_source_must_be_the_workloads_own() {
    let mut packet = parse4(ipv4(17, 0, 0, &udp(0))).unwrap();
    assert!(Ip4::is_own(&packet, &owner()));
    packet.source = Ip4::from_wire(B4);
    assert!(!Ip4::is_own(&packet, &owner()));
    packet.source = Ip4::UNSPECIFIED;
    assert!(!Ip4::is_own(&packet, &owner()));
    packet.destination = Ip4::BROADCAST;
    (packet.source_port, packet.destination_port) = (Port::new(68), Port::new(67));
    assert!(
        Ip4::is_own(&packet, &owner()),
        "a DHCP client has no address yet"
    );
}

#[test]
fn arp_is_allowed_for_own_addresses_only() {
    let arp_for = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
        let mut f = vec![0u8; 12];
        f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        f.extend([0; 6]);
        f.extend(sender);
        f.extend([0; 6]);
        f.extend(target);
        arp::may_send(&Bytes(f), &owner())
    };
    let arp = |operation, sender| arp_for(operation, sender, B4);
    assert_eq!(arp(1, A4), Ok(()));
    assert_eq!(arp(2, B4), Err(DropReason::ArpSpoof));
    assert_eq!(arp_for(1, [0; 4], A4), Ok(()), "a probe");
    assert_eq!(arp(1, [0; 4]), Err(DropReason::ArpSpoof), "of another's");
    assert_eq!(arp(2, [0; 4]), Err(DropReason::ArpSpoof));
    assert_eq!(arp(9, A4), Err(DropReason::ArpHeader));
}

proptest! {
    #[test]
    fn no_bytes_can_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = Bytes(bytes);
        let _ = parse::<Ip4>(&frame);
        let _ = parse::<Ip6>(&frame);
        let _ = parse_quoted::<Ip4>(&frame, 42);
        let _ = parse_quoted::<Ip6>(&frame, 62);
        let _ = arp::may_send(&frame, &owner());
    }

    #[test]
    fn a_parsed_header_lies_inside_the_packet(
        proto: u8, fragment: u16, options in 0usize..=10,
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let bytes = ipv4(proto, fragment, options * 4, &payload);
        let len = bytes.len() as u32;
        if let Ok(packet) = parse4(bytes) {
            prop_assert!(packet.transport <= packet.end && packet.end <= len);
        }
    }
}
