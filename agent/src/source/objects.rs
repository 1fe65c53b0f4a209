//! The objects that sources deliver, and those of them that are in force.
//!
//! Invariants: an object belongs to the source that delivered it, and no other source changes or removes
//! it. If several deliver an object of one name, that of the first source is in force, and the next one's
//! once that is gone. Changes are put into force together or not at all. An address that objects of
//! several sources claim is in dispute like any other: it may be unknown, and nothing is locked down for
//! it. Copies share everything.
//!
//! Does not wait for sources, and knows nothing of files: [`super::object_sources`] does, and
//! [`super::files`].

mod faults;
mod ownership;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::SourceError;
use crate::model::{
    Change, Inventory, InventoryChanges, InventoryFault, InventoryStore, Lockdown, Namespace,
    NamespaceName, Needs, NodeEntry, NodeName, OverBudget, Policy, PolicyId, PolicySet,
    PolicyStore, Workload, WorkloadId,
};
use ownership::Ownership;

/// A source of objects: its place among the sources, and its name in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    /// Of two sources, the one with the lower number is first.
    pub rank: u8,
    /// What users call it.
    pub name: &'static str,
}

impl SourceId {
    /// The files of this node, which are before every other source.
    pub const FILES: Self = Self {
        rank: 0,
        name: "files",
    };
}

/// Changes of objects of one source, each name at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectChanges {
    /// Namespaces, workloads and nodes.
    pub inventory: InventoryChanges,
    /// Policies.
    pub policies: Vec<Change<PolicyId, Arc<Policy>>>,
}

/// The objects of all sources.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    store: InventoryStore,
    policies: PolicyStore,
    namespace_owners: Ownership<NamespaceName, Namespace>,
    workload_owners: Ownership<WorkloadId, Arc<Workload>>,
    node_owners: Ownership<NodeName, Arc<NodeEntry>>,
    policy_owners: Ownership<PolicyId, Arc<Policy>>,
    /// The subjects of what each source has refused and of which nothing is in force.
    refused: BTreeMap<SourceId, Vec<Lockdown>>,
    locked: Arc<Vec<Lockdown>>,
}

impl Objects {
    /// No objects, and this budget for the policies of each namespace.
    #[must_use]
    pub fn new(budget: Needs) -> Self {
        Self {
            policies: PolicyStore::new(budget),
            ..Self::default()
        }
    }

    /// The inventory in force.
    #[must_use]
    pub fn inventory(&self) -> &Arc<Inventory> {
        self.store.inventory()
    }

    /// The objects of the inventory in force.
    pub(super) const fn store(&self) -> &InventoryStore {
        &self.store
    }

    /// The policies in force.
    #[must_use]
    pub const fn policies(&self) -> &Arc<PolicySet> {
        self.policies.in_force()
    }

    /// The subjects of refused policies of which no content was ever in force.
    #[must_use]
    pub const fn locked(&self) -> &Arc<Vec<Lockdown>> {
        &self.locked
    }

    /// The policies that their namespace has no budget for.
    pub fn over_budget(&self) -> impl Iterator<Item = &OverBudget> {
        self.policies.over_budget()
    }

    /// Whether the namespace of this name is declared by a source, in force or not.
    pub(super) fn declares(&self, source: SourceId, name: &NamespaceName) -> bool {
        let is_held = self.store.declares(name);
        self.namespace_owners.is_of(source, name, is_held)
    }

    /// Whether the workload of this name is a source's, in force or not.
    pub(super) fn has_workload(&self, source: SourceId, id: &WorkloadId) -> bool {
        let is_held = self.inventory().workloads.contains_key(id);
        self.workload_owners.is_of(source, id, is_held)
    }

    /// Whether the node of this name is a source's, in force or not.
    pub(super) fn has_node(&self, source: SourceId, name: &NodeName) -> bool {
        let is_held = self.inventory().nodes.contains_key(name);
        self.node_owners.is_of(source, name, is_held)
    }

    /// Whether the policy of this name is a source's, in force or not.
    pub(super) fn has_policy(&self, source: SourceId, id: &PolicyId) -> bool {
        let is_held = self.policies.wanted(id).is_some();
        self.policy_owners.is_of(source, id, is_held)
    }

