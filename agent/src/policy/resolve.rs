//! Resolve: which identity every address and prefix has.
//!
//! Invariants: an address of the inventory is its owner, whatever prefix it lies in; everything
//! else is `world`, with the policy prefixes around it; the reserved identities are those without
//! any prefix.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfence_common::ids::IdentityId;

use super::{
    cidr::Prefixes,
    identity::{Identity, Kind, WorkloadKind},
    numbers::{Exhausted, Numbers, Space, digest_of},
};
use crate::{
    model::{Inventory, Labels, NamespaceName, Workload},
    plan::Addresses,
};

/// Every identity there is, and who has it.
#[derive(Default)]
pub(crate) struct Resolved {
    pub(crate) identities: Vec<(IdentityId, Identity)>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) prefixes: BTreeMap<IpNet, IdentityId>,
}

/// Gives every address of the inventory and every policy prefix an identity.
pub(crate) fn resolve(
    inventory: &Inventory,
    prefixes: &Prefixes,
    numbers: &mut Numbers,
) -> Result<Resolved, Exhausted> {
    let mut resolver = Resolver {
        numbers,
        known: HashMap::new(),
        resolved: Vec::new(),
    };
    let mut addresses = Addresses::new();
    let mut kinds = Kinds::new(inventory);
    for workload in inventory.workloads.values() {
        let kind = Kind::Workload(kinds.of(workload));
        for address in &workload.addresses {
            let cidrs = prefixes.containing(*address);
            addresses.insert(*address, resolver.identity(kind.clone(), cidrs)?);
        }
    }
    for node in inventory.nodes.values() {
        let kind = if node.local {
            Kind::Host
        } else {
            Kind::RemoteNode
        };
        for address in &node.addresses {
            let cidrs = prefixes.containing(*address);
            addresses.insert(*address, resolver.identity(kind.clone(), cidrs)?);
        }
    }
    let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let mut by_prefix = BTreeMap::new();
    for net in prefixes.iter().chain(&everything) {
        by_prefix.insert(
            *net,
            resolver.identity(Kind::World, prefixes.covering(net))?,
        );
    }
    // Sockets of this node have it whether or not the inventory lists an address.
    resolver.identity(Kind::Host, Vec::new())?;
    Ok(Resolved {
        identities: resolver.resolved,
        addresses: Arc::new(addresses),
        prefixes: by_prefix,
    })
}

struct Resolver<'a> {
    numbers: &'a mut Numbers,
    known: HashMap<Identity, IdentityId>,
    resolved: Vec<(IdentityId, Identity)>,
}

impl Resolver<'_> {
    fn identity(&mut self, kind: Kind, cidrs: Vec<IpNet>) -> Result<IdentityId, Exhausted> {
        let identity = Identity { kind, cidrs };
        if let Some(id) = self.known.get(&identity) {
            return Ok(*id);
        }
        let id = match (&identity.kind, identity.cidrs.is_empty()) {
            (Kind::Host, true) => IdentityId::HOST,
            (Kind::RemoteNode, true) => IdentityId::REMOTE_NODE,
            (Kind::World, true) => IdentityId::WORLD,
            _ => IdentityId(self.numbers.number(Space::Identity, digest_of(&identity))?),
        };
        self.resolved.push((id, identity.clone()));
        self.known.insert(identity, id);
        Ok(id)
    }
}

/// Shares one `WorkloadKind` among the workloads that are alike.
struct Kinds {
    namespaces: BTreeMap<NamespaceName, Arc<Labels>>,
    known: HashMap<Arc<WorkloadKind>, ()>,
}

impl Kinds {
    fn new(inventory: &Inventory) -> Self {
        let namespaces = inventory
            .namespaces
            .iter()
            .map(|(name, namespace)| (name.clone(), Arc::new(namespace.labels().clone())))
            .collect();
        Self {
            namespaces,
            known: HashMap::new(),
        }
    }

    fn of(&mut self, workload: &Workload) -> Arc<WorkloadKind> {
        let namespace = workload.id.namespace.clone();
        let mut ports = workload.ports.clone();
        ports.sort_unstable();
        let kind = Arc::new(WorkloadKind {
            namespace_labels: self.namespaces.get(&namespace).cloned().unwrap_or_default(),
            namespace,
            labels: workload.labels.clone(),
            service_account: workload.service_account.clone(),
            ports,
        });
        if let Some((known, ())) = self.known.get_key_value(&kind) {
            return Arc::clone(known);
        }
        self.known.insert(Arc::clone(&kind), ());
        kind
    }
}
