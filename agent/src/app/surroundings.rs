//! The inventory with the node's own addresses, and with the ranges of its links and its cluster.
//!
//! Invariants: sources say who owns an address, the kernel only adds addresses that no source lists. An
//! inventory is made again only if one of its parts changed, so that an unchanged one stays the same.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;

use super::shared_state::node_name;
use crate::{
    config::Config,
    model::{Inventory, NodeName, NodeNetwork},
    source::interfaces::Links,
};

/// The name of a node whose host name is none.
const UNNAMED: &str = "this-node";

/// What an inventory is made of.
pub(super) struct Surroundings {
    /// The node's name, if no source declares it.
    name: Option<NodeName>,
    cluster: BTreeSet<IpNet>,
    tunnel_ports: BTreeSet<u16>,
    /// The inventory as the sources deliver it.
    listed: Arc<Inventory>,
    network: Arc<NodeNetwork>,
    /// Both together.
    inventory: Arc<Inventory>,
}

impl Surroundings {
    /// Those of a node with this configuration, before anything is known of its links.
    pub(super) fn new(config: &Config, first: &Inventory) -> Self {
        let name = node_name(config, first);
        let name = NodeName::new(&name).or_else(|_| NodeName::new(UNNAMED));
        Self {
            name: name.ok(),
            cluster: config.cluster_ranges.clone(),
            tunnel_ports: config.tunnel_ports.clone(),
            listed: Arc::default(),
            network: Arc::default(),
            inventory: Arc::default(),
        }
    }

    /// An inventory of the sources, on a node with these links.
    pub(super) fn around(&mut self, listed: Arc<Inventory>, links: &Links) -> Arc<Inventory> {
        let addresses = links.addresses();
        let is_same = Arc::ptr_eq(&self.listed, &listed)
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
        if let Some(name) = &self.name {
            self.inventory = Arc::new(listed.on_node(name, &self.network));
        }
        self.listed = listed;
        Arc::clone(&self.inventory)
    }

    /// The inventory of before, on a node with these links.
    pub(super) fn on(&mut self, links: &Links) -> Arc<Inventory> {
        self.around(Arc::clone(&self.listed), links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        links.set_own(["192.0.2.1".parse().unwrap()]);
        let next = surroundings.on(&links);
        assert_eq!(next.local_node().unwrap().addresses.len(), 1);
        links.set_own([]);
        assert!(surroundings.on(&links).local_node().is_none(), "it is gone");
    }
}
