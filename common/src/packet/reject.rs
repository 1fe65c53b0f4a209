//! Content of reject packets, byte by byte.
//!
//! TCP gets the reset that a closed port sends (RFC 9293 §3.10.7.1). Everything else gets an ICMP
//! message: "port unreachable" for UDP, because only that fails a datagram socket at once, and
//! "administratively prohibited" for the rest (RFC 1812 §5.2.7.1, RFC 4443 §3.1).
//!
//! Invariants: a reject packet is at most 28 (IPv6: 48) bytes longer than the rejected packet, of
//! which it quotes the IP header and eight bytes. No reject packet is sent for a packet that could
//! itself be one, for one without a single sender and receiver, or for one with IP options or
//! extension headers. Whether a rule rejects is decided elsewhere.

use zerocopy::IntoBytes as _;

use super::{ETHERNET, Frame, TcpFlags, be16, protocol, transport::is_error};
use crate::net::{Address, Ip4, Ip6};

/// The part of a packet from which the reject packet is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// IP protocol number of what follows the IP header.
    pub protocol: u8,
    /// Bytes after the IP header.
    pub payload: u16,
}

/// A TCP header without options.
pub type TcpHeader = [u8; 20];

/// A reject packet from its IP header on, with zeroes after its end.
pub type WholePacket = [u8; 96];

/// Who completes the checksum of a reject packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is complete.
    Complete,
    /// The kernel completes it, as requested for the rejected packet: from the transport header on,
    /// at the offset of that packet's checksum (`CHECKSUM_PARTIAL`).
    Partial,
}

/// An address family whose packets can be rejected.
pub trait Reject: Address {
    /// Bytes of an IP header without options or extensions.
    const HEADER: u32;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// Type and codes of "destination unreachable": for UDP, and for the rest.
    const UNREACHABLE: (u8, u8, u8);
    /// What an ICMP message quotes, in words as on the wire: the IP header and eight bytes more.
    type Quote;
    /// An IP header.
    type Header: Copy + AsRef<[u8]>;

    /// Reads the head of the IP packet in an Ethernet frame. None if the packet has options or
    /// extension headers, holds fewer than eight bytes more, or is a later fragment.
    fn head<F: Frame>(frame: &F, quote: &mut Self::Quote) -> Option<Head<Self>>;

    /// Reads all of a reject packet in an Ethernet frame: a reset, or else an error.
    fn whole<F: Frame>(frame: &F, is_reset: bool, packet: &mut WholePacket) -> bool;

    /// Whether this can be the address of a single remote host.
    fn is_host(self) -> bool;

    /// The IP header of a reject packet.
    fn header(quote: &Self::Quote, protocol: u8, payload: u16) -> Self::Header;

    /// The sum of both addresses, for checksums.
    fn sum_of_ends(quote: &Self::Quote) -> u64;

    /// The sum of the quote.
    fn sum_of_quote(quote: &Self::Quote) -> u64;

    /// The bytes of the quote.
    fn bytes_of_quote(quote: &Self::Quote) -> &[u8];
}

/// Whether a packet may be rejected. `destination_mac` is the first byte of the frame, `first` the
/// first byte after the IP header. For TCP see also [`may_be_reset`].
#[inline(always)]
#[must_use]
pub fn may_reject<A: Reject>(destination_mac: u8, head: &Head<A>, first: u8) -> bool {
    destination_mac & 1 == 0
        && head.source.is_host()
        && head.destination.is_host()
        && !(head.protocol == A::ICMP && is_error::<A>(first))
}

/// Whether a segment may be reset; a reset never is.
#[inline(always)]
#[must_use]
pub const fn may_be_reset(tcp: &TcpHeader) -> bool {
    !TcpFlags(tcp[13]).has(TcpFlags::RST)
}

