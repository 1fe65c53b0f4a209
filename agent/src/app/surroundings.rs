//! The inventory with the node's own addresses, and with the ranges of its links and its cluster.
//!
//! Invariants: sources say who owns an address, the kernel only adds addresses that no source lists. An
//! inventory is made again only if one of its parts changed, so that an unchanged one stays the same.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use tracing::warn;

use super::shared_state::node_name;
use crate::{
    config::Config,
    model::{Claimant, Inventory, NodeName, NodeNetwork, Owner, Service, ServiceId},
    ordmap::Map,
    source::interfaces::Links,
};

/// What an inventory is made of.
pub(super) struct Surroundings {
    /// The node's name, if no source declares it.
    name: NodeName,
    /// The ranges of the cluster that the configuration lists.
    configured: BTreeSet<IpNet>,
    /// Those, and the ranges that sources know.
    cluster: BTreeSet<IpNet>,
    tunnel_ports: BTreeSet<u16>,
    services: Map<ServiceId, Arc<Service>>,
    /// The inventory as the sources deliver it.
    listed: Arc<Inventory>,
    network: Arc<NodeNetwork>,
    /// Both together.
    inventory: Arc<Inventory>,
    /// Own addresses that belong to another, who was logged.
    contradictions: BTreeSet<(IpAddr, Claimant)>,
}

impl Surroundings {
    /// Those of a node with this configuration, before anything is known of its links.
    pub(super) fn new(config: &Config, first: &Inventory) -> Self {
        Self {
            name: node_name(config, first),
            configured: config.cluster_ranges.clone(),
            cluster: config.cluster_ranges.clone(),
            tunnel_ports: config.tunnel_ports.clone(),
            services: Map::new(),
            listed: Arc::default(),
            network: Arc::default(),
            inventory: Arc::default(),
            contradictions: BTreeSet::new(),
        }
    }

    /// Takes over the ranges of the cluster that sources know.
    pub(super) fn set_ranges(&mut self, known: BTreeSet<IpNet>) {
        self.cluster = known;
        self.cluster.extend(&self.configured);
    }

    /// Takes over the Services that sources know.
    pub(super) fn set_services(&mut self, services: Map<ServiceId, Arc<Service>>) {
        self.services = services;
    }

    /// An inventory of the sources, on a node with these links.
    pub(super) fn around(&mut self, listed: Arc<Inventory>, links: &Links) -> Arc<Inventory> {
        let addresses = links.addresses();
        let is_same = Arc::ptr_eq(&self.listed, &listed)
            && self.inventory.services.is_same(&self.services)
            && self.network.own == addresses.own
            && self.network.own_ranges == addresses.own_ranges
            && self.network.broadcasts == addresses.broadcasts
            && self.network.cluster == self.cluster
            && self.network.tunnel_ports == self.tunnel_ports;
        if is_same {
            return Arc::clone(&self.inventory);
        }
        let network = NodeNetwork {
            own: addresses.own.clone(),
            own_ranges: addresses.own_ranges.clone(),
            broadcasts: addresses.broadcasts.clone(),
            cluster: self.cluster.clone(),
            tunnel_ports: self.tunnel_ports.clone(),
        };
        if *self.network != network {
            self.network = Arc::new(network);
        }
        self.inventory = Arc::new(Inventory {
            services: self.services.clone(),
            ..listed.on_node(&self.name, &self.network)
        });
        self.listed = listed;
        for (address, owner) in self.new_contradictions() {
            warn!(
                "{address} is an address of this node, but the inventory lists it for {owner}: it is not \
                 `host`; correct the inventory, or the address of the interface (in an IPv6 prefix, the first one is the \
                 anycast address of routers, which a node that forwards has)"
            );
        }
        Arc::clone(&self.inventory)
    }

