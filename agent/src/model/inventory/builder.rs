//! Builds an inventory: finds what contradicts what.
//!
//! Invariants: every inconsistency is reported, in the order of the input; what can be used all the same
//! is told from what cannot.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::checks::{address_fault, endpoint_fault};
use super::{Inventory, InventoryError, InventoryFault, InventoryStore, Item};
use crate::model::dispute::{Claim, Claimant, Confirmation, Dispute};
use crate::model::labels::Labels;
use crate::model::name::{NamespaceName, NodeName, WorkloadId};
use crate::model::owner::Owner;
use crate::model::workload::{Namespace, NodeEntry, Workload};
use crate::ordmap::Map;

/// Builds an inventory; says why it cannot be used, and what is wrong with it if it can.
pub(super) fn build(
    namespaces: Vec<Namespace>,
    workloads: Vec<Arc<Workload>>,
    nodes: Vec<Arc<NodeEntry>>,
) -> Built {
    let mut builder = Builder::default();
    builder.check_namespaces(&namespaces);
    builder.check_workloads(&workloads);
    builder.check_nodes(&nodes);
    let (errors, contested) = (builder.errors.clone(), builder.contested.clone());
    if !errors.is_empty() {
        return Built {
            store: InventoryStore::default(),
            errors,
            contested,
        };
    }
    let disputed = builder.disputes();
    let owners = builder.owners(&disputed, &workloads, &nodes);
    let undeclared = builder.undeclared.iter().copied().cloned();
    let undeclared: Map<NamespaceName, ()> = undeclared.map(|name| (name, ())).collect();
    let interfaces = builder.interfaces.iter();
    let interfaces = interfaces.map(|(name, (_, owner))| ((*name).to_owned(), (*owner).clone()));
    let interfaces = interfaces.collect();
    let local = builder.local.map(|(_, name)| name.clone());
    // A namespace always accepts its own name as a label.
    let unlabelled = undeclared.keys().cloned();
    let unlabelled = unlabelled.filter_map(|name| Namespace::new(name, Labels::new()).ok());
    let inventory = Inventory {
        namespaces: namespaces
            .into_iter()
            .chain(unlabelled)
            .map(|item| (item.name().clone(), item))
            .collect(),
        workloads: workloads
            .into_iter()
            .map(|item| (item.id.clone(), item))
            .collect(),
        nodes: nodes
            .into_iter()
            .map(|item| (item.name.clone(), item))
            .collect(),
        owners,
        disputed,
        services: Map::new(),
        network: Arc::default(),
    };
    let store = InventoryStore {
        inventory: Arc::new(inventory),
        undeclared,
        interfaces,
        local,
    };
    Built {
        store,
        errors,
        contested,
    }
}

/// What came of it.
pub(super) struct Built {
    /// Empty if there are errors.
    pub(super) store: InventoryStore,
    pub(super) errors: Vec<InventoryError>,
    pub(super) contested: Vec<InventoryError>,
}

#[derive(Default)]
struct Builder<'a> {
    errors: Vec<InventoryError>,
    namespaces: HashMap<&'a NamespaceName, usize>,
    workloads: HashMap<&'a WorkloadId, usize>,
    nodes: HashMap<&'a NodeName, usize>,
    addresses: HashMap<IpAddr, Listed<'a>>,
    /// Addresses with several claims.
    disputed: BTreeMap<IpAddr, Vec<Listed<'a>>>,
    /// What is wrong with an inventory that can be used all the same.
    contested: Vec<InventoryError>,
    undeclared: BTreeSet<&'a NamespaceName>,
    interfaces: HashMap<&'a str, (usize, &'a WorkloadId)>,
    local: Option<(usize, &'a NodeName)>,
}

/// Whose an address is said to be.
#[derive(Debug, Clone, Copy)]
struct Listed<'a> {
    item: Item,
    who: Who<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Who<'a> {
    Workload(&'a Workload),
    Node(&'a NodeEntry),
}

impl Who<'_> {
    fn claimant(self) -> Claimant {
        match self {
            Self::Workload(workload) => Claimant::Workload(workload.id.clone()),
            Self::Node(node) => Claimant::Node(node.name.clone()),
        }
    }

    fn claim(self) -> Claim {
        match self {
            Self::Workload(workload) => Claim::of_workload(workload),
            Self::Node(node) => Claim::of_node(node),
        }
    }
}

impl<'a> Builder<'a> {
    fn refuse(&mut self, item: Item, other: Option<Item>, fault: InventoryFault) {
        self.errors.push(InventoryError { item, other, fault });
    }

    fn check_namespaces(&mut self, namespaces: &'a [Namespace]) {
        for (index, namespace) in namespaces.iter().enumerate() {
            let name = namespace.name();
            if let Some(&first) = self.namespaces.get(name) {
                let fault = InventoryFault::DuplicateNamespace(name.clone());
                self.refuse(Item::Namespace(index), Some(Item::Namespace(first)), fault);
            } else {
                self.namespaces.insert(name, index);
            }
        }
    }

