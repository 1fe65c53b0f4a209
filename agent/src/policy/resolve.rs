//! Resolve: the identity of every address and prefix.
//!
//! Invariants: an address in the inventory has its owner's identity, whatever prefixes contain it; one
//! that several claim without an owner is `unknown`. Every other address is what the node's network says:
//! `special`, `cluster` or `world`, with the policy prefixes that contain it. The reserved identities are
//! those without any prefix, outside of special ranges. The cost of an update follows what changed; its result depends on inventory and prefixes alone, except for the numbers.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfence_common::ids::IdentityId;

use super::{
    cidr::Prefixes,
    identities::{Around, Identities, Owner},
    identity::Identity,
    named_properties::FlippedProperties,
    numbers::{Exhausted, Numbers},
    property_places::PropertyPlaces,
    service_places::{Others, ServicePlaces},
    workload_kinds::WorkloadKinds,
};
use crate::{
    model::{
        Claimant, Inventory, NamespaceName, NodeEntry, NodeName, NodeNetwork, Unlisted, Workload,
        WorkloadId, special_range, special_range_of,
    },
    ordmap::Map,
    plan::Addresses,
};

/// Every identity, and the addresses and prefixes that have it.
#[derive(Default)]
pub(crate) struct Resolver {
    inventory: Option<Arc<Inventory>>,
    pub(crate) kinds: WorkloadKinds,
    places: PropertyPlaces,
    pub(crate) identities: Identities,
    pub(crate) addresses: Addresses,
    pub(crate) owners: Map<IpAddr, u64>,
    pub(crate) prefixes: Map<IpNet, IdentityId>,
    /// The same addresses and owners with those of Services.
    pub(crate) services: ServicePlaces,
}

/// The effect of an update on the identities.
#[derive(Default)]
pub(crate) struct Resolved {
    pub(crate) came: BTreeSet<IdentityId>,
    pub(crate) gone: Vec<(IdentityId, Arc<Identity>)>,
}

impl Resolver {
    /// Assigns identities to every address of the inventory and every policy prefix.
    /// `renamed` are the properties that are named by policies now and were not before, or the
    /// other way round.
    pub(crate) fn update(
        &mut self,
        inventory: &Arc<Inventory>,
        (prefixes, renamed): (&mut Prefixes, &FlippedProperties),
        numbers: &mut Numbers,
    ) -> Result<Resolved, Exhausted> {
        let before = self.inventory.take().unwrap_or_default();
        let is_first = self.prefixes.is_empty();
        let flipped = prefixes.take_changed();
        let mut fresh = Fresh::default();
        let network = &*inventory.network;
        if is_first {
            self.begin(prefixes, network, numbers)?;
        }
        let owners_changed = !Arc::ptr_eq(&before, inventory) || !renamed.is_empty();
        if owners_changed {
            self.leave(&before, inventory, renamed, &mut fresh);
        }
        if !is_first {
            self.around(&flipped, prefixes, numbers)?;
            let changed = before.network.changed(network);
            self.between(&flipped, &changed, (prefixes, network), numbers)?;
        }
        if owners_changed {
            self.kinds.set_named(renamed);
            self.kinds.set_namespace_labels(&before, inventory);
            self.enter(inventory, &fresh, prefixes, numbers)?;
        }
        let others = Others {
            addresses: &self.addresses,
            owners: &self.owners,
            prefixes: &self.prefixes,
        };
        self.services
            .update(&inventory.services, others, &mut self.identities, numbers)?;
        self.inventory = Some(Arc::clone(inventory));
        Ok(self.identities.settle())
    }

    /// Identities that exist whatever the inventory contains.
    fn begin(
        &mut self,
        prefixes: &Prefixes,
        network: &NodeNetwork,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        // Sockets of this node have it even if the inventory lists no address for it.
        let nowhere = Around {
            cidrs: Vec::new(),
            special: None,
        };
        self.identities.take(Owner::Host, nowhere, numbers)?;
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let mut all: BTreeSet<IpNet> = prefixes.iter().chain(&everything).copied().collect();
        all.extend(network.ranges());
        for net in all {
            self.place_prefix(net, (prefixes, network), numbers)?;
        }
        Ok(())
    }

    fn place_prefix(
        &mut self,
        net: IpNet,
        (prefixes, network): (&Prefixes, &NodeNetwork),
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        let (owner, special) = match network.unlisted(&net) {
            Unlisted::World => (Owner::World, None),
            Unlisted::Cluster => (Owner::Cluster, None),
            Unlisted::Special(range) => (Owner::Special, Some(range)),
            Unlisted::Own => (Owner::Host, special_range(&net)),
        };
        let cidrs = prefixes.covering(&net);
        let identity = self
            .identities
            .take(owner, Around { cidrs, special }, numbers)?;
        if let Some(before) = self.prefixes.insert(net, identity) {
            self.identities.give_back(before);
        }
        Ok(())
    }

