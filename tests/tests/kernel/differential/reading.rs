//! A reading of frames that shares no code with the fence's: the headers are `etherparse`'s, what
//! follows from them is written down from the design.
//!
//! Where a frame has several faults, the reason is that of the first one in the order of the
//! headers. Behind the eighth extension header any of its faults will do.

use std::net::IpAddr;

use etherparse::{
    ArpPacketSlice, Ethernet2HeaderSlice, IpAuthHeaderSlice, Ipv4HeaderSlice,
    Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, TcpHeaderSlice,
    UdpHeaderSlice, err,
};
use ringfence_common::drop_reason::DropReason::{self, *};

/// Any of these reasons is right.
pub(super) type Refusal = &'static [DropReason];

const ARP_HEADER: Refusal = &[ArpHeader];
const IPV6_HEADER: Refusal = &[Ipv6Header];
const IP_LENGTH: Refusal = &[IpLength];
const EXTENSION_HEADERS: Refusal = &[ExtensionHeaders];

/// What a frame is.
#[derive(Debug)]
pub(super) enum Reading {
    Arp(Result<Arp, Refusal>),
    Ip(Result<Ip, Refusal>),
    /// Of no use to anybody, at either hook.
    Other(Refusal),
}

#[derive(Debug)]
pub(super) struct Arp {
    pub(super) sender: IpAddr,
    pub(super) is_request: bool,
}

#[derive(Debug)]
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
    pub(super) protocol: u8,
    /// Ports; an echo request has its identifier for its first, an answer for its second.
    pub(super) ports: (u16, u16),
    /// A SYN and nothing that contradicts it.
    pub(super) opens: bool,
    pub(super) is_reset: bool,
    /// A SYN that answers another.
    pub(super) accepts: bool,
    /// Identification, of what came with one.
    pub(super) id: u32,
    /// Where in the fragmented packet a later fragment begins, or where the headers end.
    pub(super) place: usize,
    pub(super) kind: Kind,
    /// Whether there is anything between the IP header proper and the transport header.
    pub(super) has_options: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Whole,
    FirstFragment,
    LaterFragment,
    /// An ICMP error of a type, and what it quotes if that can be told.
    Error(u8, Option<Quote>),
    Discovery(Discovery),
}

/// The packet that an ICMP error is about.
#[derive(Debug)]
pub(super) struct Quote {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) ports: (u16, u16),
}

#[derive(Debug)]
pub(super) struct Discovery {
    pub(super) kind: u8,
    /// Of a neighbour solicitation or advertisement that is long enough to have one.
    pub(super) target: Option<IpAddr>,
    /// What follows the target.
    pub(super) options: Vec<u8>,
    /// Where the frame comes from.
    pub(super) hardware: [u8; 6],
}

/// Reads a frame; `gso` if the kernel will cut it into segments.
pub(super) fn read(frame: &[u8], gso: bool) -> Reading {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).unwrap();
    let body = &frame[14..];
    match ethernet.ether_type().0 {
        0x0800 => Reading::Ip(ipv4(body, gso)),
        0x86dd => {
            let mut packet = ipv6(body, gso);
            if let Ok(Ip {
                kind: Kind::Discovery(discovery),
                ..
            }) = &mut packet
            {
                discovery.hardware = ethernet.source();
            }
            Reading::Ip(packet)
        }
        0x0806 => Reading::Arp(arp(body)),
        0x8100 | 0x88a8 => Reading::Other(&[Vlan]),
        _ => Reading::Other(&[Ethertype]),
    }
}

fn arp(body: &[u8]) -> Result<Arp, Refusal> {
    if body.len() < 28 {
        return Err(&[Truncated]);
    }
    let arp = ArpPacketSlice::from_slice(body).map_err(|_| ARP_HEADER)?;
    let kinds = (arp.hw_addr_type().0, arp.proto_addr_type().0);
    let sizes = (arp.hw_addr_size(), arp.proto_addr_size());
    let operation = arp.operation().0;
    if kinds != (1, 0x0800) || sizes != (6, 4) || !matches!(operation, 1 | 2) {
        return Err(&[ArpHeader]);
    }
    let sender: [u8; 4] = arp.sender_protocol_addr().try_into().unwrap();
    Ok(Arp {
        sender: sender.into(),
        is_request: operation == 1,
    })
}