    fn check_workloads(&mut self, workloads: &'a [Arc<Workload>]) {
        self.workloads.reserve(workloads.len());
        self.addresses.reserve(workloads.len());
        for (index, workload) in workloads.iter().enumerate() {
            let item = Item::Workload(index);
            if let Some(&first) = self.workloads.get(&workload.id) {
                let fault = InventoryFault::DuplicateWorkload(workload.id.clone());
                self.refuse(item, Some(Item::Workload(first)), fault);
                continue;
            }
            self.workloads.insert(&workload.id, index);
            if !self.namespaces.contains_key(&workload.id.namespace) {
                let fault = InventoryFault::UnknownNamespace {
                    workload: workload.id.clone(),
                };
                let (item, other) = (item, None);
                self.contested.push(InventoryError { item, other, fault });
                self.undeclared.insert(&workload.id.namespace);
            }
            let who = Who::Workload(workload);
            self.claim_addresses(Listed { item, who }, &workload.addresses);
            if let Some(interface) = &workload.interface {
                self.claim_interface(index, workload, interface);
            }
        }
    }

    fn claim_addresses(&mut self, claim: Listed<'a>, addresses: &[IpAddr]) {
        for (place, &address) in addresses.iter().enumerate() {
            let claimant = || claim.who.claimant();
            if let Some(fault) = address_fault(addresses, place, claimant) {
                self.refuse(claim.item, None, fault);
                continue;
            }
            let Entry::Occupied(first) = self.addresses.entry(address) else {
                self.addresses.insert(address, claim);
                if claim.who.claim().confirmation == Confirmation::Lapsed {
                    self.disputed.insert(address, vec![claim]);
                }
                continue;
            };
            let first = *first.get();
            let claims = self.disputed.entry(address).or_insert_with(|| vec![first]);
            claims.push(claim);
            self.contested.push(InventoryError {
                item: claim.item,
                other: Some(first.item),
                fault: InventoryFault::AddressClaimedTwice {
                    address,
                    claimant: claimant(),
                    other: first.who.claimant(),
                },
            });
        }
    }

    /// The disputes, each with its outcome.
    fn disputes(&self) -> Map<IpAddr, Arc<Dispute>> {
        let settle = |claims: &Vec<Listed<'_>>| {
            let claims = claims.iter().map(|claim| claim.who.claim());
            Arc::new(Dispute::new(claims.collect()))
        };
        let disputed = self.disputed.iter();
        disputed
            .map(|(address, claims)| (*address, settle(claims)))
            .collect()
    }

    /// The owner of each address that has one.
    fn owners(
        &self,
        disputed: &Map<IpAddr, Arc<Dispute>>,
        workloads: &[Arc<Workload>],
        nodes: &[Arc<NodeEntry>],
    ) -> Map<IpAddr, Owner> {
        let owner = |item: &Item| match item {
            Item::Workload(index) => workloads.get(*index).cloned().map(Owner::Workload),
            Item::Node(index) => nodes.get(*index).map(|node| Owner::Node(node.name.clone())),
            Item::Namespace(_) => None,
        };
        let of_dispute = |owner: &Claimant| match owner {
            Claimant::Workload(id) => self.workloads.get(id).copied().map(Item::Workload),
            Claimant::Node(name) => self.nodes.get(name).copied().map(Item::Node),
        };
        let owners = self.addresses.iter().filter_map(|(address, first)| {
            let item = match disputed.get(address) {
                Some(dispute) => of_dispute(dispute.owner()?)?,
                None => first.item,
            };
            Some((*address, owner(&item)?))
        });
        owners.collect()
    }

    fn claim_interface(&mut self, index: usize, workload: &'a Workload, interface: &'a str) {
        let item = Item::Workload(index);
        if let Some(&(other, owner)) = self.interfaces.get(interface) {
            let fault = InventoryFault::InterfaceClaimedTwice {
                interface: interface.to_owned(),
                claimant: workload.id.clone(),
                owner: owner.clone(),
            };
            self.refuse(item, Some(Item::Workload(other)), fault);
        } else {
            self.interfaces.insert(interface, (index, &workload.id));
        }
        if let Some(fault) = endpoint_fault(workload) {
            self.refuse(item, None, fault);
        }
    }

    fn check_nodes(&mut self, nodes: &'a [Arc<NodeEntry>]) {
        for (index, node) in nodes.iter().enumerate() {
            let item = Item::Node(index);
            if let Some(&first) = self.nodes.get(&node.name) {
                let fault = InventoryFault::DuplicateNode(node.name.clone());
                self.refuse(item, Some(Item::Node(first)), fault);
                continue;
            }
            self.nodes.insert(&node.name, index);
            let who = Who::Node(node);
            self.claim_addresses(Listed { item, who }, &node.addresses);
            if !node.local {
                continue;
            }
            if let Some((other, owner)) = self.local {
                let (claimant, owner) = (node.name.clone(), owner.clone());
                let fault = InventoryFault::TwoLocalNodes { claimant, owner };
                self.refuse(item, Some(Item::Node(other)), fault);
            } else {
                self.local = Some((index, &node.name));
            }
        }
    }
}