/// The segment that resets the connection of a segment with `payload` bytes after the IP header.
#[inline(always)]
#[must_use]
pub fn reset<A: Reject>(
    quote: &A::Quote,
    payload: u16,
    tcp: &TcpHeader,
    checksum: Checksum,
) -> TcpHeader {
    let [ports, seq, ack, control, _]: [u32; 5] = zerocopy::transmute!(*tcp);
    let [offset, raw, ..] = control.to_ne_bytes();
    let flags = TcpFlags(raw);
    let (seq, ack, reset) = if flags.has(TcpFlags::ACK) {
        (ack, 0, TcpFlags::RST)
    } else {
        let data = payload.wrapping_sub(u16::from(offset >> 4) * 4);
        let open = u32::from(flags.has(TcpFlags::SYN)) + u32::from(flags.has(TcpFlags::FIN));
        let next = u32::from_be(seq)
            .wrapping_add(u32::from(data))
            .wrapping_add(open);
        (0, next.to_be(), TcpFlags::RST | TcpFlags::ACK)
    };
    // Swaps both halves, whatever the byte order.
    let ports = ports.rotate_left(16);
    let control = u32::from_ne_bytes([5 << 4, reset, 0, 0]);
    let pseudo = pseudo::<A>(quote, protocol::TCP, 20);
    let sum = match checksum {
        Checksum::Complete => !fold(pseudo + total(&[ports, seq, ack, control])),
        Checksum::Partial => fold(pseudo),
    };
    let [high, low] = sum.to_ne_bytes();
    let last = u32::from_ne_bytes([high, low, 0, 0]);
    zerocopy::transmute!([ports, seq, ack, control, last])
}

/// The head of the ICMP message for a packet of a protocol; the quote follows.
///
/// Its last two bytes are unused. The kernel would put the checksum of a UDP datagram there; their
/// value makes the message's sum correct with and without that.
#[inline(always)]
#[must_use]
pub fn unreachable<A: Reject>(quote: &A::Quote, number: u8, checksum: Checksum) -> [u8; 8] {
    let (kind, port, prohibited) = A::UNREACHABLE;
    let code = if number == protocol::UDP {
        port
    } else {
        prohibited
    };
    let start = u32::from_ne_bytes([kind, code, 0, 0]);
    let pseudo = if A::V6 {
        pseudo::<A>(quote, A::ICMP, message_length::<A>())
    } else {
        0
    };
    let sum = pseudo + total(&[start]) + A::sum_of_quote(quote);
    let [a, b] = (!fold(sum)).to_ne_bytes();
    let [c, d] = match checksum {
        Checksum::Complete => [0; 2],
        Checksum::Partial => fold(pseudo).to_ne_bytes(),
    };
    [kind, code, a, b, 0, 0, c, d]
}

/// Length of an ICMP message with its quote.
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "at most 56")]
pub const fn message_length<A: Reject>() -> u16 {
    8 + A::HEADER as u16 + 8
}

/// The sum of the pseudo-header of a reject packet (RFC 9293 §3.1, RFC 8200 §8.1).
#[inline(always)]
fn pseudo<A: Reject>(quote: &A::Quote, number: u8, length: u16) -> u64 {
    let [high, low] = length.to_be_bytes();
    A::sum_of_ends(quote) + u64::from(u32::from_ne_bytes([0, number, high, low]))
}

/// Reads `N` bytes from the IP header on.
#[inline(always)]
fn load_start<const N: usize, F: Frame>(frame: &F, packet: &mut WholePacket) -> bool {
    let start = packet.first_chunk_mut::<N>();
    start.is_some_and(|start| frame.load(ETHERNET, start))
}

#[inline(always)]
fn total<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(*word);
    }
    sum
}

/// Folds a sum of up to 2^16 words to the ones' complement sum of its halves (RFC 1071), which is
/// the same in every byte order.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "folded to sixteen bits")]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

impl Reject for Ip4 {
    const HEADER: u32 = 20;
    const ICMP: u8 = protocol::ICMP;
    const UNREACHABLE: (u8, u8, u8) = (3, 3, 13);
    type Quote = [u32; 7];
    type Header = [u8; 20];

    #[inline(always)]
    fn head<F: Frame>(frame: &F, quote: &mut [u32; 7]) -> Option<Head<Self>> {
        let h: &mut [u8; 28] = zerocopy::transmute_mut!(quote);
        if !frame.load(ETHERNET, h) || h[0] != 0x45 || be16(h[6], h[7]) & 0x1fff != 0 {
            return None;
        }
        Some(Head {
            source: Self::from_wire([h[12], h[13], h[14], h[15]]),
            destination: Self::from_wire([h[16], h[17], h[18], h[19]]),
            protocol: h[9],
            payload: be16(h[2], h[3]).wrapping_sub(20),
        })
    }

    #[inline(always)]
    fn whole<F: Frame>(frame: &F, is_reset: bool, packet: &mut WholePacket) -> bool {
        *packet = [0; 96];
        if is_reset {
            load_start::<40, F>(frame, packet)
        } else {
            load_start::<56, F>(frame, packet)
        }
    }

