//! The workloads that name an interface of this node, updated as the inventory changes.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    model::{Inventory, Workload, WorkloadId},
    ordmap::Map,
};

/// Workloads with an interface. They are few among many, so an update only visits what has changed
/// since the previous inventory.
#[derive(Default)]
pub(super) struct WorkloadInterfaces {
    previous: Map<WorkloadId, Arc<Workload>>,
    interfaces: BTreeMap<WorkloadId, String>,
}

impl WorkloadInterfaces {
    /// Updates to an inventory; returns its workloads that have an interface, with its name.
    pub(super) fn update(&mut self, inventory: &Inventory) -> &BTreeMap<WorkloadId, String> {
        inventory.workloads.since(&self.previous, |change| {
            self.interfaces.remove(change.key);
            let interface = change.new.and_then(|workload| workload.interface.clone());
            if let Some(interface) = interface {
                self.interfaces.insert(change.key.clone(), interface);
            }
        });
        self.previous = inventory.workloads.clone();
        &self.interfaces
    }

    /// The workloads that have an interface, as of the last update.
    pub(super) fn current(&self) -> &BTreeMap<WorkloadId, String> {
        &self.interfaces
    }
}
