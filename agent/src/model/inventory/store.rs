//! The inventory as objects that come, change and go one by one.
//!
//! Invariants: the inventory is the one that the builder makes of the same objects, whatever their order
//! was; changes that contradict each other or other objects change nothing. A few changes cost what they
//! change, times the logarithm of the number of objects; unchanged parts are shared with the inventory
//! before.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::checks::{address_fault, endpoint_fault};
use super::{Inventory, InventoryFault, builder};
use crate::model::dispute::{Claim, Claimant, Confirmation, Dispute};
use crate::model::labels::Labels;
use crate::model::name::{NamespaceName, NodeName, WorkloadId};
use crate::model::owner::Owner;
use crate::model::workload::{Namespace, NodeEntry, Workload};
use crate::ordmap::Map;

/// If more than one object in this many changes, the inventory is built again as a whole, which is
/// cheaper then.
const FEW: usize = 8;

/// An object by its name: what it is from now on, or `None` if it is gone.
pub type Change<K, T> = (K, Option<T>);

/// Changes of objects, each name at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryChanges {
    /// Declared namespaces.
    pub namespaces: Vec<Change<NamespaceName, Namespace>>,
    /// Workloads.
    pub workloads: Vec<Change<WorkloadId, Arc<Workload>>>,
    /// Nodes.
    pub nodes: Vec<Change<NodeName, Arc<NodeEntry>>>,
}

impl InventoryChanges {
    fn len(&self) -> usize {
        self.namespaces.len() + self.workloads.len() + self.nodes.len()
    }
}

/// The objects of an inventory. A copy shares everything.
#[derive(Debug, Clone, Default)]
pub struct InventoryStore {
    pub(super) inventory: Arc<Inventory>,
    /// Namespaces that workloads are in and that are not declared.
    pub(super) undeclared: Map<NamespaceName, ()>,
    pub(super) interfaces: Map<String, WorkloadId>,
    /// The local node.
    pub(super) local: Option<NodeName>,
}

impl InventoryStore {
    /// The inventory of all objects.
    #[must_use]
    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// The namespaces that workloads are in and that are not declared.
    #[must_use]
    pub const fn undeclared(&self) -> &Map<NamespaceName, ()> {
        &self.undeclared
    }

    /// Whether a namespace is declared.
    #[must_use]
    pub fn declares(&self, namespace: &NamespaceName) -> bool {
        self.inventory.namespaces.contains_key(namespace)
            && !self.undeclared.contains_key(namespace)
    }

    /// Applies changes. What is as it was is no change.
    ///
    /// # Errors
    /// All contradictions among the changes and with other objects; nothing is changed then.
    pub fn apply(&mut self, mut changes: InventoryChanges) -> Result<(), Vec<InventoryFault>> {
        let held = &self.inventory;
        changes.namespaces.retain(|(name, new)| {
            let old = held.namespaces.get(name).filter(|_| self.declares(name));
            old != new.as_ref()
        });
        let workloads = &mut changes.workloads;
        workloads.retain(|(id, new)| held.workloads.get(id) != new.as_ref());
        let nodes = &mut changes.nodes;
        nodes.retain(|(name, new)| held.nodes.get(name) != new.as_ref());
        let objects = held.namespaces.len() + held.workloads.len() + held.nodes.len();
        *self = if changes.len() == 0 {
            return Ok(());
        } else if changes.len() > objects / FEW {
            self.rebuilt(changes)?
        } else {
            Edit::new(self).finish(changes)?
        };
        Ok(())
    }

    /// The store after changes of many objects.
    fn rebuilt(&self, changes: InventoryChanges) -> Result<Self, Vec<InventoryFault>> {
        let held = &self.inventory;
        let declared = held.namespaces.iter();
        let declared = declared.filter(|(name, _)| !self.undeclared.contains_key(*name));
        let built = builder::build(
            changed(declared, changes.namespaces),
            changed(held.workloads.iter(), changes.workloads),
            changed(held.nodes.iter(), changes.nodes),
        );
        let errors = built.errors.into_iter();
        let faults: Vec<InventoryFault> = errors.map(|error| error.fault).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut store = built.store;
        store.inventory = Arc::new(store.inventory.based_on(held));
        Ok(store)
    }
}

