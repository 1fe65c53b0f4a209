//! The inventory with what its node knows: own addresses that no source lists, and ranges.
//!
//! Invariants: an address that a source lists keeps the owner it has there, or none if it is disputed, unless
//! that is a mere claim: a pod elsewhere may claim any address in the API, and what the kernel says of this node
//! is a fact. Every other own address is the local node's, which is added if no source declares one.

use std::sync::Arc;

use super::Inventory;
use crate::model::name::NodeName;
use crate::model::node_network::NodeNetwork;
use crate::model::owner::Owner;
use crate::model::workload::NodeEntry;

impl Inventory {
    /// This inventory on a node with this network, which is called `name` if no source declares it.
    #[must_use]
    pub fn on_node(&self, name: &NodeName, network: &Arc<NodeNetwork>) -> Self {
        let mut inventory = Self {
            network: Arc::clone(network),
            ..self.clone()
        };
        let is_listed = |address| match self.owners.get(address) {
            Some(Owner::Workload(workload)) => !workload.is_claim(),
            Some(Owner::Node(_)) => true,
            None => {
                let dispute = self.disputed.get(address);
                dispute.is_some_and(|dispute| !dispute.has_lapsed())
            }
        };
        let unlisted = network.own.iter().filter(|address| !is_listed(address));
        // Loopback stays special: it is an address of every host, and of none on the wire.
        let unlisted: Vec<_> = unlisted.filter(|it| !it.is_loopback()).copied().collect();
        if unlisted.is_empty() && network.own_ranges.is_empty() {
            return inventory;
        }
        let mut node = match self.local_node() {
            Some(node) => NodeEntry::clone(node),
            None => NodeEntry {
                name: self.unused(name),
                addresses: Vec::new(),
                local: true,
            },
        };
        for address in unlisted {
            node.addresses.push(address);
            let owner = Owner::Node(node.name.clone());
            inventory.owners.insert(address, owner);
            let disputed = &mut inventory.disputed;
            if disputed.get(&address).is_some_and(|it| it.has_lapsed()) {
                disputed.remove(&address);
            }
        }
        inventory.nodes.insert(node.name.clone(), Arc::new(node));
        inventory
    }

