//! The workloads that name an interface of this node, kept up as the inventory changes.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    model::{Inventory, Workload, WorkloadId},
    ordmap::Map,
};

/// Few among many: found once, then by what changed.
#[derive(Default)]
pub(super) struct Attachable {
    known: Map<WorkloadId, Arc<Workload>>,
    interfaces: BTreeMap<WorkloadId, String>,
}

impl Attachable {
    /// The workloads of an inventory with an interface, and its name.
    pub(super) fn of(&mut self, inventory: &Inventory) -> &BTreeMap<WorkloadId, String> {
        inventory.workloads.since(&self.known, |change| {
            self.interfaces.remove(change.key);
            let interface = change.new.and_then(|workload| workload.interface.clone());
            if let Some(interface) = interface {
                self.interfaces.insert(change.key.clone(), interface);
            }
        });
        self.known = inventory.workloads.clone();
        &self.interfaces
    }
}
