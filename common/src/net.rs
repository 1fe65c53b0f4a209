//! Addresses and ports as on the wire and in the maps: always in network byte order.
//!
//! Invariant: the raw integers are memory images of the wire bytes, so their numeric order has no
//! meaning.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{layout::shared_layout, maps::EPOCHS};

/// A TCP, UDP or SCTP port (or ICMP echo identifier) in network byte order.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Port(u16);
shared_layout!(Port, size 2);

impl Port {
    /// No port: protocols without ports, and both ends of an ICMP message other than echo.
    pub const NONE: Self = Self(0);

    /// From a number in host byte order.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// From the two bytes of a header.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The number in host byte order.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ip4(pub u32);
shared_layout!(Ip4, size 4);

/// An IPv6 address in network byte order, in two halves, so that a comparison takes two
/// instructions.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ip6 {
    /// The first eight bytes on the wire.
    pub first: u64,
    /// The last eight bytes on the wire.
    pub last: u64,
}
shared_layout!(Ip6, size 16, first at 0, last at 8);

impl Ip4 {
    /// 255.255.255.255.
    pub const BROADCAST: Self = Self(u32::MAX);

    /// From wire bytes.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// Wire bytes.
    #[must_use]
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl Ip6 {
    /// ff02::1:2, relay agents and servers of DHCPv6 on the link (RFC 8415 §7.1).
    pub const DHCP_SERVERS: Self =
        Self::from_wire([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);

    /// ff02::1, the nodes of the link (RFC 4291 §2.7.1).
    pub const ALL_NODES: Self =
        Self::from_wire([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// ff02::2, its routers.
    pub const ALL_ROUTERS: Self =
        Self::from_wire([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);

    /// The group of the nodes with addresses that end as this one (RFC 4291 §2.7.1).
    #[must_use]
    #[inline(always)]
    pub const fn solicited_node(self) -> Self {
        Self {
            first: 0xff02_0000_0000_0000_u64.to_be(),
            last: (0x0000_0001_ff00_0000 | u64::from_be(self.last) & 0xff_ffff).to_be(),
        }
    }

    /// From wire bytes.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire(b: [u8; 16]) -> Self {
        Self {
            first: u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            last: u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        }
    }

    /// Wire bytes.
    #[must_use]
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 16] {
        let (f, l) = (self.first.to_ne_bytes(), self.last.to_ne_bytes());
        [
            f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], l[0], l[1], l[2], l[3], l[4], l[5],
            l[6], l[7],
        ]
    }

    /// fe80::/10 (RFC 4291 §2.5.6).
    #[must_use]
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        u64::from_be(self.first) >> 54 == 0xfe80 >> 6
    }

    /// ff00::/8 (RFC 4291 §2.7).
    #[must_use]
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        u64::from_be(self.first) >> 56 == 0xff
    }
}

/// What the pipeline needs from an address of either family.
pub trait Address: Copy + Eq {
    /// True for IPv6.
    const V6: bool;
    /// The unspecified address.
    const UNSPECIFIED: Self;

    /// Index into `IDENTITY_EPOCH`, below [`EPOCHS`].
    fn epoch_slot(self) -> u32;

    /// Sixteen wire bytes; IPv4 as an IPv4-mapped address (RFC 4291 §2.5.5.2).
    fn widen(self) -> Ip6;
}

impl Address for Ip4 {
    const V6: bool = false;
    const UNSPECIFIED: Self = Self(0);

    #[inline(always)]
    fn epoch_slot(self) -> u32 {
        fold(u64::from(self.0))
    }

    #[inline(always)]
    fn widen(self) -> Ip6 {
        let b = self.to_wire();
        Ip6 {
            first: 0,
            last: u64::from_ne_bytes([0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]]),
        }
    }
}

impl Address for Ip6 {
    const V6: bool = true;
    const UNSPECIFIED: Self = Self { first: 0, last: 0 };

    #[inline(always)]
    fn epoch_slot(self) -> u32 {
        fold(self.first ^ self.last.rotate_left(29))
    }

    #[inline(always)]
    fn widen(self) -> Ip6 {
        self
    }
}

/// Multiplicative hashing to the epoch slots. A collision costs one unnecessary re-evaluation.
#[inline(always)]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the shift leaves log2(EPOCHS) bits"
)]
const fn fold(bits: u64) -> u32 {
    let once = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (once ^ (once >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> (64 - EPOCHS.trailing_zeros())) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_stored_as_on_the_wire() {
        assert_eq!(Port::new(8080), Port::from_wire([0x1f, 0x90]));
        assert_eq!(Port::from_wire([0x1f, 0x90]).number(), 8080);
    }

    #[test]
    fn an_ipv4_address_widens_to_its_mapped_form() {
        let wide = Ip4::from_wire([10, 1, 0, 3]).widen().to_wire();
        assert_eq!(
            wide,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 3]
        );
    }

    #[test]
    fn link_local_and_multicast_follow_rfc_4291() {
        let at = |a: u8, b: u8| {
            let mut bytes = [0; 16];
            (bytes[0], bytes[1]) = (a, b);
            Ip6::from_wire(bytes)
        };
        assert!(at(0xfe, 0x80).is_link_local() && at(0xfe, 0xbf).is_link_local());
        assert!(!at(0xfe, 0xc0).is_link_local() && !at(0xfd, 0x80).is_link_local());
        assert!(at(0xff, 0x02).is_multicast() && !at(0xfe, 0x80).is_multicast());
    }

    #[test]
    fn epoch_slots_stay_in_range_and_spread() {
        let mut seen = std::collections::HashSet::new();
        for n in 0..10_000u32 {
            let slot = Ip4((0x0a01_0000 + n).to_be()).epoch_slot();
            assert!(slot < EPOCHS);
            seen.insert(slot);
        }
        assert!(
            seen.len() > 3000,
            "only {} of {EPOCHS} slots used",
            seen.len()
        );
    }
}
