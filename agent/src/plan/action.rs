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
    /// Forgets a prefix.
    DeletePrefix(IpNet),
    /// Maps an address to an identity.
    PutAddress(IpAddr, IdentityId),
    /// Forgets an address.
    DeleteAddress(IpAddr),
    /// Makes every recorded flow with this address be judged again.
    BumpEpoch(IpAddr),
    /// Makes every recorded flow be judged again whose peer may lie in a prefix that changed.
    BumpAllEpochs,
    /// Writes an endpoint; this is the write that flips it to another table.
    PutEndpoint(u32, Endpoint),
    /// Forgets an endpoint.
    DeleteEndpoint(u32),
}

impl Action {
    /// Whether it makes recorded flows be judged again.
    #[must_use]
    pub const fn begins_epochs(&self) -> bool {
        matches!(self, Self::BumpEpoch(_) | Self::BumpAllEpochs)
    }
}
