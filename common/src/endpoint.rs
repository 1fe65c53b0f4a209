//! The `ENDPOINTS` value: what the pipeline needs to know about a workload's attachment.
//!
//! Invariants: one cache line; an unused address slot is the unspecified address, which no packet
//! may carry as its source outside address configuration.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    ids::{IdentityId, NamespaceSlot, TableId},
    layout::shared_layout,
    net::{Address, Ip4, Ip6},
};

/// How many own IPv4 addresses an endpoint may have.
pub const MAX_IP4: usize = 3;
/// How many own IPv6 addresses an endpoint may have.
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
    /// Index of its namespace's mode.
    pub namespace: NamespaceSlot,
    /// Boot-clock second until which mid-flow packets may be evaluated by the reverse direction's
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

/// Addresses that can be compared with an endpoint's own addresses.
pub trait Owns<A> {
    /// Whether the address is one of the workload's own.
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
    fn an_unused_address_slot_matches_no_address() {
        let mut endpoint = Endpoint::default();
        assert!(!endpoint.owns(Ip4::UNSPECIFIED) && !endpoint.owns(Ip6::UNSPECIFIED));
        endpoint.ip4[2] = Ip4::from_wire([10, 0, 0, 9]);
        assert!(endpoint.owns(Ip4::from_wire([10, 0, 0, 9])));
        assert!(!endpoint.owns(Ip4::from_wire([10, 0, 0, 8])));
    }
}