    /// A name of no node: this one, unless a source gives it to another node.
    fn unused(&self, name: &NodeName) -> NodeName {
        let others = (1..=self.nodes.len()).filter_map(|it| {
            let other = format!("this-node-{it}");
            NodeName::new(&other).ok()
        });
        let mut names = std::iter::once(name.clone()).chain(others);
        let unused = names.find(|name| !self.nodes.contains_key(name));
        unused.unwrap_or_else(|| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::model::{Recency, Workload};
    use crate::source::inventory_toml;

    const INVENTORY: &str = r#"
[[namespace]]
name = "shop"
[[workload]]
name = "web"
namespace = "shop"
addresses = ["10.0.0.1"]
[[node]]
name = "other"
addresses = ["10.0.0.8"]
"#;

    fn inventory(more: &str) -> Inventory {
        let read = inventory_toml::parse("i.toml", &format!("{INVENTORY}{more}")).unwrap();
        Inventory::build(
            read.namespaces.into_iter().map(|it| it.item).collect(),
            read.workloads.into_iter().map(|it| it.item).collect(),
            read.nodes.into_iter().map(|it| it.item).collect(),
        )
        .unwrap()
    }

    fn network(own: &[&str]) -> Arc<NodeNetwork> {
        Arc::new(NodeNetwork {
            own: own.iter().map(|it| it.parse().unwrap()).collect(),
            ..NodeNetwork::default()
        })
    }

    fn local_addresses(inventory: &Inventory) -> Vec<String> {
        let node = inventory.local_node().into_iter();
        node.flat_map(|node| node.addresses.iter().map(IpAddr::to_string))
            .collect()
    }

    const OWN: [&str; 6] = [
        "10.0.0.1",
        "10.0.0.8",
        "10.0.0.9",
        "127.0.0.1",
        "::1",
        "fe80::9",
    ];

    #[test]
    fn unlisted_addresses_are_the_local_nodes() {
        let name = NodeName::new("here").unwrap();
        let local = "[[node]]\nname = \"local\"\nlocal = true\naddresses = [\"10.0.0.7\"]\n";
        let before = inventory(local);
        let after = before.on_node(&name, &network(&OWN));
        assert_eq!(local_addresses(&before), ["10.0.0.7"], "the control");
        assert_eq!(local_addresses(&after), ["10.0.0.7", "10.0.0.9", "fe80::9"]);
        assert_eq!(after.nodes.len(), before.nodes.len());
        let owner = |text: &str| after.owners.get(&text.parse::<IpAddr>().unwrap()).cloned();
        let node = |name: &str| Some(Owner::Node(NodeName::new(name).unwrap()));
        assert_eq!(owner("fe80::9"), node("local"));
        assert_eq!(owner("10.0.0.8"), node("other"), "as listed");
        assert_eq!(owner("127.0.0.1"), None);
        let gone = before.on_node(&name, &network(&["10.0.0.9"]));
        assert_eq!(local_addresses(&gone), ["10.0.0.7", "10.0.0.9"]);
    }

    #[test]
    fn a_pod_elsewhere_claims_no_address_of_the_node() {
        let name = NodeName::new("here").unwrap();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for (is_of_api, interface) in [(false, None), (true, None), (true, Some("veth7"))] {
            let mut listed = inventory("");
            let Some(Owner::Workload(web)) = listed.owners.get(&address).cloned() else {
                panic!("the control: it is listed");
            };
            let web = Workload {
                interface: interface.map(str::to_owned),
                recency: is_of_api.then(|| Recency {
                    is_running: true,
                    created: 5,
                    uid: "u".into(),
                    has_lapsed: false,
                }),
                ..Workload::clone(&web)
            };
            listed
                .owners
                .insert(address, Owner::Workload(Arc::new(web)));
            let after = listed.on_node(&name, &network(&["10.0.0.1"]));
            let is_nodes = matches!(after.owners.get(&address), Some(Owner::Node(_)));
            assert_eq!(is_nodes, is_of_api && interface.is_none(), "{interface:?}");
        }
    }

    #[test]
    fn a_claim_that_has_lapsed_takes_no_address_of_the_node() {
        let name = NodeName::new("here").unwrap();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let before = inventory("");
        let web = before.workloads.values().next().unwrap();
        let recency = Some(Recency {
            is_running: true,
            created: 5,
            uid: "u".into(),
            has_lapsed: true,
        });
        let web = Arc::new(Workload {
            recency,
            ..Workload::clone(web)
        });
        let namespaces = before.namespaces.values().cloned().collect();
        let listed = Inventory::build(namespaces, vec![web], Vec::new()).unwrap();
        assert!(listed.is_unknown(address) && listed.owners.get(&address).is_none());
        let after = listed.on_node(&name, &network(&["10.0.0.1"]));
        assert!(matches!(after.owners.get(&address), Some(Owner::Node(_))));
        assert!(!after.is_unknown(address));
    }

    #[test]
    fn a_node_that_no_source_declares_is_added() {
        let name = NodeName::new("here").unwrap();
        let before = inventory("");
        let after = before.on_node(&name, &network(&OWN));
        assert_eq!(after.local_node().unwrap().name, name);
        assert_eq!(local_addresses(&after), ["10.0.0.9", "fe80::9"]);
        let other = NodeName::new("other").unwrap();
        let after = before.on_node(&other, &network(&OWN));
        assert_ne!(
            after.local_node().unwrap().name,
            other,
            "it is another node"
        );
        assert_eq!(after.nodes.get(&other), before.nodes.get(&other));
        let none = before.on_node(&name, &network(&["127.0.0.1"]));
        assert!(none.local_node().is_none());
    }
}
