//! The inventory: every namespace, workload and node, consistent as a whole.
//!
//! An `Inventory` only exists if no name, address or interface is claimed twice, every workload's
//! namespace is declared, and each endpoint fits the kernel's endpoint record. Clones share their
//! unchanged parts. It is built as a whole from the lists that the sources deliver. Errors identify
//! items by their index in these lists, so that a source can name the file of each.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::name::{NamespaceName, NodeName, WorkloadId};
use super::policy::Policy;
use super::workload::{Namespace, NodeEntry, Workload};
use crate::ordmap::Map;

/// The maximum number of IPv4 addresses in the kernel's endpoint record.
pub const MAX_ENDPOINT_IPV4: usize = 3;
/// The maximum number of IPv6 addresses in the kernel's endpoint record.
pub const MAX_ENDPOINT_IPV6: usize = 2;

/// Every namespace, workload and node known to this agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Namespaces by name.
    pub namespaces: Arc<BTreeMap<NamespaceName, Namespace>>,
    /// Workloads by full name.
    pub workloads: Map<WorkloadId, Arc<Workload>>,
    /// Nodes by name.
    pub nodes: Arc<BTreeMap<NodeName, NodeEntry>>,
}

/// One item of the input of [`Inventory::build`], by its index in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// An index into the namespaces.
    Namespace(usize),
    /// An index into the workloads.
    Workload(usize),
    /// An index into the nodes.
    Node(usize),
}

/// A reason why the inventory is not consistent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct InventoryError {
    /// The refused item.
    pub item: Item,
    /// The item it conflicts with, if any.
    pub other: Option<Item>,
    /// What is wrong.
    pub fault: InventoryFault,
}

/// What can be wrong with an inventory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryFault {
    /// Two namespaces with the same name.
    #[error("namespace {0} is declared twice: expected one declaration, remove the other")]
    DuplicateNamespace(NamespaceName),
    /// Two workloads of a namespace with the same name.
    #[error("workload {0} is declared twice: expected one declaration, remove or rename one")]
    DuplicateWorkload(WorkloadId),
    /// Two nodes with the same name.
    #[error("node {0} is declared twice: expected one declaration, remove or rename one")]
    DuplicateNode(NodeName),
    /// A workload in a namespace that is not declared.
    #[error(
        "workload {workload} is in the unknown namespace {}: expected a [[namespace]] with that \
         name", workload.namespace
    )]
    UnknownNamespace {
        /// The workload.
        workload: WorkloadId,
    },
    /// Two owners of the same address.
    #[error(
        "address {address} of {claimant} already belongs to {owner}: expected one owner for each \
         address"
    )]
    AddressClaimedTwice {
        /// The address.
        address: IpAddr,
        /// The second claimant.
        claimant: String,
        /// The first claimant.
        owner: String,
    },
    /// An address that no workload or node can own.
    #[error("address {address} of {claimant} is {reason}: expected a unicast address of its own")]
    UnusableAddress {
        /// The address.
        address: IpAddr,
        /// The workload or node that has it.
        claimant: String,
        /// What makes it unusable, such as "multicast".
        reason: &'static str,
    },
    /// Two workloads on one interface.
    #[error(
        "interface {interface} of workload {claimant} already belongs to workload {owner}: \
         expected one workload for each interface"
    )]
    InterfaceClaimedTwice {
        /// The interface.
        interface: String,
        /// The second claimant.
        claimant: WorkloadId,
        /// The first claimant.
        owner: WorkloadId,
    },
    /// Two nodes that are both declared local.
    #[error("nodes {owner} and {claimant} are both local: expected at most one local node")]
    TwoLocalNodes {
        /// The second one.
        claimant: NodeName,
        /// The first one.
        owner: NodeName,
    },
    /// An endpoint with more addresses than fit into the kernel's endpoint record.
    #[error(
        "workload {workload} has {ipv4} IPv4 and {ipv6} IPv6 addresses on its interface: expected \
         at most {MAX_ENDPOINT_IPV4} and {MAX_ENDPOINT_IPV6}"
    )]
    TooManyAddresses {
        /// The workload.
        workload: WorkloadId,
        /// Its number of IPv4 addresses.
        ipv4: usize,
        /// Its number of IPv6 addresses.
        ipv6: usize,
    },
}

/// Why an address cannot belong to a workload or node; `None` if it can.
#[must_use]
pub fn unusable_reason(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("unspecified");
    }
    if address.is_multicast() {
        return Some("multicast");
    }
    if address.is_loopback() {
        return Some("loopback");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped IPv6 address"),
        _ => None,
    }
}

