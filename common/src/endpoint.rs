//! Endpoints: what the pipeline needs to know about a workload's attachment, and how it is found.
//!
//! `ENDPOINT_SLOTS` maps an interface to the record in force, an index into `ENDPOINTS`. Invariants:
//! a record is one cache line and never changes while the slot refers to it, nor for an RCU grace
//! period afterwards, so a program sees one record as a whole for as long as it runs. An endpoint
//! has [`RECORDS`] consecutive records and uses them in turn, so that putting another one in force
//! is a store of four bytes of which one changes. A record says whose it is. An unused address slot
//! is the unspecified address, which no packet may carry as its source outside address
//! configuration.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    ids::{EndpointNumber, IdentityId, NamespaceSlot, TableId},
    layout::shared_layout,
    net::{Address, Ip4, Ip6},
};

/// How many own IPv4 addresses an endpoint may have.
pub const MAX_IP4: usize = 3;
/// How many own IPv6 addresses an endpoint may have.
pub const MAX_IP6: usize = 2;
/// Records of one endpoint.
pub const RECORDS: u32 = 4;
/// Positions of `ENDPOINT_SLOTS`, a power of two.
pub const POSITIONS: u32 = 65_536;
/// Positions in which an interface may be.
pub const PROBES: u32 = 8;
/// From one of them to the next: odd, and far. Interfaces that live long have consecutive indices, so
/// the positions next to a taken one are taken, too.
const STRIDE: u32 = 27_293;

/// The n-th position in which an interface may be; the first is its index modulo [`POSITIONS`].
#[inline(always)]
#[must_use]
pub fn position(ifindex: u32, probe: u32) -> u32 {
    ifindex.wrapping_add(probe.wrapping_mul(STRIDE)) & (POSITIONS - 1)
}

/// A value of `ENDPOINT_SLOTS`: the index of a record, or 0 for none. Endpoint number 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordSlot(pub u32);

impl RecordSlot {
    /// The n-th record of an endpoint.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: EndpointNumber, record: u32) -> Self {
        Self(number.0 * RECORDS + record % RECORDS)
    }

    /// The endpoint that the record belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> EndpointNumber {
        EndpointNumber(self.0 / RECORDS)
    }

    /// Which of the endpoint's records it is.
    #[inline(always)]
    #[must_use]
    pub const fn record(self) -> u32 {
        self.0 % RECORDS
    }
}

/// One record, 64 bytes.
#[repr(C, align(8))]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Endpoint {
    /// The workload's own addresses, for the source check.
    pub ip6: [Ip6; MAX_IP6],
    /// The workload's own addresses, for the source check.
    pub ip4: [Ip4; MAX_IP4],
    /// The interface that the record is for.
    pub ifindex: u32,
    /// The workload's identity, for telemetry.
    pub identity: IdentityId,
    /// The policy table in force.
    pub table: TableId,
    /// Boot-clock second until which mid-flow packets may be evaluated by the reverse direction's
    /// policy, so that connections older than the agent survive.
    pub pickup_until: u32,
    /// Index of its namespace's mode, a [`NamespaceSlot`].
    pub namespace: u16,
    /// A [`crate::mode::Mode`] that overrides the namespace's, or 0.
    pub mode_override: u8,
    /// Reserved, zero.
    pub reserved: u8,
}
shared_layout!(
    Endpoint, size 64, ip6 at 0, ip4 at 32, ifindex at 44, identity at 48, table at 52,
    pickup_until at 56, namespace at 60, mode_override at 62,
);

impl Endpoint {
    /// Index of its namespace's mode.
    #[inline(always)]
    #[must_use]
    pub const fn namespace(&self) -> NamespaceSlot {
        NamespaceSlot(self.namespace as u32)
    }
}

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

    /// Interfaces that live long have consecutive indices; later ones have the same ones modulo
    /// [`POSITIONS`].
    #[test]
    fn every_interface_finds_a_position_next_to_long_runs_of_others() {
        let mut taken = std::collections::BTreeSet::new();
        for wraps in 0..8 {
            for index in 1..=500_u32 {
                let ifindex = wraps * POSITIONS + index;
                let free = (0..PROBES).map(|probe| position(ifindex, probe));
                let free = free.into_iter().find(|position| taken.insert(*position));
                assert!(free.is_some(), "{ifindex}");
            }
        }
    }
}
