//! One write to the kernel's maps.

use std::net::IpAddr;

use ipnet::IpNet;
use ringfence_common::{
    endpoint::Endpoint,
    ids::{ClassId, IdentityId, NamespaceSlot},
    mode::Mode,
};

use super::state::Row;

/// One write; each is atomic by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Writes a policy row.
    PutRow(Row),
    /// Removes a policy row.
    DeleteRow(Row),
    /// Sets a namespace's mode.
    SetMode(NamespaceSlot, Mode),
    /// Sets an identity's class.
    SetClass(IdentityId, ClassId),
    /// Maps a prefix to an identity.
    PutPrefix(IpNet, IdentityId),
    /// Removes a prefix.
    DeletePrefix(IpNet),
    /// Maps an address to an identity.
    PutAddress(IpAddr, IdentityId),
    /// Removes an address.
    DeleteAddress(IpAddr),
    /// Starts a new epoch of an address: its flows are re-evaluated.
    BumpEpoch(IpAddr),
    /// Starts a new epoch of every address, when any peer may lie in a changed prefix.
    BumpAllEpochs,
    /// Records that an address has another owner than before: a flow that its former owner opened is
    /// not its own.
    NewOwner(IpAddr),
    /// Records when an interface's pick-up window ends, in seconds of the boot clock.
    SetPickup(u32, u32),
    /// Writes an endpoint; this write switches it to another table.
    PutEndpoint(u32, Endpoint),
    /// Removes an endpoint.
    DeleteEndpoint(u32),
}

impl Action {
    /// Whether it starts a new epoch.
    #[must_use]
    pub const fn bumps_epochs(&self) -> bool {
        matches!(self, Self::BumpEpoch(_) | Self::BumpAllEpochs)
    }
}
