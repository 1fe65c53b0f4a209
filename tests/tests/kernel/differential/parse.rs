//! A frame parser that shares no code with the kernel programs: headers are parsed by `etherparse`,
//! everything else is written from the design.
//!
//! If a frame has several faults, the reason is that of the first one in header order. Behind the
//! eighth extension header the reason of any of its faults is accepted.

use std::net::IpAddr;

use etherparse::{
    ArpPacketSlice, Ethernet2HeaderSlice, IpAuthHeaderSlice, Ipv4HeaderSlice,
    Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, TcpHeaderSlice,
    UdpHeaderSlice, err,
};
use ringfence_common::drop_reason::DropReason::{self, *};

/// Any of these drop reasons is correct.
pub(super) type Reasons = &'static [DropReason];

const ARP_HEADER: Reasons = &[ArpHeader];
const IPV6_HEADER: Reasons = &[Ipv6Header];
const IP_LENGTH: Reasons = &[IpLength];
const EXTENSION_HEADERS: Reasons = &[ExtensionHeaders];

/// A parsed frame.
#[derive(Debug)]
pub(super) enum Parsed {
    Arp(Result<Arp, Reasons>),
    Ip(Result<Ip, Reasons>),
    /// Denied at either hook.
    Other(Reasons),
}

#[derive(Debug)]
pub(super) struct Arp {
    pub(super) sender: IpAddr,
    pub(super) target: IpAddr,
    pub(super) is_request: bool,
    /// What follows the packet.
    pub(super) padding: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
    pub(super) protocol: u8,
    /// Ports; an echo request has its identifier as first port, an echo reply as second.
    pub(super) ports: (u16, u16),
    /// A TCP segment with SYN and without ACK.
    pub(super) is_opening: bool,
    pub(super) is_reset: bool,
    pub(super) is_fin: bool,
    /// A TCP segment with SYN and ACK.
    pub(super) is_syn_ack: bool,
    /// The identification, if the packet has one.
    pub(super) id: u32,
    /// Offset in the unfragmented packet: where a later fragment begins, or where the headers end.
    pub(super) place: usize,
    pub(super) kind: Kind,
    /// Whether there are IP options or extension headers.
    pub(super) has_options: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Whole,
    FirstFragment,
    LaterFragment,
    /// An ICMP error: its type, and the quoted packet if it can be parsed.
    Error(u8, Option<Quote>),
    Discovery(Discovery),
}

/// The packet that an ICMP error quotes.
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
    pub(super) message: Vec<u8>,
    /// The first next header, and all extension headers.
    pub(super) first_header: u8,
    pub(super) extensions: Vec<u8>,
    /// Whether nothing follows the packet, and it stays one packet.
    pub(super) is_exact: bool,
    /// The source hardware address of the frame.
    pub(super) hardware: [u8; 6],
}

impl Discovery {
    /// Sets what the headers before the message show.
    fn complete(&mut self, packet: &[u8], gso: bool) {
        let stated = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        let transport = 40 + stated.saturating_sub(self.message.len());
        self.first_header = packet[6];
        self.extensions = packet[40..transport].to_vec();
        self.is_exact = !gso && packet.len() == 40 + stated;
    }
}

/// Parses a frame; `gso` if the kernel will segment it.
pub(super) fn parse(frame: &[u8], gso: bool) -> Parsed {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).unwrap();
    let body = &frame[14..];
    match ethernet.ether_type().0 {
        0x0800 => Parsed::Ip(ipv4(body, gso)),
        0x86dd => {
            let mut packet = ipv6(body, gso);
            if let Ok(Ip {
                kind: Kind::Discovery(discovery),
                ..
            }) = &mut packet
            {
                discovery.hardware = ethernet.source();
                discovery.complete(body, gso);
            }
            Parsed::Ip(packet)
        }
        0x0806 => Parsed::Arp(arp(body)),
        0x8100 | 0x88a8 => Parsed::Other(&[Vlan]),
        _ => Parsed::Other(&[Ethertype]),
    }
}

fn arp(body: &[u8]) -> Result<Arp, Reasons> {
    if body.len() < 28 {
        return Err(&[Truncated]);
    }
    let arp = ArpPacketSlice::from_slice(body).map_err(|_| ARP_HEADER)?;
    let kinds = (arp.hw_addr_type().0, arp.proto_addr_type().0);
    let sizes = (arp.hw_addr_size(), arp.proto_addr_size());
    let operation = arp.operation().0;
    let padding = &body[28..];
    if kinds != (1, 0x0800) || sizes != (6, 4) || !matches!(operation, 1 | 2) || padding.len() > 18
    {
        return Err(ARP_HEADER);
    }
    let sender: [u8; 4] = arp.sender_protocol_addr().try_into().unwrap();
    let target: [u8; 4] = arp.target_protocol_addr().try_into().unwrap();
    Ok(Arp {
        sender: sender.into(),
        target: target.into(),
        is_request: operation == 1,
        padding: padding.to_vec(),
    })
}