fn ipv4(bytes: &[u8], gso: bool) -> Result<Ip, Refusal> {
    let header = match Ipv4HeaderSlice::from_slice(bytes) {
        Ok(header) => header,
        Err(err::ipv4::HeaderSliceError::Content(_)) => return Err(&[Ipv4Header]),
        Err(err::ipv4::HeaderSliceError::Len(_)) => return Err(&[IpLength]),
    };
    let start = header.slice().len();
    let total = match usize::from(header.total_len()) {
        0 if gso => bytes.len(),
        total => total,
    };
    let body = bytes.get(start..total).ok_or(IP_LENGTH)?;
    let mut ip = Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        hop_limit: header.ttl(),
        protocol: header.protocol().0,
        ports: (0, 0),
        opens: false,
        is_reset: false,
        accepts: false,
        id: header.identification().into(),
        place: 0,
        kind: Kind::Whole,
        has_options: start > 20,
    };
    match header.fragments_offset().value() {
        0 if header.more_fragments() => ip.kind = Kind::FirstFragment,
        0 => {}
        // It would overwrite the flags (RFC 3128).
        1 if ip.protocol == 6 => return Err(&[TinyFragment]),
        offset => {
            ip.kind = Kind::LaterFragment;
            ip.place = 8 * usize::from(offset);
        }
    }
    transport(&mut ip, body, gso)?;
    Ok(ip)
}

fn ipv6(bytes: &[u8], gso: bool) -> Result<Ip, Refusal> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|_| IPV6_HEADER)?;
    let rest = &bytes[40..];
    let length = match usize::from(header.payload_length()) {
        0 if gso => rest.len(),
        length => length,
    };
    if length > rest.len() {
        return Err(&[IpLength]);
    }
    let chain = walk(rest, length, header.next_header().0)?;
    let mut ip = Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        hop_limit: header.hop_limit(),
        protocol: chain.protocol,
        ports: (0, 0),
        opens: false,
        is_reset: false,
        accepts: false,
        id: chain.id,
        place: chain.place,
        kind: chain.kind,
        has_options: chain.end != 0,
    };
    transport(&mut ip, &rest[chain.end..length], gso)?;
    Ok(ip)
}

/// What an IPv6 header is followed by.
struct Chain {
    protocol: u8,
    end: usize,
    id: u32,
    /// As [`Ip::place`], without the transport header.
    place: usize,
    kind: Kind,
}

/// Walks the extension headers of a packet that ends at `length`.
fn walk(rest: &[u8], length: usize, first: u8) -> Result<Chain, Refusal> {
    let mut chain = Chain {
        protocol: first,
        end: 0,
        id: 0,
        place: 0,
        kind: Kind::Whole,
    };
    let mut fragmented = false;
    for place in 0.. {
        let this = chain.protocol;
        if !matches!(this, 0 | 43 | 44 | 51 | 60) {
            break;
        }
        if place == 8 {
            return Err(&[ExtensionHeaders, Truncated, RoutingHeader, TinyFragment]);
        }
        if this == 0 && place != 0 {
            return Err(&[ExtensionHeaders]);
        }
        let header = &rest[chain.end..];
        if header.len() < 8 {
            return Err(&[Truncated]);
        }
        if this == 43 && header[2] == 0 {
            return Err(&[RoutingHeader]);
        }
        let header = &rest[chain.end.min(length)..length];
        if this == 44 {
            let fragment =
                Ipv6FragmentHeaderSlice::from_slice(header).map_err(|_| EXTENSION_HEADERS)?;
            if fragmented {
                return Err(&[ExtensionHeaders]);
            }
            fragmented = true;
            chain.protocol = fragment.next_header().0;
            chain.end += 8;
            chain.id = fragment.identification();
            match fragment.fragment_offset().value() {
                0 if fragment.more_fragments() => chain.kind = Kind::FirstFragment,
                0 => {}
                1 if chain.protocol == 6 => return Err(&[TinyFragment]),
                offset => {
                    chain.kind = Kind::LaterFragment;
                    chain.place = 8 * usize::from(offset);
                    break;
                }
            }
        } else {
            let (next, size) = extension(this, header).ok_or(EXTENSION_HEADERS)?;
            chain.protocol = next;
            chain.end += size;
            if fragmented {
                chain.place += size;
            }
        }
    }
    Ok(chain)
}

/// Next header and size.
fn extension(kind: u8, header: &[u8]) -> Option<(u8, usize)> {
    if kind != 51 {
        let header = Ipv6RawExtHeaderSlice::from_slice(header).ok()?;
        return Some((header.next_header().0, header.slice().len()));
    }
    match IpAuthHeaderSlice::from_slice(header) {
        Ok(header) => Some((header.next_header().0, header.slice().len())),
        // Shorter than RFC 4302 has it; Linux steps over it like over any other.
        Err(_) if header.len() >= 8 && header[1] == 0 => Some((header[0], 8)),
        Err(_) => None,
    }
}