impl Inventory {
    /// True if the policy selects this workload of the inventory as a subject.
    #[must_use]
    pub fn is_subject(&self, policy: &Policy, workload: &Workload) -> bool {
        let namespace = &workload.id.namespace;
        self.namespaces
            .get(namespace)
            .is_some_and(|found| policy.selects(namespace, found.labels(), &workload.labels))
    }

    /// Builds an inventory from these items.
    ///
    /// # Errors
    /// All inconsistencies, in the order of the input.
    pub fn build(
        namespaces: Vec<Namespace>,
        workloads: Vec<Arc<Workload>>,
        nodes: Vec<NodeEntry>,
    ) -> Result<Self, Vec<InventoryError>> {
        let mut builder = Builder::default();
        builder.check_namespaces(&namespaces);
        builder.check_workloads(&workloads);
        builder.check_nodes(&nodes);
        if !builder.errors.is_empty() {
            return Err(builder.errors);
        }
        Ok(Self {
            namespaces: Arc::new(
                namespaces
                    .into_iter()
                    .map(|item| (item.name().clone(), item))
                    .collect(),
            ),
            workloads: workloads
                .into_iter()
                .map(|item| (item.id.clone(), item))
                .collect(),
            nodes: Arc::new(
                nodes
                    .into_iter()
                    .map(|item| (item.name.clone(), item))
                    .collect(),
            ),
        })
    }

    /// The same inventory, sharing its unchanged parts with an older one, so that the two can be
    /// compared without visiting these parts.
    #[must_use]
    pub fn based_on(&self, older: &Self) -> Self {
        let keep = |same: bool| same.then_some(older);
        let namespaces = keep(self.namespaces == older.namespaces).unwrap_or(self);
        let nodes = keep(self.nodes == older.nodes).unwrap_or(self);
        Self {
            namespaces: Arc::clone(&namespaces.namespaces),
            workloads: self.workloads.based_on(&older.workloads),
            nodes: Arc::clone(&nodes.nodes),
        }
    }

    /// The workload with this name.
    #[must_use]
    pub fn workload(&self, id: &WorkloadId) -> Option<&Arc<Workload>> {
        self.workloads.get(id)
    }

    /// The node this agent runs on, if the inventory declares it.
    #[must_use]
    pub fn local_node(&self) -> Option<&NodeEntry> {
        self.nodes.values().find(|node| node.local)
    }
}

#[derive(Default)]
struct Builder<'a> {
    errors: Vec<InventoryError>,
    namespaces: HashMap<&'a NamespaceName, usize>,
    workloads: HashMap<&'a WorkloadId, usize>,
    nodes: HashMap<&'a NodeName, usize>,
    addresses: HashMap<IpAddr, (Item, Claimant<'a>)>,
    interfaces: HashMap<&'a str, (usize, &'a WorkloadId)>,
    local: Option<(usize, &'a NodeName)>,
}

#[derive(Debug, Clone, Copy)]
enum Claimant<'a> {
    Workload(&'a WorkloadId),
    Node(&'a NodeName),
}

impl std::fmt::Display for Claimant<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(id) => write!(out, "workload {id}"),
            Self::Node(name) => write!(out, "node {name}"),
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
                self.refuse(item, None, fault);
            }
            self.claim_addresses(item, Claimant::Workload(&workload.id), &workload.addresses);
            if let Some(interface) = &workload.interface {
                self.claim_interface(index, workload, interface);
            }
        }
    }

    fn claim_addresses(&mut self, item: Item, claimant: Claimant<'a>, addresses: &[IpAddr]) {
        for &address in addresses {
            if let Some(reason) = unusable_reason(address) {
                let claimant = claimant.to_string();
                let fault = InventoryFault::UnusableAddress {
                    address,
                    claimant,
                    reason,
                };
                self.refuse(item, None, fault);
            } else if let Some(&(other, owner)) = self.addresses.get(&address) {
                let (claimant, owner) = (claimant.to_string(), owner.to_string());
                let fault = InventoryFault::AddressClaimedTwice {
                    address,
                    claimant,
                    owner,
                };
                self.refuse(item, Some(other), fault);
            } else {
                self.addresses.insert(address, (item, claimant));
            }
        }
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
            self.claim_addresses(item, Claimant::Node(&node.name), &node.addresses);
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

#[cfg(test)]
mod tests;
