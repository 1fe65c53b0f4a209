//! Resolve: which identity every address and prefix has.
//!
//! Invariants: an address of the inventory is its owner, whatever prefix it lies in; everything
//! else is `world`, with the policy prefixes around it; the reserved identities are those without
//! any prefix. What an update costs follows what changed; where it leads depends on the inventory
//! and the prefixes alone, but for the numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfence_common::{ids::IdentityId, mutant};

use super::{
    cidr::Prefixes,
    identities::{Identities, Owner},
    identity::Identity,
    numbers::{Exhausted, Numbers},
    workload_kinds::WorkloadKinds,
};
use crate::{
    model::{Inventory, NodeEntry, Workload},
    ordmap::Map,
    plan::Addresses,
};

/// Every identity there is, and who has it.
#[derive(Default)]
pub(crate) struct Resolver {
    inventory: Option<Arc<Inventory>>,
    pub(crate) kinds: WorkloadKinds,
    pub(crate) identities: Identities,
    pub(crate) addresses: Addresses,
    pub(crate) prefixes: Map<IpNet, IdentityId>,
}

/// What an update did to the identities.
#[derive(Default)]
pub(crate) struct Resolved {
    pub(crate) came: BTreeSet<IdentityId>,
    pub(crate) gone: Vec<(IdentityId, Arc<Identity>)>,
}

impl Resolver {
    /// Gives every address of the inventory and every policy prefix its identity.
    pub(crate) fn update(
        &mut self,
        inventory: &Arc<Inventory>,
        prefixes: &mut Prefixes,
        numbers: &mut Numbers,
    ) -> Result<Resolved, Exhausted> {
        let before = self.inventory.take().unwrap_or_default();
        let is_first = self.prefixes.is_empty();
        let flipped = prefixes.take_flipped();
        let mut fresh = Fresh::default();
        if is_first {
            self.begin(prefixes, numbers)?;
        }
        if !Arc::ptr_eq(&before, inventory) {
            self.leave(&before, inventory, &mut fresh);
        }
        if !is_first {
            self.around(&flipped, prefixes, numbers)?;
        }
        if !Arc::ptr_eq(&before, inventory) {
            self.kinds.enter_namespaces(inventory);
            self.enter(&fresh, prefixes, numbers)?;
        }
        self.inventory = Some(Arc::clone(inventory));
        Ok(self.identities.settle())
    }

    /// What is there whatever the inventory says.
    fn begin(&mut self, prefixes: &Prefixes, numbers: &mut Numbers) -> Result<(), Exhausted> {
        // Sockets of this node have it whether or not the inventory lists an address.
        self.identities.take(Owner::Host, Vec::new(), numbers)?;
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let all: BTreeSet<IpNet> = prefixes.iter().chain(&everything).copied().collect();
        for net in all {
            self.place_prefix(net, prefixes, numbers)?;
        }
        Ok(())
    }

    fn place_prefix(
        &mut self,
        net: IpNet,
        prefixes: &Prefixes,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        let cidrs = mutant!(
            prefix_forgets_wider_ones,
            prefixes.covering(&net),
            vec![net]
        );
        let identity = self.identities.take(Owner::World, cidrs, numbers)?;
        if let Some(before) = self.prefixes.insert(net, identity) {
            self.identities.give_back(before);
        }
        Ok(())
    }

