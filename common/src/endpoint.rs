//! The `ENDPOINTS` value: everything the packet path must know of a workload's attachment.
//!
//! Invariants: one cache line; an unused address slot is the unspecified address, which no packet
//! may carry as its source outside address configuration. What the numbers mean is elsewhere.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    ids::{IdentityId, NamespaceSlot, TableId},
    layout::shared_layout,
    net::{Address, Ip4, Ip6},
};

/// How many IPv4 addresses an endpoint may own.
pub const MAX_IP4: usize = 3;
/// How many IPv6 addresses an endpoint may own.
pub const MAX_IP6: usize = 2;

/// One endpoint, 64 bytes. Key: ifindex.
#[repr(C, align(8))]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Endpoint {
    /// The workload's own addresses, for the source check.
    pub ip6: [Ip6; MAX_IP6],
    /// The workload's own addresses, for the source check.
    pub ip4: [Ip4; MAX_IP4],
    /// The workload's identity, for telemetry.
    pub identity: IdentityId,
    /// The policy table in force; one write of it flips the endpoint.
    pub table: TableId,
    /// Where its namespace's mode stands.
    pub namespace: NamespaceSlot,
    /// Boot-clock second until which mid-flow packets may be judged by the reverse direction's
    /// policy, so that connections older than the agent survive.
    pub pickup_until: u32,
    /// A [`crate::mode::Mode`] that overrides the namespace's, or 0.
    pub mode_override: u8,
    /// Reserved, zero.
    pub reserved: [u8; 3],
}
shared_layout!(
    Endpoint, size 64, ip6 at 0, ip4 at 32, identity at 44, table at 48, namespace at 52,
    pickup_until at 56, mode_override at 60,
);

/// Addresses that an endpoint can be asked about.
pub trait Owns<A> {
    /// Whether the address is the workload's own.
    fn owns(&self, address: A) -> bool;
}

impl Owns<Ip4> for Endpoint {
    #[inline(always)]
    fn owns(&self, a: Ip4) -> bool {
        let [x, y, z] = self.ip4;
        a != Ip4::UNSPECIFIED && (a == x || a == y || a == z)
    }
}

impl Owns<Ip6> for Endpoint {
    #[inline(always)]
    fn owns(&self, a: Ip6) -> bool {
        let [x, y] = self.ip6;
        a != Ip6::UNSPECIFIED && (a == x || a == y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_slot_owns_nothing() {
        let mut endpoint = Endpoint::default();
        assert!(!endpoint.owns(Ip4::UNSPECIFIED) && !endpoint.owns(Ip6::UNSPECIFIED));
        endpoint.ip4[2] = Ip4::from_wire([10, 0, 0, 9]);
        assert!(endpoint.owns(Ip4::from_wire([10, 0, 0, 9])));
        assert!(!endpoint.owns(Ip4::from_wire([10, 0, 0, 8])));
    }
}