fn ipv4(bytes: &[u8], gso: bool) -> Result<Ip, Reasons> {
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
        is_opening: false,
        is_reset: false,
        is_fin: false,
        is_syn_ack: false,
        id: header.identification().into(),
        place: 0,
        kind: Kind::Whole,
        has_options: start > 20,
    };
    match header.fragments_offset().value() {
        0 if header.more_fragments() => ip.kind = Kind::FirstFragment,
        0 => {}
        // It would overlap the TCP flags (RFC 3128).
        1 if ip.protocol == 6 => return Err(&[TinyFragment]),
        offset => {
            ip.kind = Kind::LaterFragment;
            ip.place = 8 * usize::from(offset);
        }
    }
    transport(&mut ip, body, gso)?;
    Ok(ip)
}

fn ipv6(bytes: &[u8], gso: bool) -> Result<Ip, Reasons> {
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
        is_opening: false,
        is_reset: false,
        is_fin: false,
        is_syn_ack: false,
        id: chain.id,
        place: chain.place,
        kind: chain.kind,
        has_options: chain.end != 0,
    };
    transport(&mut ip, &rest[chain.end..length], gso)?;
    Ok(ip)
}

/// The extension headers of an IPv6 packet.
struct Chain {
    protocol: u8,
    end: usize,
    id: u32,
    /// Like [`Ip::place`], without the transport header.
    place: usize,
    kind: Kind,
}

/// Walks the extension headers of a packet that ends at `length`.
fn walk(rest: &[u8], length: usize, first: u8) -> Result<Chain, Reasons> {
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
        if this == 43 && (header[2] == 0 || header[3] != 0) {
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

/// Next header and size of an extension header.
fn extension(kind: u8, header: &[u8]) -> Option<(u8, usize)> {
    if kind != 51 {
        let header = Ipv6RawExtHeaderSlice::from_slice(header).ok()?;
        return Some((header.next_header().0, header.slice().len()));
    }
    match IpAuthHeaderSlice::from_slice(header) {
        Ok(header) => Some((header.next_header().0, header.slice().len())),
        // Shorter than RFC 4302 allows; Linux skips it like any other extension header.
        Err(_) if header.len() >= 8 && header[1] == 0 => Some((header[0], 8)),
        Err(_) => None,
    }
}

/// Sets ports and kind from the transport header.
fn transport(ip: &mut Ip, body: &[u8], gso: bool) -> Result<(), Reasons> {
    if matches!(ip.kind, Kind::LaterFragment) {
        return Ok(());
    }
    let first = matches!(ip.kind, Kind::FirstFragment);
    let truncated =
        move |reason: Reasons| -> Reasons { if first { &[TinyFragment] } else { reason } };
    match (ip.protocol, ip.source.is_ipv6()) {
        (6, _) => {
            let tcp = TcpHeaderSlice::from_slice(body).map_err(|why| match why {
                err::tcp::HeaderSliceError::Len(_) => truncated(&[TcpHeader]),
                err::tcp::HeaderSliceError::Content(_) => &[TcpHeader] as Reasons,
            })?;
            if !has_valid_flags(&tcp) {
                return Err(&[TcpFlags]);
            }
            ip.ports = (tcp.source_port(), tcp.destination_port());
            ip.is_opening = tcp.syn() && !tcp.ack();
            ip.is_reset = tcp.rst();
            ip.is_fin = tcp.fin();
            ip.is_syn_ack = tcp.syn() && tcp.ack();
            ip.place += tcp.slice().len();
        }
        (17, _) => {
            let udp = UdpHeaderSlice::from_slice(body).map_err(|_| truncated(&[UdpHeader]))?;
            let length = usize::from(udp.length());
            if length < 8 || (!first && !gso && length > body.len()) {
                return Err(&[UdpHeader]);
            }
            ip.ports = (udp.source_port(), udp.destination_port());
            ip.place += 8;
        }
        (132, _) => {
            // etherparse has no SCTP: source and destination port, tag, checksum (RFC 9260).
            if body.len() < 12 {
                return Err(truncated(&[Truncated]));
            }
            ip.ports = ports(body);
            ip.place += 12;
        }
        (1, false) | (58, true) => {
            if body.len() < 8 {
                return Err(truncated(&[Truncated]));
            }
            icmp(ip, body, first)?;
            ip.place += 8;
        }
        _ => {}
    }
    Ok(())
}

/// Whether the flags are a combination that stacks send: SYN, SYN+ACK, ACK, FIN+ACK, RST or
/// RST+ACK. URG is not accepted with SYN+ACK or RST.
fn has_valid_flags(tcp: &TcpHeaderSlice) -> bool {
    match (tcp.syn(), tcp.fin(), tcp.rst()) {
        (true, false, false) => !(tcp.ack() && tcp.urg()),
        (false, _, false) => tcp.ack(),
        (false, false, true) => !tcp.urg(),
        _ => false,
    }
}

fn icmp(ip: &mut Ip, body: &[u8], first: bool) -> Result<(), Reasons> {
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
        ip.kind = Kind::Discovery(Discovery {
            kind,
            message: body.to_vec(),
            first_header: 0,
            extensions: Vec::new(),
            is_exact: false,
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
    // Zero stands for no port; with it a request and its reply would look the same.
    let id = match u16::from_be_bytes([body[4], body[5]]) {
        0 => u16::MAX,
        id => id,
    };
    match (kind, v6) {
        (8, false) | (128, true) => (id, 0),
        (0, false) | (129, true) => (0, id),
        // Other types get the key of a request; a reply has the type after that of its request.
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

/// Parses a quoted packet. Eight bytes of its transport header are needed; a quoted ICMP error or
/// later fragment belongs to no flow.
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