/// All objects of a kind, after changes.
fn changed<'a, K: Hash + Ord + 'a, T: Clone + 'a>(
    held: impl Iterator<Item = (&'a K, &'a T)>,
    changes: Vec<Change<K, T>>,
) -> Vec<T> {
    let mut held = held.peekable();
    let mut all: Vec<T> = Vec::with_capacity(changes.len());
    if held.peek().is_some() {
        let names: HashSet<&K> = changes.iter().map(|(name, _)| name).collect();
        let others = held.filter(|(name, _)| !names.contains(*name));
        all.extend(others.map(|(_, item)| item.clone()));
    }
    all.extend(changes.into_iter().filter_map(|(_, item)| item));
    all
}

/// A few changes of a store.
struct Edit<'a> {
    before: &'a InventoryStore,
    next: InventoryStore,
    inventory: Inventory,
    faults: Vec<InventoryFault>,
    /// The claimants of the addresses that changed objects list or listed.
    claims: BTreeMap<IpAddr, Vec<Claimant>>,
    /// Namespaces of which the declaration or a workload changed.
    namespaces: BTreeSet<NamespaceName>,
}

impl<'a> Edit<'a> {
    fn new(before: &'a InventoryStore) -> Self {
        Self {
            before,
            next: before.clone(),
            inventory: Inventory::clone(&before.inventory),
            faults: Vec::new(),
            claims: BTreeMap::new(),
            namespaces: BTreeSet::new(),
        }
    }

    fn finish(mut self, changes: InventoryChanges) -> Result<InventoryStore, Vec<InventoryFault>> {
        let before = &self.before.inventory;
        // First all that is gone: what one object had, another may have now.
        for (id, _) in &changes.workloads {
            if let Some(workload) = before.workloads.get(id) {
                self.leave(&Claimant::Workload(id.clone()), &workload.addresses);
                let interface = workload.interface.as_ref();
                interface.map(|interface| self.next.interfaces.remove(interface));
            }
        }
        for (name, _) in &changes.nodes {
            if let Some(node) = before.nodes.get(name) {
                self.leave(&Claimant::Node(name.clone()), &node.addresses);
                self.next.local.take_if(|local| local == name);
            }
        }
        for (name, namespace) in changes.namespaces {
            self.next.undeclared.remove(&name);
            set(&mut self.inventory.namespaces, name.clone(), namespace);
            self.namespaces.insert(name);
        }
        for (id, workload) in changes.workloads {
            if let Some(workload) = &workload {
                self.enter_workload(workload);
            }
            self.namespaces.insert(id.namespace.clone());
            set(&mut self.inventory.workloads, id, workload);
        }
        for (name, node) in changes.nodes {
            if let Some(node) = &node {
                self.enter_node(node);
            }
            set(&mut self.inventory.nodes, name, node);
        }
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        self.declare();
        for (address, claimants) in std::mem::take(&mut self.claims) {
            self.decide(address, claimants);
        }
        self.next.inventory = Arc::new(self.inventory);
        Ok(self.next)
    }

    /// The claimants of an address, so far.
    fn claimants(&mut self, address: IpAddr) -> &mut Vec<Claimant> {
        let before = &self.before.inventory;
        self.claims.entry(address).or_insert_with(|| {
            if let Some(dispute) = before.disputed.get(&address) {
                return dispute.claimants().to_vec();
            }
            let owner = before.owners.get(&address).map(|owner| match owner {
                Owner::Workload(workload) => Claimant::Workload(workload.id.clone()),
                Owner::Node(name) => Claimant::Node(name.clone()),
            });
            owner.into_iter().collect()
        })
    }

    fn leave(&mut self, who: &Claimant, addresses: &[IpAddr]) {
        for address in addresses {
            self.claimants(*address).retain(|claimant| claimant != who);
        }
    }

