//! Builds an inventory: finds what contradicts what.
//!
//! Invariants: every inconsistency is reported, in the order of the input; what can be used all the same
//! is told from what cannot.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Inventory, InventoryError, InventoryFault, Item, MAX_ENDPOINT_IPV4, MAX_ENDPOINT_IPV6,
    unusable_reason,
};
use crate::model::dispute::{Claimant, Confirmation, Dispute};
use crate::model::labels::Labels;
use crate::model::name::{NamespaceName, NodeName, WorkloadId};
use crate::model::owner::Owner;
use crate::model::workload::{Namespace, NodeEntry, Workload};
use crate::ordmap::Map;

/// Builds an inventory; says why it cannot be used, and what is wrong with it if it can.
pub(super) fn build(
    namespaces: Vec<Namespace>,
    workloads: Vec<Arc<Workload>>,
    nodes: Vec<NodeEntry>,
) -> Built {
    let mut builder = Builder::default();
    builder.check_namespaces(&namespaces);
    builder.check_workloads(&workloads);
    builder.check_nodes(&nodes);
    let (errors, contested) = (builder.errors.clone(), builder.contested.clone());
    if !errors.is_empty() {
        return Built {
            inventory: Inventory::default(),
            errors,
            contested,
        };
    }
    let disputed = builder.disputes();
    let owners = builder.owners(&disputed, &workloads, &nodes);
    let undeclared = builder.undeclared.iter();
    // A namespace always accepts its own name as a label.
    let undeclared =
        undeclared.filter_map(|name| Namespace::new((*name).clone(), Labels::new()).ok());
    let undeclared: Vec<Namespace> = undeclared.collect();
    let inventory = Inventory {
        namespaces: namespaces
            .into_iter()
            .chain(undeclared)
            .map(|item| (item.name().clone(), item))
            .collect(),
        workloads: workloads
            .into_iter()
            .map(|item| (item.id.clone(), item))
            .collect(),
        nodes: nodes
            .into_iter()
            .map(|item| (item.name.clone(), Arc::new(item)))
            .collect(),
        owners,
        disputed,
    };
    Built {
        inventory,
        errors,
        contested,
    }
}

/// What came of it.
pub(super) struct Built {
    /// Empty if there are errors.
    pub(super) inventory: Inventory,
    pub(super) errors: Vec<InventoryError>,
    pub(super) contested: Vec<InventoryError>,
}

#[derive(Default)]
struct Builder<'a> {
    errors: Vec<InventoryError>,
    namespaces: HashMap<&'a NamespaceName, usize>,
    workloads: HashMap<&'a WorkloadId, usize>,
    nodes: HashMap<&'a NodeName, usize>,
    addresses: HashMap<IpAddr, Claim<'a>>,
    /// Addresses with several claims.
    disputed: BTreeMap<IpAddr, Vec<Claim<'a>>>,
    /// What is wrong with an inventory that can be used all the same.
    contested: Vec<InventoryError>,
    undeclared: BTreeSet<&'a NamespaceName>,
    interfaces: HashMap<&'a str, (usize, &'a WorkloadId)>,
    local: Option<(usize, &'a NodeName)>,
}

/// Whose an address is said to be.
#[derive(Debug, Clone, Copy)]
struct Claim<'a> {
    item: Item,
    who: Who<'a>,
    confirmation: Confirmation,
}

#[derive(Debug, Clone, Copy)]
enum Who<'a> {
    Workload(&'a WorkloadId),
    Node(&'a NodeName),
}

impl Who<'_> {
    fn claimant(self) -> Claimant {
        match self {
            Self::Workload(id) => Claimant::Workload(id.clone()),
            Self::Node(name) => Claimant::Node(name.clone()),
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
            let claim = Claim {
                item,
                who: Who::Workload(&workload.id),
                confirmation: match workload.is_endpoint() {
                    true => Confirmation::Endpoint,
                    false => Confirmation::None,
                },
            };
            self.claim_addresses(claim, &workload.addresses);
            if let Some(interface) = &workload.interface {
                self.claim_interface(index, workload, interface);
            }
        }
    }

    fn claim_addresses(&mut self, claim: Claim<'a>, addresses: &[IpAddr]) {
        for &address in addresses {
            let claimant = || claim.who.claimant();
            if let Some(reason) = unusable_reason(address) {
                let claimant = claimant();
                let fault = InventoryFault::UnusableAddress {
                    address,
                    claimant,
                    reason,
                };
                self.refuse(claim.item, None, fault);
                continue;
            }
            let Entry::Occupied(first) = self.addresses.entry(address) else {
                self.addresses.insert(address, claim);
                continue;
            };
            let first = *first.get();
            let claims = self.disputed.entry(address).or_insert_with(|| vec![first]);
            if claims.iter().any(|other| other.item == claim.item) {
                let claimant = claimant();
                let fault = InventoryFault::AddressListedTwice { address, claimant };
                self.refuse(claim.item, None, fault);
                continue;
            }
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
        let settle = |claims: &Vec<Claim<'_>>| {
            let claims = claims.iter();
            let claims = claims.map(|claim| (claim.who.claimant(), claim.confirmation));
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
        nodes: &[NodeEntry],
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
        let ipv4 = workload
            .addresses
            .iter()
            .filter(|address| address.is_ipv4())
            .count();
        let ipv6 = workload.addresses.len() - ipv4;
        if ipv4 > MAX_ENDPOINT_IPV4 || ipv6 > MAX_ENDPOINT_IPV6 {
            let workload = workload.id.clone();
            self.refuse(
                item,
                None,
                InventoryFault::TooManyAddresses {
                    workload,
                    ipv4,
                    ipv6,
                },
            );
        }
    }

    fn check_nodes(&mut self, nodes: &'a [NodeEntry]) {
        for (index, node) in nodes.iter().enumerate() {
            let item = Item::Node(index);
            if let Some(&first) = self.nodes.get(&node.name) {
                let fault = InventoryFault::DuplicateNode(node.name.clone());
                self.refuse(item, Some(Item::Node(first)), fault);
                continue;
            }
            self.nodes.insert(&node.name, index);
            let claim = Claim {
                item,
                who: Who::Node(&node.name),
                confirmation: match node.local {
                    true => Confirmation::Host,
                    false => Confirmation::None,
                },
            };
            self.claim_addresses(claim, &node.addresses);
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
