//! The inventory: every namespace, workload and node, consistent as a whole.
//!
//! An `Inventory` only exists if no name or interface is claimed twice, every workload's namespace is
//! declared, and each endpoint fits the kernel's endpoint record; an address that is claimed twice has
//! one owner or none. Clones share their unchanged parts. It is built as a whole from the lists that the
//! sources deliver. Errors identify items by their index in these lists, so that a source can name the
//! file of each.

mod builder;
mod checks;
mod node_addresses;
mod store;

use std::net::IpAddr;
use std::sync::Arc;

use super::dispute::{Claimant, Dispute};
use super::name::{NamespaceName, NodeName, WorkloadId};
use super::node_network::NodeNetwork;
use super::owner::Owner;
use super::policy::Policy;
use super::service::{Service, ServiceId};
use super::workload::{Namespace, NodeEntry, Workload};
use crate::ordmap::Map;

pub use store::{Change, InventoryChanges, InventoryStore};

/// The maximum number of IPv4 addresses in the kernel's endpoint record.
pub const MAX_ENDPOINT_IPV4: usize = 3;
/// The maximum number of IPv6 addresses in the kernel's endpoint record.
pub const MAX_ENDPOINT_IPV6: usize = 2;

/// Every namespace, workload and node known to this agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Namespaces by name.
    pub namespaces: Map<NamespaceName, Namespace>,
    /// Workloads by full name.
    pub workloads: Map<WorkloadId, Arc<Workload>>,
    /// Nodes by name.
    pub nodes: Map<NodeName, Arc<NodeEntry>>,
    /// The owner of every address that has one.
    pub owners: Map<IpAddr, Owner>,
    /// The addresses that several of them claim, or one of them by a claim that has lapsed.
    pub disputed: Map<IpAddr, Arc<Dispute>>,
    /// Services by full name.
    pub services: Map<ServiceId, Arc<Service>>,
    /// What the node knows of the addresses around it.
    pub network: Arc<NodeNetwork>,
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
        "address {address} of {claimant} is claimed by {other}, too: expected one owner for each \
         address"
    )]
    AddressClaimedTwice {
        /// The address.
        address: IpAddr,
        /// One claimant.
        claimant: Claimant,
        /// Another claimant.
        other: Claimant,
    },
    /// An address that an owner lists twice.
    #[error("address {address} of {claimant} is listed twice: expected each address once")]
    AddressListedTwice {
        /// The address.
        address: IpAddr,
        /// The workload or node that lists it.
        claimant: Claimant,
    },
    /// An address that no workload or node can own.
    #[error("address {address} of {claimant} is {reason}: expected a unicast address of its own")]
    UnusableAddress {
        /// The address.
        address: IpAddr,
        /// The workload or node that has it.
        claimant: Claimant,
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
        let nodes = nodes.into_iter().map(Arc::new).collect();
        let built = builder::build(namespaces, workloads, nodes);
        let mut errors = [built.errors, built.contested].concat();
        if errors.is_empty() {
            return Ok(Arc::unwrap_or_clone(built.store.inventory));
        }
        errors.sort_by_key(|error| error.item);
        Err(errors)
    }

    /// Builds an inventory from these items, in which an address may have several claimants and a
    /// namespace may be missing that workloads are in. Returns what is wrong with it, too.
    ///
    /// # Errors
    /// All other inconsistencies, in the order of the input.
    pub fn build_contested(
        namespaces: Vec<Namespace>,
        workloads: Vec<Arc<Workload>>,
        nodes: Vec<NodeEntry>,
    ) -> Result<(Self, Vec<InventoryError>), Vec<InventoryError>> {
        let nodes = nodes.into_iter().map(Arc::new).collect();
        let built = builder::build(namespaces, workloads, nodes);
        if built.errors.is_empty() {
            let inventory = Arc::unwrap_or_clone(built.store.inventory);
            Ok((inventory, built.contested))
        } else {
            Err(built.errors)
        }
    }

    /// Whether an address that a workload lists is its own, and not in dispute or another's.
    #[must_use]
    pub fn is_owner(&self, workload: &WorkloadId, address: IpAddr) -> bool {
        self.disputed.get(&address).is_none_or(|dispute| {
            matches!(dispute.owner(), Some(Claimant::Workload(owner)) if owner == workload)
        })
    }

    /// Whether an address that a node lists is its own, and not in dispute or another's.
    #[must_use]
    pub fn is_owner_node(&self, node: &NodeName, address: IpAddr) -> bool {
        self.disputed.get(&address).is_none_or(
            |dispute| matches!(dispute.owner(), Some(Claimant::Node(owner)) if owner == node),
        )
    }

    /// Whether several claim an address, and it is unknown whose it is.
    #[must_use]
    pub fn is_unknown(&self, address: IpAddr) -> bool {
        let dispute = self.disputed.get(&address);
        dispute.is_some_and(|dispute| dispute.owner().is_none())
    }

    /// The same inventory, sharing its unchanged parts with an older one, so that the two can be
    /// compared without visiting these parts.
    #[must_use]
    pub fn based_on(&self, older: &Self) -> Self {
        Self {
            namespaces: self.namespaces.based_on(&older.namespaces),
            workloads: self.workloads.based_on(&older.workloads),
            nodes: self.nodes.based_on(&older.nodes),
            owners: self.owners.based_on(&older.owners),
            disputed: self.disputed.based_on(&older.disputed),
            services: self.services.based_on(&older.services),
            network: Arc::clone(&self.network),
        }
    }

    /// The Service that alone has an address, which no workload and no node has.
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<&Arc<Service>> {
        if self.owners.contains_key(&address) || self.disputed.contains_key(&address) {
            return None;
        }
        let mut claimants = (self.services.values()).filter(|it| it.addresses.contains(&address));
        claimants.next().filter(|_| claimants.next().is_none())
    }

    /// Whether any Service claims an address.
    #[must_use]
    pub fn is_service(&self, address: IpAddr) -> bool {
        (self.services.values()).any(|it| it.addresses.contains(&address))
    }

    /// The workload with this name.
    #[must_use]
    pub fn workload(&self, id: &WorkloadId) -> Option<&Arc<Workload>> {
        self.workloads.get(id)
    }

    /// The workloads of a namespace, in name order.
    pub fn workloads_of<'a>(
        &'a self,
        namespace: &'a NamespaceName,
    ) -> impl Iterator<Item = &'a Arc<Workload>> {
        let from = self.workloads.skip_below(|id| id.namespace < *namespace);
        from.map(|(_, workload)| workload)
            .take_while(move |workload| workload.id.namespace == *namespace)
    }

    /// The node this agent runs on, if the inventory declares it.
    #[must_use]
    pub fn local_node(&self) -> Option<&Arc<NodeEntry>> {
        self.nodes.values().find(|node| node.local)
    }
}

#[cfg(test)]
mod tests;
