//! What the control maps hold: the same type for the desired and the actual state.
//!
//! Invariants: rows are grouped by table and shared, so that an unchanged table costs a pointer
//! comparison; the address map is shared likewise. Conntrack and telemetry are not state.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::{
    endpoint::Endpoint,
    ids::{ClassId, IdentityId, NamespaceSlot, TableId},
    mode::Mode,
    policy::{PolicyKey, PolicyRow},
};

/// A policy row with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Significant bits of the key.
    pub bits: u32,
    /// The key; bits beyond the prefix are zero.
    pub key: PolicyKey,
    /// The value.
    pub row: PolicyRow,
}

/// The rows of one table, by prefix.
pub type TableRows = HashMap<(u32, PolicyKey), PolicyRow>;

/// Addresses and the identities they have.
pub type Addresses = HashMap<IpAddr, IdentityId>;

/// The contents of every control map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Rows of `POLICY` by table.
    pub tables: BTreeMap<TableId, Arc<TableRows>>,
    /// `NAMESPACE_MODE`.
    pub modes: BTreeMap<NamespaceSlot, Mode>,
    /// `CLASSES`.
    pub classes: BTreeMap<IdentityId, ClassId>,
    /// `CIDR4` and `CIDR6`.
    pub prefixes: BTreeMap<IpNet, IdentityId>,
    /// `IPCACHE4` and `IPCACHE6`.
    pub addresses: Arc<Addresses>,
    /// `ENDPOINTS` by ifindex.
    pub endpoints: BTreeMap<u32, Endpoint>,
}

impl State {
    /// How many policy rows there are in all tables.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tables.values().map(|rows| rows.len()).sum()
    }
}
