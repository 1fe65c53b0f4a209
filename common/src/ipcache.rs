//! `IPCACHE4` and `IPCACHE6`: the identity of an exact address.
//!
//! Invariant: a value says for which address it was written. The maps are hashes without
//! preallocation, so while a program holds a value, the memory may be given to another address
//! (`bpf_mem_alloc`, Linux commit fba1a1c6c912); what it copied is then not sealed for the address
//! it asked for, and it looks the address up again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    ids::IdentityId,
    layout::shared_layout,
    net::{Ip4, Ip6},
};

/// Value of both maps, 8 bytes.
#[repr(C, align(8))]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct IpcacheEntry {
    /// The [`IdentityId`].
    identity: u16,
    /// The endpoint number of a workload of this node; zero until one evaluation serves both ends.
    pub endpoint: u16,
    /// Sum over address and content.
    seal: u32,
}
shared_layout!(IpcacheEntry, size 8, identity at 0, endpoint at 2, seal at 4);

/// An address as words.
pub trait IpcacheKey: Copy {
    /// The address in 128 bits.
    fn words(self) -> [u64; 2];
}

impl IpcacheKey for Ip4 {
    #[inline(always)]
    fn words(self) -> [u64; 2] {
        [u64::from(self.0), 0]
    }
}

impl IpcacheKey for Ip6 {
    #[inline(always)]
    fn words(self) -> [u64; 2] {
        [self.first, self.last]
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the high half is the seal")]
fn seal(address: impl IpcacheKey, content: u32) -> u32 {
    let [first, last] = address.words();
    let mixed = first.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ last.rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
        ^ (u64::from(content) + 1).wrapping_mul(0xa076_1d64_78bd_642f);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xe703_7ed1_a0b4_28db);
    (mixed >> 32) as u32
}

impl IpcacheEntry {
    /// The value of an address with this identity.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "identities are below 65,536"
    )]
    pub fn new(address: impl IpcacheKey, identity: IdentityId) -> Self {
        let identity = identity.narrow();
        Self {
            identity,
            endpoint: 0,
            seal: seal(address, u32::from(identity)),
        }
    }

    /// The identity, whatever address the value is for.
    #[must_use]
    #[inline(always)]
    pub const fn identity(self) -> IdentityId {
        IdentityId(self.identity as u32)
    }

    /// The identity, if the value was written for this address.
    #[must_use]
    #[inline(always)]
    pub fn identity_of(self, address: impl IpcacheKey) -> Option<IdentityId> {
        let content = u32::from(self.identity) | u32::from(self.endpoint) << 16;
        (self.seal == seal(address, content)).then_some(self.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_gives_its_identity_to_its_own_address_only() {
        let (a, b) = (Ip4::from_wire([10, 0, 0, 1]), Ip4::from_wire([10, 0, 0, 2]));
        let entry = IpcacheEntry::new(a, IdentityId(17));
        assert_eq!(entry.identity_of(a), Some(IdentityId(17)));
        assert_eq!(entry.identity_of(b), None);
        let c = Ip6::from_wire([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(
            IpcacheEntry::new(c, IdentityId(3)).identity_of(c),
            Some(IdentityId(3))
        );
        assert_eq!(
            IpcacheEntry::default().identity_of(Ip4(0)),
            None,
            "cleared memory"
        );
    }

    #[test]
    fn a_mixture_of_two_values_is_no_value() {
        let (a, b) = (Ip4::from_wire([10, 0, 0, 1]), Ip4::from_wire([10, 0, 0, 2]));
        let one: [u8; 8] = zerocopy::transmute!(IpcacheEntry::new(a, IdentityId(0x1122)));
        let other: [u8; 8] = zerocopy::transmute!(IpcacheEntry::new(b, IdentityId(0x3344)));
        for at in 1..8 {
            let mut mixed = one;
            mixed[at..].copy_from_slice(&other[at..]);
            let mixed: IpcacheEntry = zerocopy::transmute!(mixed);
            for address in [a, b] {
                let identity = mixed.identity_of(address);
                let own = if address == a { 0x1122 } else { 0x3344 };
                assert!(identity.is_none_or(|id| id == IdentityId(own)), "{at}");
            }
        }
    }
}
