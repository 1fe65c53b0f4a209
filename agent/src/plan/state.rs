//! The content of the control maps; one type for the desired and the actual state.
//!
//! Invariants: rows are grouped by table and shared, so that an unchanged table costs a pointer
//! comparison; all other maps share their parts with the states they were made from. Conntrack and
//! telemetry are not part of it.

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

use super::action::Action;
use crate::ordmap::Map;

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

/// Addresses and their identities.
pub type Addresses = Map<IpAddr, IdentityId>;

/// The contents of every control map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Rows of `POLICY` by table.
    pub tables: BTreeMap<TableId, Arc<TableRows>>,
    /// `NAMESPACE_MODE`.
    pub modes: Map<NamespaceSlot, Mode>,
    /// `CLASSES`.
    pub classes: Map<IdentityId, ClassId>,
    /// `CIDR4` and `CIDR6`.
    pub prefixes: Map<IpNet, IdentityId>,
    /// `IPCACHE4` and `IPCACHE6`.
    pub addresses: Addresses,
    /// Who has each address: a hash of a workload's or node's name. The kernel does not hold it, so
    /// it is unknown for addresses that were found there.
    pub owners: Map<IpAddr, u64>,
    /// `ENDPOINTS` by ifindex.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// `PICKUP`: what is recorded of pick-up windows. No plan changes it.
    pub pickups: BTreeMap<u32, u32>,
}

impl State {
    /// Applies a write that was made to the kernel's maps.
    pub fn record(&mut self, action: &Action) {
        match *action {
            Action::PutRow(Row { bits, key, row }) => {
                let rows = self.tables.entry(key.table).or_default();
                Arc::make_mut(rows).insert((bits, key), row);
            }
            Action::DeleteRow(Row { bits, key, .. }) => {
                if let Some(rows) = self.tables.get_mut(&key.table) {
                    Arc::make_mut(rows).remove(&(bits, key));
                    if rows.is_empty() {
                        self.tables.remove(&key.table);
                    }
                }
            }
            Action::SetMode(slot, mode) => {
                self.modes.insert(slot, mode);
            }
            Action::SetClass(identity, class) => {
                self.classes.insert(identity, class);
            }
            Action::PutPrefix(net, identity) => {
                self.prefixes.insert(net, identity);
            }
            Action::DeletePrefix(net) => {
                self.prefixes.remove(&net);
            }
            Action::PutAddress(address, identity) => {
                self.addresses.insert(address, identity);
            }
            Action::DeleteAddress(address) => {
                self.addresses.remove(&address);
            }
            Action::BumpEpoch(_) | Action::BumpAllEpochs | Action::NewOwner(_) => {}
            Action::PutEndpoint(ifindex, endpoint) => {
                self.endpoints.insert(ifindex, endpoint);
            }
            Action::DeleteEndpoint(ifindex) => {
                self.endpoints.remove(&ifindex);
            }
            Action::SetPickup(ifindex, deadline) => {
                self.pickups.insert(ifindex, deadline);
            }
        }
    }

    /// Applies a whole publish: takes over the desired state, and keeps rows that are not retired
    /// yet.
    pub fn overlay(&mut self, desired: &Self) {
        for (table, rows) in &desired.tables {
            let held = self.tables.entry(*table).or_insert_with(|| rows.clone());
            if Arc::ptr_eq(held, rows) {
                continue;
            }
            if held.keys().all(|key| rows.contains_key(key)) {
                // Share the rows: a later comparison then costs a pointer comparison.
                held.clone_from(rows);
            } else {
                let rows = rows.iter().map(|(key, row)| (*key, *row));
                Arc::make_mut(held).extend(rows);
            }
        }
        self.modes = desired.modes.clone();
        self.classes = desired.classes.clone();
        self.prefixes = desired.prefixes.clone();
        self.addresses = desired.addresses.clone();
        self.owners = desired.owners.clone();
        self.endpoints.clone_from(&desired.endpoints);
    }

    /// The number of policy rows in all tables.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tables.values().map(|rows| rows.len()).sum()
    }
}