    /// Not "this network", loopback, multicast, reserved or broadcast (RFC 1122 §3.2.2).
    #[inline(always)]
    fn is_host(self) -> bool {
        let [first, ..] = self.to_wire();
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn header(quote: &[u32; 7], number: u8, payload: u16) -> [u8; 20] {
        let [_, _, _, source, destination, ..] = *quote;
        let [high, low] = (payload + 20).to_be_bytes();
        let start = u32::from_ne_bytes([0x45, 0, high, low]);
        // Never fragmented, so it needs no identification (RFC 6864).
        let fragment = u32::from_ne_bytes([0, 0, 0x40, 0]);
        let unsummed = u32::from_ne_bytes([64, number, 0, 0]);
        let sum = total(&[start, fragment, unsummed, source, destination]);
        let [a, b] = (!fold(sum)).to_ne_bytes();
        let life = u32::from_ne_bytes([64, number, a, b]);
        zerocopy::transmute!([start, fragment, life, destination, source])
    }

    #[inline(always)]
    fn sum_of_ends(quote: &[u32; 7]) -> u64 {
        let [_, _, _, source, destination, ..] = *quote;
        total(&[source, destination])
    }

    #[inline(always)]
    fn sum_of_quote(quote: &[u32; 7]) -> u64 {
        total(quote)
    }

    #[inline(always)]
    fn bytes_of_quote(quote: &[u32; 7]) -> &[u8] {
        quote.as_bytes()
    }
}

impl Reject for Ip6 {
    const HEADER: u32 = 40;
    const ICMP: u8 = protocol::ICMPV6;
    const UNREACHABLE: (u8, u8, u8) = (1, 4, 1);
    type Quote = [u32; 12];
    type Header = [u8; 40];

    #[inline(always)]
    fn head<F: Frame>(frame: &F, quote: &mut [u32; 12]) -> Option<Head<Self>> {
        let h: &mut [u8; 48] = zerocopy::transmute_mut!(quote);
        if !frame.load(ETHERNET, h) || h[0] >> 4 != 6 || super::ipv6::is_extension(h[6]) {
            return None;
        }
        let (number, payload) = (h[6], be16(h[4], h[5]));
        let [_, _, a, b, c, d, e, f, g, i, _, _] = *quote;
        Some(Head {
            source: Self {
                first: zerocopy::transmute!([a, b]),
                last: zerocopy::transmute!([c, d]),
            },
            destination: Self {
                first: zerocopy::transmute!([e, f]),
                last: zerocopy::transmute!([g, i]),
            },
            protocol: number,
            payload,
        })
    }

    #[inline(always)]
    fn whole<F: Frame>(frame: &F, is_reset: bool, packet: &mut WholePacket) -> bool {
        *packet = [0; 96];
        if is_reset {
            load_start::<60, F>(frame, packet)
        } else {
            load_start::<96, F>(frame, packet)
        }
    }

    /// Not unspecified, loopback or multicast.
    #[inline(always)]
    fn is_host(self) -> bool {
        let unspecified_or_loopback = self.first == 0 && u64::from_be(self.last) <= 1;
        !unspecified_or_loopback && !self.is_multicast()
    }

    #[inline(always)]
    fn header(quote: &[u32; 12], number: u8, payload: u16) -> [u8; 40] {
        let [high, low] = payload.to_be_bytes();
        let version = u32::from_ne_bytes([0x60, 0, 0, 0]);
        let next = u32::from_ne_bytes([high, low, number, 64]);
        let [_, _, a, b, c, d, e, f, g, h, ..] = *quote;
        zerocopy::transmute!([version, next, e, f, g, h, a, b, c, d])
    }

    /// Not inlined into the kernel programs, whose stack does not hold so many summands.
    #[inline(never)]
    fn sum_of_ends(quote: &[u32; 12]) -> u64 {
        let [_, _, a, b, c, d, e, f, g, h, ..] = *quote;
        total(&[a, b, c, d, e, f, g, h])
    }

    /// Not inlined, as above.
    #[inline(never)]
    fn sum_of_quote(quote: &[u32; 12]) -> u64 {
        total(quote)
    }

    #[inline(always)]
    fn bytes_of_quote(quote: &[u32; 12]) -> &[u8] {
        quote.as_bytes()
    }
}

#[cfg(test)]
mod tests;
