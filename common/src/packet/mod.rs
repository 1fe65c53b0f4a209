//! Parses one packet into what the pipeline needs.
//!
//! Invariants: every byte is read through [`Frame::load`], which checks bounds. Nothing assumes
//! linear data, an IPv4 header without options or a short chain of IPv6 headers. Every parse
//! failure has a [`DropReason`]. Parsing allows nothing; policy, source check and conntrack decide.

use crate::{
    drop_reason::DropReason,
    net::{Address, Port},
};

pub mod arp;
pub mod dhcp;
mod discovery;
mod ipv4;
mod ipv6;
mod link_local;
mod listener;
pub mod neighbour;
pub mod own_source;
pub mod reject;
mod transport;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: u32 = 14;

/// EtherTypes (IEEE 802 numbers), host byte order.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Customer VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// Service VLAN tag.
    pub const QINQ: u16 = 0x88a8;
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The flag byte of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;

    /// Whether a flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// SYN without ACK, FIN or RST.
    #[inline(always)]
    #[must_use]
    pub const fn is_pure_syn(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::FIN | Self::RST) == Self::SYN
    }

    /// Whether a sane stack may send this combination; PSH, ECE and CWR are ignored. The same table
    /// as Linux's `tcp_valid_flags` (`net/netfilter/nf_conntrack_proto_tcp.c`).
    #[inline(always)]
    #[must_use]
    pub const fn are_sane(self) -> bool {
        let urg = Self::URG;
        let relevant = self.0 & (Self::FIN | Self::SYN | Self::RST | Self::ACK | urg);
        matches!(relevant & !urg, 0x02 | 0x12 | 0x04 | 0x14 | 0x11 | 0x10)
            && (relevant & urg == 0 || matches!(relevant & !urg, 0x02 | 0x11 | 0x10))
    }
}

/// A frame that can be read in parts.
pub trait Frame {
    /// Length of the frame from its Ethernet header on.
    fn len(&self) -> u32;

    /// Copies `N` bytes at an offset; false when the frame does not hold them.
    fn load<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> bool;

    /// Like [`Self::load`], for an offset where most packets have the header; may be cheaper.
    #[inline(always)]
    fn peek<const N: usize, const OFFSET: u32>(&self, into: &mut [u8; N]) -> bool {
        self.load(OFFSET, into)
    }

    /// Whether the kernel will segment the frame later. A length of zero in the IP header is then
    /// legal (BIG TCP).
    fn is_gso(&self) -> bool;

    /// Whether the frame is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How the pipeline treats a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A packet of a flow with its own ports (or a protocol without any).
    Flow,
    /// The first of several fragments; it holds the ports.
    FirstFragment,
    /// A later fragment; its ports are those of the first.
    LaterFragment,
    /// An ICMP error; the quoted packet decides.
    Error,
    /// Neighbour discovery or multicast listener discovery: address configuration.
    Discovery,
}

/// One parsed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; for ICMP echo see [`Packet::destination_port`].
    pub source_port: Port,
    /// Destination port. An echo request has its identifier as source port and no destination port,
    /// an echo reply the reverse, so that request and reply are one flow and two requests are not.
    /// An identifier of 0 counts as 65535, because a reply without any port would look like a
    /// request. Other ICMP messages have ports that distinguish their types.
    pub destination_port: Port,
    /// Offset of the transport header.
    pub transport: u32,
    /// Offset of the first byte after the IP packet.
    pub end: u32,
    /// Identification field, of fragments.
    pub fragment_id: u32,
    /// Of a later fragment, its offset. Otherwise the bytes from the start of the data that is, or
    /// could be, fragmented to the end of the transport header.
    pub datagram_offset: u32,
    /// Length of the IP packet.
    pub length: u32,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// TCP flags, or none.
    pub tcp: TcpFlags,
    /// ICMP type, or 0.
    pub icmp_type: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// How the pipeline treats it.
    pub kind: Kind,
}

impl<A: Address> Packet<A> {
    /// An empty packet, for [`Parse`] to fill in.
    #[must_use]
    #[inline(always)]
    pub fn unknown() -> Self {
        Self {
            source: A::UNSPECIFIED,
            destination: A::UNSPECIFIED,
            source_port: Port::NONE,
            destination_port: Port::NONE,
            transport: 0,
            end: 0,
            fragment_id: 0,
            datagram_offset: 0,
            length: 0,
            protocol: 0,
            tcp: TcpFlags(0),
            icmp_type: 0,
            hop_limit: 0,
            kind: Kind::Flow,
        }
    }
}

/// An address family whose packets can be parsed.
pub trait Parse: Address {
    /// Parses the IP packet after the Ethernet header into an empty packet; in place, because the
    /// programs have 512 bytes of stack.
    ///
    /// # Errors
    /// The drop reason.
    fn parse<F: Frame>(frame: &F, into: &mut Packet<Self>) -> Result<(), DropReason>;

    /// Parses the head of the packet that an ICMP error quotes: addresses, protocol and ports.
    ///
    /// # Errors
    /// [`DropReason::IcmpErrorUnmatched`] if the quote does not hold them.
    fn parse_quoted<F: Frame>(
        frame: &F,
        at: u32,
        into: &mut Packet<Self>,
    ) -> Result<(), DropReason>;
}

#[inline(always)]
const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
pub(crate) mod tests;