/// Reads ports and kind off the transport header.
fn transport(ip: &mut Ip, body: &[u8], gso: bool) -> Result<(), Refusal> {
    if matches!(ip.kind, Kind::LaterFragment) {
        return Ok(());
    }
    let first = matches!(ip.kind, Kind::FirstFragment);
    let short = move |reason: Refusal| -> Refusal { if first { &[TinyFragment] } else { reason } };
    match (ip.protocol, ip.source.is_ipv6()) {
        (6, _) => {
            let tcp = TcpHeaderSlice::from_slice(body).map_err(|why| match why {
                err::tcp::HeaderSliceError::Len(_) => short(&[TcpHeader]),
                err::tcp::HeaderSliceError::Content(_) => &[TcpHeader] as Refusal,
            })?;
            if !is_sane(&tcp) {
                return Err(&[TcpFlags]);
            }
            ip.ports = (tcp.source_port(), tcp.destination_port());
            ip.opens = tcp.syn() && !tcp.ack();
            ip.is_reset = tcp.rst();
            ip.accepts = tcp.syn() && tcp.ack();
            ip.place += tcp.slice().len();
        }
        (17, _) => {
            let udp = UdpHeaderSlice::from_slice(body).map_err(|_| short(&[UdpHeader]))?;
            let length = usize::from(udp.length());
            if length < 8 || (!first && !gso && length > body.len()) {
                return Err(&[UdpHeader]);
            }
            ip.ports = (udp.source_port(), udp.destination_port());
            ip.place += 8;
        }
        (132, _) => {
            // No slice of etherparse's: source and destination port, tag, checksum (RFC 9260).
            if body.len() < 12 {
                return Err(short(&[Truncated]));
            }
            ip.ports = ports(body);
            ip.place += 12;
        }
        (1, false) | (58, true) => {
            if body.len() < 8 {
                return Err(short(&[Truncated]));
            }
            icmp(ip, body, first)?;
            ip.place += 8;
        }
        _ => {}
    }
    Ok(())
}

/// SYN, SYN+ACK, ACK, FIN+ACK, RST and RST+ACK are what stacks send; an urgent reset or
/// answer to a SYN is none.
fn is_sane(tcp: &TcpHeaderSlice) -> bool {
    match (tcp.syn(), tcp.fin(), tcp.rst()) {
        (true, false, false) => !(tcp.ack() && tcp.urg()),
        (false, _, false) => tcp.ack(),
        (false, false, true) => !tcp.urg(),
        _ => false,
    }
}

fn icmp(ip: &mut Ip, body: &[u8], first: bool) -> Result<(), Refusal> {
    let (kind, v6) = (body[0], ip.source.is_ipv6());
    if is_error(kind, v6) {
        if first {
            return Err(&[IcmpErrorUnmatched]);
        }
        ip.kind = Kind::Error(kind, quote(&body[8..], v6));
    } else if v6 && matches!(kind, 130..=137 | 143) {
        if first {
            return Err(&[NeighbourSpoof]);
        }
        let target = body.get(8..24).map(|target| {
            let target: [u8; 16] = target.try_into().unwrap();
            target.into()
        });
        ip.kind = Kind::Discovery(Discovery {
            kind,
            target,
            options: body.get(24..).unwrap_or_default().to_vec(),
            hardware: [0; 6],
        });
    } else {
        ip.ports = echo(kind, v6, body);
    }
    Ok(())
}

fn is_error(kind: u8, v6: bool) -> bool {
    if v6 {
        kind < 128
    } else {
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    }
}

fn echo(kind: u8, v6: bool, body: &[u8]) -> (u16, u16) {
    // Zero is no port, and would make a question and its answer alike.
    let id = match u16::from_be_bytes([body[4], body[5]]) {
        0 => u16::MAX,
        id => id,
    };
    match (kind, v6) {
        (8, false) | (128, true) => (id, 0),
        (0, false) | (129, true) => (0, id),
        // Any other question, and what is none, goes one way; answers have the type after theirs.
        (14 | 16 | 18, false) | (140, true) => (u16::MAX, kind.into()),
        _ => (u16::from(kind) + 1, u16::MAX),
    }
}

fn ports(body: &[u8]) -> (u16, u16) {
    (
        u16::from_be_bytes([body[0], body[1]]),
        u16::from_be_bytes([body[2], body[3]]),
    )
}

/// Eight bytes of the quoted packet's transport header are needed; a quoted error, or a fragment
/// without its header, belongs to no flow.
fn quote(bytes: &[u8], v6: bool) -> Option<Quote> {
    let (mut quote, body) = if v6 {
        let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
        let rest = &bytes[40..];
        let chain = walk(rest, rest.len(), header.next_header().0).ok()?;
        if matches!(chain.kind, Kind::LaterFragment) {
            return None;
        }
        let quote = Quote {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: chain.protocol,
            ports: (0, 0),
        };
        (quote, &rest[chain.end..])
    } else {
        let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        if header.fragments_offset().value() != 0 {
            return None;
        }
        let quote = Quote {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.protocol().0,
            ports: (0, 0),
        };
        (quote, &bytes[header.slice().len()..])
    };
    if body.len() < 8 {
        return None;
    }
    match (quote.protocol, v6) {
        (6 | 17 | 132, _) => quote.ports = ports(body),
        (1, false) | (58, true) if is_error(body[0], v6) => return None,
        (1, false) | (58, true) => quote.ports = echo(body[0], v6, body),
        _ => {}
    }
    Some(quote)
}