    /// The own addresses whose owner is another, without those of the last call.
    fn new_contradictions(&mut self) -> Vec<(IpAddr, Claimant)> {
        let owner = |address: &IpAddr| match self.listed.owners.get(address)? {
            Owner::Workload(workload) => Some(Claimant::Workload(workload.id.clone())),
            Owner::Node(name) => {
                let is_local = self.listed.nodes.get(name).is_some_and(|node| node.local);
                (!is_local).then(|| Claimant::Node(name.clone()))
            }
        };
        let own = self.network.own.iter();
        let now: BTreeSet<_> = own.filter_map(|it| Some((*it, owner(it)?))).collect();
        let new = now.difference(&self.contradictions).cloned().collect();
        self.contradictions = now;
        new
    }

    /// The inventory of before, on a node with these links.
    pub(super) fn on(&mut self, links: &Links) -> Arc<Inventory> {
        self.around(Arc::clone(&self.listed), links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::inventory_toml;

    #[test]
    fn an_inventory_is_made_again_only_if_a_part_changed() {
        let config = Config {
            tunnel_ports: [4789].into(),
            cluster_ranges: ["10.96.0.0/12".parse().unwrap()].into(),
            ..Config::default()
        };
        let mut links = Links::default();
        let listed = Arc::new(Inventory::default());
        let mut surroundings = Surroundings::new(&config, &listed);
        let first = surroundings.around(Arc::clone(&listed), &links);
        assert_eq!(first.network.cluster, config.cluster_ranges);
        assert_eq!(first.network.tunnel_ports, config.tunnel_ports);
        assert!(first.local_node().is_none());
        let again = surroundings.around(Arc::clone(&listed), &links);
        assert!(Arc::ptr_eq(&first, &again) && Arc::ptr_eq(&first, &surroundings.on(&links)));
        surroundings.set_ranges(["10.97.0.0/16".parse().unwrap()].into());
        let with_known = surroundings.on(&links);
        assert_eq!(with_known.network.cluster.len(), 2);
        surroundings.set_ranges(BTreeSet::new());
        let without = surroundings.on(&links);
        assert_eq!(without.network.cluster, config.cluster_ranges);
        links.set_own(["192.0.2.1".parse().unwrap()]);
        let next = surroundings.on(&links);
        assert_eq!(next.local_node().unwrap().addresses.len(), 1);
        links.set_own([]);
        assert!(surroundings.on(&links).local_node().is_none(), "it is gone");
    }

    #[test]
    fn an_own_address_of_another_is_said_once() {
        let text = "[[namespace]]\nname = \"shop\"\n\
                    [[workload]]\nname = \"web\"\nnamespace = \"shop\"\naddresses = [\"10.0.0.1\"]\n\
                    [[node]]\nname = \"there\"\naddresses = [\"10.0.0.2\"]\n\
                    [[node]]\nname = \"here\"\nlocal = true\naddresses = [\"10.0.0.3\"]\n";
        let read = inventory_toml::parse("i.toml", text).unwrap();
        let listed = Inventory::build(
            read.namespaces.into_iter().map(|it| it.item).collect(),
            read.workloads.into_iter().map(|it| it.item).collect(),
            read.nodes.into_iter().map(|it| it.item).collect(),
        );
        let mut surroundings = Surroundings::new(&Config::default(), &Inventory::default());
        surroundings.listed = Arc::new(listed.unwrap());
        let mut said = |own: &[&str]| {
            let own = own.iter().map(|it| it.parse().unwrap()).collect();
            surroundings.network = Arc::new(NodeNetwork {
                own,
                ..NodeNetwork::default()
            });
            let new = surroundings.new_contradictions().into_iter();
            new.map(|(address, owner)| format!("{address} {owner}"))
                .collect::<Vec<_>>()
        };
        let both = ["10.0.0.1 workload shop/web", "10.0.0.2 node there"];
        assert_eq!(said(&["10.0.0.3", "10.0.0.4"]), [""; 0], "the control");
        assert_eq!(said(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]), both);
        assert_eq!(said(&["10.0.0.1", "10.0.0.2", "10.0.0.9"]), [""; 0]);
        assert_eq!(said(&["10.0.0.1"]), [""; 0]);
        assert_eq!(said(&["10.0.0.1", "10.0.0.2"]), both[1..]);
    }
}