    fn enter(&mut self, who: &Claimant, addresses: &[IpAddr]) {
        let places = 0..addresses.len();
        let faults = places.filter_map(|place| address_fault(addresses, place, || who.clone()));
        self.faults.extend(faults);
        for address in addresses {
            self.claimants(*address).push(who.clone());
        }
    }

    fn enter_workload(&mut self, workload: &Workload) {
        let claimant = Claimant::Workload(workload.id.clone());
        self.enter(&claimant, &workload.addresses);
        let Some(interface) = &workload.interface else {
            return;
        };
        self.faults.extend(endpoint_fault(workload));
        if let Some(owner) = self.next.interfaces.get(interface) {
            self.faults.push(InventoryFault::InterfaceClaimedTwice {
                interface: interface.clone(),
                claimant: workload.id.clone(),
                owner: owner.clone(),
            });
            return;
        }
        let interfaces = &mut self.next.interfaces;
        interfaces.insert(interface.clone(), workload.id.clone());
    }

    fn enter_node(&mut self, node: &NodeEntry) {
        self.enter(&Claimant::Node(node.name.clone()), &node.addresses);
        if !node.local {
            return;
        }
        if let Some(owner) = self.next.local.replace(node.name.clone()) {
            let claimant = node.name.clone();
            self.faults
                .push(InventoryFault::TwoLocalNodes { claimant, owner });
        }
    }

    /// Adds namespaces that workloads are in and that are not declared, and removes those that no
    /// workload is in any more.
    fn declare(&mut self) {
        for name in std::mem::take(&mut self.namespaces) {
            let was_added = self.next.undeclared.contains_key(&name);
            if !was_added && self.inventory.namespaces.contains_key(&name) {
                continue;
            }
            let has_workloads = self.inventory.workloads_of(&name).next().is_some();
            if was_added && !has_workloads {
                self.next.undeclared.remove(&name);
                self.inventory.namespaces.remove(&name);
            }
            if was_added || !has_workloads {
                continue;
            }
            // A namespace always accepts its own name as a label.
            if let Ok(namespace) = Namespace::new(name.clone(), Labels::new()) {
                self.inventory.namespaces.insert(name.clone(), namespace);
                self.next.undeclared.insert(name, ());
            }
        }
    }

    /// Says whose an address is, by its claimants.
    fn decide(&mut self, address: IpAddr, mut claimants: Vec<Claimant>) {
        let inventory = &self.inventory;
        let claims = claimants.iter().filter_map(|it| inventory.claim(it));
        let claims: Vec<Claim> = claims.collect();
        let mut known = claims.iter().map(|claim| claim.confirmation);
        let is_certain = claims.len() < 2 && known.all(|it| it != Confirmation::Lapsed);
        let owner = if is_certain {
            self.inventory.disputed.remove(&address);
            claimants.pop()
        } else {
            let dispute = Dispute::new(claims);
            let owner = dispute.owner().cloned();
            self.inventory.disputed.insert(address, Arc::new(dispute));
            owner
        };
        let owner = owner.and_then(|owner| self.inventory.named(&owner));
        set(&mut self.inventory.owners, address, owner);
    }
}

impl Inventory {
    /// The claims of a claimant, which is in the inventory.
    fn claim(&self, claimant: &Claimant) -> Option<Claim> {
        match claimant {
            Claimant::Workload(id) => Some(Claim::of_workload(self.workloads.get(id)?)),
            Claimant::Node(name) => Some(Claim::of_node(self.nodes.get(name)?)),
        }
    }

    fn named(&self, claimant: &Claimant) -> Option<Owner> {
        match claimant {
            Claimant::Workload(id) => self.workloads.get(id).cloned().map(Owner::Workload),
            Claimant::Node(name) => Some(Owner::Node(name.clone())),
        }
    }
}

fn set<K: Hash + Ord + Clone, T: Clone>(map: &mut Map<K, T>, key: K, value: Option<T>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

#[cfg(test)]
mod tests;