    /// Removes the addresses of changed owners, and returns those to add.
    fn leave<'a>(
        &mut self,
        before: &'a Inventory,
        now: &'a Inventory,
        renamed: &FlippedProperties,
        fresh: &mut Fresh<'a>,
    ) {
        let mut leaving: Vec<Arc<Workload>> = Vec::new();
        now.workloads.since(&before.workloads, |change| {
            leaving.extend(change.old.cloned());
            fresh.workloads.extend(change.new);
        });
        let contesting = contesting(before, now);
        let mut again: BTreeSet<&WorkloadId> = BTreeSet::new();
        again.extend(contesting.iter().filter_map(|claimant| match claimant {
            Claimant::Workload(id) => Some(id),
            Claimant::Node(_) => None,
        }));
        for namespace in relabelled_namespaces(before, now) {
            again.extend(now.workloads_of(namespace).map(|workload| &workload.id));
        }
        if !renamed.is_empty() {
            // Those that came or changed are among the others.
            let namespaces = self.places.of(renamed).into_iter();
            let workloads = namespaces.filter_map(|name| now.namespaces.get(name));
            let workloads = workloads.flat_map(|it| now.workloads_of(it.name()));
            let concerned = workloads.filter(|workload| renamed.concern(workload));
            again.extend(concerned.map(|workload| &workload.id));
        }
        for id in again {
            let held = now.workloads.get(id);
            if let Some(workload) = held.filter(|now| before.workloads.get(id) == Some(*now)) {
                leaving.push(Arc::clone(workload));
                fresh.workloads.push(workload);
            }
        }
        for workload in &leaving {
            self.kinds.remove(workload);
            self.places.remove(workload);
            let own = |address: &IpAddr| {
                before.is_owner(&workload.id, *address) || before.is_unknown(*address)
            };
            self.remove_changed(workload.addresses.iter().filter(|it| own(it)));
        }
        let mut nodes: BTreeSet<&NodeName> = BTreeSet::new();
        nodes.extend(contesting.iter().filter_map(|claimant| match claimant {
            Claimant::Workload(_) => None,
            Claimant::Node(name) => Some(name),
        }));
        now.nodes.since(&before.nodes, |change| {
            nodes.insert(change.key);
        });
        for name in &nodes {
            let Some(node) = before.nodes.get(*name) else {
                continue;
            };
            let kept = kept(before, now, name);
            let own = |address: &IpAddr| {
                before.is_owner_node(name, *address) || before.is_unknown(*address)
            };
            let left = node.addresses.iter().filter(|it| !kept.contains(*it));
            self.remove_changed(left.filter(|it| own(it)));
            fresh.kept.extend(kept);
        }
        let present = nodes.into_iter().filter_map(|name| now.nodes.get(name));
        fresh.nodes.extend(present);
    }

    fn remove_changed<'a>(&mut self, addresses: impl Iterator<Item = &'a IpAddr>) {
        for address in addresses {
            self.owners.remove(address);
            if let Some(identity) = self.addresses.remove(address) {
                self.identities.give_back(identity);
            }
        }
    }

    /// Resolves the addresses in added and removed prefixes again.
    fn around(
        &mut self,
        flipped: &BTreeSet<IpNet>,
        prefixes: &Prefixes,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        if flipped.is_empty() {
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
            let identity = self
                .identities
                .take(owner, place(address, prefixes), numbers)?;
            self.identities.give_back(before);
            if identity != before {
                self.addresses.insert(address, identity);
            }
        }
        Ok(())
    }

    /// Resolves what no owner lists again: in added and removed prefixes, and in ranges of the network
    /// that changed.
    fn between(
        &mut self,
        flipped: &BTreeSet<IpNet>,
        changed: &BTreeSet<IpNet>,
        (prefixes, network): (&Prefixes, &NodeNetwork),
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        let changed: BTreeSet<IpNet> = flipped.union(changed).copied().collect();
        if changed.is_empty() {
            return Ok(());
        }
        let inside = |net: &IpNet| changed.iter().any(|around| around.contains(net));
        let mut nets: BTreeSet<IpNet> = self.prefixes.keys().copied().filter(inside).collect();
        let stays = |net: &IpNet| prefixes.contains(net) || network.has_range(net);
        nets.extend(changed.iter().filter(|net| stays(net)));
        for net in nets {
            if stays(&net) || net.prefix_len() == 0 {
                self.place_prefix(net, (prefixes, network), numbers)?;
            } else if let Some(before) = self.prefixes.remove(&net) {
                self.identities.give_back(before);
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        now: &Inventory,
        fresh: &Fresh<'_>,
        prefixes: &Prefixes,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        let mut placed: Vec<(IpAddr, IdentityId)> = Vec::new();
        let mut owners: Vec<(IpAddr, u64)> = Vec::new();
        let mut unknown: BTreeSet<IpAddr> = BTreeSet::new();
        for workload in &fresh.workloads {
            let (number, kind) = self.kinds.add(workload);
            self.places.add(workload);
            let owner = owner_hash(&workload.id);
            for address in &workload.addresses {
                if !now.is_owner(&workload.id, *address) {
                    unknown.extend(now.is_unknown(*address).then_some(*address));
                    continue;
                }
                owners.push((*address, owner));
                let owner = Owner::Workload(number, Arc::clone(&kind));
                let around = place(*address, prefixes);
                placed.push((*address, self.identities.take(owner, around, numbers)?));
            }
        }
        for node in &fresh.nodes {
            let owner = owner_hash(&node.name);
            for address in &node.addresses {
                if fresh.kept.contains(address) {
                    continue;
                }
                if !now.is_owner_node(&node.name, *address) {
                    unknown.extend(now.is_unknown(*address).then_some(*address));
                    continue;
                }
                owners.push((*address, owner));
                let owner = if node.local {
                    Owner::Host
                } else {
                    Owner::RemoteNode
                };
                let around = place(*address, prefixes);
                placed.push((*address, self.identities.take(owner, around, numbers)?));
            }
        }
        // Without an entry, the address would be `world`.
        placed.extend(unknown.iter().map(|it| (*it, IdentityId::UNKNOWN)));
        let no_owner = owner_hash(&"no owner");
        owners.extend(unknown.into_iter().map(|address| (address, no_owner)));
        add_all(&mut self.addresses, placed);
        add_all(&mut self.owners, owners);
        Ok(())
    }
}

/// Adds new entries to a map.
fn add_all<V: Clone>(map: &mut Map<IpAddr, V>, mut new: Vec<(IpAddr, V)>) {
    // Many entries are cheaper to sort in than to insert one by one.
    if new.len() > map.len() / 8 {
        let held = map.iter();
        new.extend(held.map(|(address, value)| (*address, value.clone())));
        *map = new.into_iter().collect();
    } else {
        for (address, value) in new {
            map.insert(address, value);
        }
    }
}

/// Where an address lies that has an owner.
fn place(address: IpAddr, prefixes: &Prefixes) -> Around {
    Around {
        cidrs: prefixes.containing(address),
        special: special_range_of(address),
    }
}

/// Tells owners of an address apart while the agent runs.
pub(crate) fn owner_hash(owner: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    hasher.finish()
}

/// The owners to add after the removals.
#[derive(Default)]
struct Fresh<'a> {
    workloads: Vec<&'a Arc<Workload>>,
    nodes: Vec<&'a Arc<NodeEntry>>,
    /// Addresses of these nodes that stay as they are: a node has many, and few of them change.
    kept: HashSet<IpAddr>,
}