    /// Puts changes of a source's objects into force.
    ///
    /// # Errors
    /// All contradictions among the changes and with other objects; nothing is changed then.
    pub fn apply(
        &mut self,
        source: SourceId,
        changes: ObjectChanges,
    ) -> Result<(), Vec<InventoryFault>> {
        let mut next = self.clone();
        let inventory = next.owned(source, changes.inventory);
        next.store.apply(inventory)?;
        let policies = &next.policies;
        let held = |id: &PolicyId| policies.wanted(id).cloned();
        let changes = next.policy_owners.pass(source, changes.policies, held);
        next.policies.apply(changes);
        next.follow();
        next.lock();
        *self = next;
        Ok(())
    }

    /// The changes that are for the store: of objects that are this source's, or that come.
    fn owned(&mut self, source: SourceId, changes: InventoryChanges) -> InventoryChanges {
        let (store, held) = (&self.store, self.store.inventory());
        let namespace = |name: &NamespaceName| {
            let found = held.namespaces.get(name);
            found.filter(|_| store.declares(name)).cloned()
        };
        let namespaces = &mut self.namespace_owners;
        let workload = |id: &WorkloadId| held.workloads.get(id).cloned();
        let node = |name: &NodeName| held.nodes.get(name).cloned();
        InventoryChanges {
            namespaces: namespaces.pass(source, changes.namespaces, namespace),
            workloads: (self.workload_owners).pass(source, changes.workloads, workload),
            nodes: self.node_owners.pass(source, changes.nodes, node),
        }
    }

    /// Puts objects into force that waited for others of their name, which are gone. One that contradicts
    /// other objects waits on.
    fn follow(&mut self) {
        let of = |name: &NamespaceName| self.store.declares(name);
        for (name, source, namespace) in self.namespace_owners.next(of) {
            let namespaces = vec![(name.clone(), Some(namespace))];
            let changes = InventoryChanges {
                namespaces,
                ..InventoryChanges::default()
            };
            if self.store.apply(changes).is_ok() {
                self.namespace_owners.take(name, source);
            }
        }
        let of = |id: &WorkloadId| self.store.inventory().workloads.contains_key(id);
        for (id, source, workload) in self.workload_owners.next(of) {
            let workloads = vec![(id.clone(), Some(workload))];
            let changes = InventoryChanges {
                workloads,
                ..InventoryChanges::default()
            };
            if self.store.apply(changes).is_ok() {
                self.workload_owners.take(id, source);
            }
        }
        let of = |name: &NodeName| self.store.inventory().nodes.contains_key(name);
        for (name, source, node) in self.node_owners.next(of) {
            let nodes = vec![(name.clone(), Some(node))];
            let changes = InventoryChanges {
                nodes,
                ..InventoryChanges::default()
            };
            if self.store.apply(changes).is_ok() {
                self.node_owners.take(name, source);
            }
        }
        let of = |id: &PolicyId| self.policies.wanted(id).is_some();
        for (id, source, policy) in self.policy_owners.next(of) {
            self.policies.apply(vec![(id.clone(), Some(policy))]);
            self.policy_owners.take(id, source);
        }
    }

    /// Says whose subjects are to be locked down because a source has refused them.
    pub fn set_refused(&mut self, source: SourceId, subjects: Vec<Lockdown>) {
        self.refused.insert(source, subjects);
        self.lock();
    }

    fn lock(&mut self) {
        let mut locked: Vec<Lockdown> = self.refused.values().flatten().cloned().collect();
        let without_earlier = self.policies.over_budget().filter(|over| !over.has_earlier);
        locked.extend(without_earlier.map(|over| Lockdown::of(&over.policy)));
        if locked != *self.locked {
            self.locked = Arc::new(locked);
        }
    }

    /// What is wrong with objects by their relation to others: policies beyond the budget of their
    /// namespace, objects that another source has, too, and entries of sources other than files. Those of
    /// files have lines, which only [`super::files`] knows.
    #[must_use]
    pub fn errors(&self) -> Vec<SourceError> {
        faults::errors(self)
    }
}

#[cfg(test)]
mod tests;
