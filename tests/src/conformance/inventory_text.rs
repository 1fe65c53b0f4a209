//! The inventory that tells the agent what a world holds.

use super::world::{Member, World};
use crate::inventory::{Attributes, InventoryBuilder};

/// The node's name in every inventory of the runner.
pub(super) const NODE: &str = "node-1";

/// The inventory; `interface` tells the host-side interface of a workload that has one here.
pub(super) fn of(
    world: &World,
    interface: impl Fn(&super::name::WorkloadName) -> Option<String>,
) -> InventoryBuilder {
    let node = world.ends.node;
    let mut builder = InventoryBuilder::new(NODE, &[node.ip4.into(), node.ip6.into()]);
    for (name, namespace) in &world.namespaces {
        let labels: Vec<(&str, &str)> = namespace
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        builder = builder.namespace(name, &labels);
    }
    for (name, member) in &world.workloads {
        let addresses = [member.addresses.ip4.into(), member.addresses.ip6.into()];
        builder = builder.workload(
            name.namespace(),
            name.name(),
            &addresses,
            interface(name).as_deref(),
            &attributes(member),
        );
    }
    builder
}

fn attributes(member: &Member) -> Attributes {
    Attributes {
        labels: member.labels.clone(),
        service_account: Some(member.service_account.clone()),
        ports: member.ports.clone(),
    }
}