/// The addresses that a node has in both inventories, as the same kind of node.
fn kept(before: &Inventory, now: &Inventory, name: &NodeName) -> HashSet<IpAddr> {
    let [Some(old), Some(new)] = [before, now].map(|it| it.nodes.get(name)) else {
        return HashSet::new();
    };
    if old.local != new.local {
        return HashSet::new();
    }
    let had: HashSet<&IpAddr> = old.addresses.iter().collect();
    let is_kept = |address: &&IpAddr| {
        let owns = |inventory: &Inventory| inventory.is_owner_node(name, **address);
        had.contains(*address) && owns(before) && owns(now)
    };
    new.addresses.iter().filter(is_kept).copied().collect()
}

fn relabelled_namespaces<'a>(before: &'a Inventory, now: &'a Inventory) -> Vec<&'a NamespaceName> {
    let mut relabelled = Vec::new();
    now.namespaces.since(&before.namespaces, |change| {
        if change.old.is_some() && change.new.is_some() {
            relabelled.push(change.key);
        }
    });
    relabelled
}

/// The claimants of addresses whose claimants or owner changed.
fn contesting(before: &Inventory, now: &Inventory) -> BTreeSet<Claimant> {
    let mut contesting = BTreeSet::new();
    now.disputed.since(&before.disputed, |change| {
        let disputes = change.old.into_iter().chain(change.new);
        contesting.extend(disputes.flat_map(|dispute| dispute.claimants().iter().cloned()));
    });
    contesting
}