    /// Takes away the addresses of whoever changed, and says who comes in their place.
    fn leave<'a>(&mut self, before: &'a Inventory, now: &'a Inventory, fresh: &mut Fresh<'a>) {
        let mut leaving: Vec<Arc<Workload>> = Vec::new();
        now.workloads.since(&before.workloads, |change| {
            leaving.extend(change.old.cloned());
            fresh.workloads.extend(change.new);
        });
        let relabelled = relabelled_namespaces(before, now);
        if mutant!(
            relabelled_namespaces_unnoticed,
            !relabelled.is_empty(),
            false
        ) {
            for (id, workload) in &now.workloads {
                let stayed = before.workloads.get(id) == Some(workload);
                if stayed && relabelled.contains(&id.namespace) {
                    leaving.push(Arc::clone(workload));
                    fresh.workloads.push(workload);
                }
            }
        }
        for workload in &leaving {
            self.kinds.remove(workload);
            self.vacate(&workload.addresses);
        }
        if Arc::ptr_eq(&before.nodes, &now.nodes) {
            return;
        }
        for (name, node) in before.nodes.iter() {
            if now.nodes.get(name) != Some(node) {
                self.vacate(&node.addresses);
            }
        }
        let new = now.nodes.iter();
        let new = new.filter(|(name, node)| before.nodes.get(*name) != Some(*node));
        fresh.nodes.extend(new.map(|(_, node)| node));
    }

    fn vacate(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if let Some(identity) = self.addresses.remove(address) {
                self.identities.give_back(identity);
            }
        }
    }

    /// Resolves anew what lies in a prefix that came or went.
    fn around(
        &mut self,
        flipped: &BTreeSet<IpNet>,
        prefixes: &Prefixes,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        if mutant!(new_prefixes_unnoticed, flipped.is_empty(), true) {
            return Ok(());
        }
        let mut within: BTreeMap<IpAddr, IdentityId> = BTreeMap::new();
        for net in flipped {
            let from = self.addresses.from(&net.network());
            let inside = from.take_while(|(address, _)| net.contains(*address));
            within.extend(inside.map(|(address, identity)| (*address, *identity)));
        }
        for (address, before) in within {
            let Some(owner) = self.identities.owner(before) else {
                continue;
            };
            let cidrs = prefixes.containing(address);
            let identity = self.identities.take(owner, cidrs, numbers)?;
            self.identities.give_back(before);
            if identity != before {
                self.addresses.insert(address, identity);
            }
        }
        let inside = |net: &IpNet| flipped.iter().any(|around| around.contains(net));
        let mut nets: BTreeSet<IpNet> = self.prefixes.keys().copied().filter(inside).collect();
        nets.extend(flipped.iter().filter(|net| prefixes.contains(net)));
        for net in nets {
            if prefixes.contains(&net) || net.prefix_len() == 0 {
                self.place_prefix(net, prefixes, numbers)?;
            } else if let Some(before) = self.prefixes.remove(&net) {
                self.identities.give_back(before);
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        fresh: &Fresh<'_>,
        prefixes: &Prefixes,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        let mut placed: Vec<(IpAddr, IdentityId)> = Vec::new();
        for workload in &fresh.workloads {
            let (number, kind) = self.kinds.add(workload);
            for address in &workload.addresses {
                let owner = Owner::Workload(number, Arc::clone(&kind));
                let cidrs = prefixes.containing(*address);
                placed.push((*address, self.identities.take(owner, cidrs, numbers)?));
            }
        }
        for node in &fresh.nodes {
            for address in &node.addresses {
                let owner = if node.local {
                    Owner::Host
                } else {
                    Owner::RemoteNode
                };
                let cidrs = prefixes.containing(*address);
                placed.push((*address, self.identities.take(owner, cidrs, numbers)?));
            }
        }
        // Many at once are cheaper sorted in than put in one by one.
        if placed.len() > self.addresses.len() / 8 {
            let held = self.addresses.iter();
            placed.extend(held.map(|(address, identity)| (*address, *identity)));
            self.addresses = placed.into_iter().collect();
        } else {
            for (address, identity) in placed {
                self.addresses.insert(address, identity);
            }
        }
        Ok(())
    }
}

/// Who comes, once those who leave are gone.
#[derive(Default)]
struct Fresh<'a> {
    workloads: Vec<&'a Arc<Workload>>,
    nodes: Vec<&'a NodeEntry>,
}

fn relabelled_namespaces<'a>(
    before: &'a Inventory,
    now: &Inventory,
) -> BTreeSet<&'a crate::model::NamespaceName> {
    if Arc::ptr_eq(&before.namespaces, &now.namespaces) {
        return BTreeSet::new();
    }
    let both = before.namespaces.iter().filter(|(name, namespace)| {
        now.namespaces
            .get(*name)
            .is_some_and(|now| now != *namespace)
    });
    both.map(|(name, _)| name).collect()
}
