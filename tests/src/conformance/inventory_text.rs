//! The inventory of a cluster.

use super::cluster::{Cluster, WorkloadState};
use crate::inventory::{Attributes, InventoryBuilder};

/// The node's name in every inventory.
pub(super) const NODE: &str = "node-1";

/// The inventory; `interface` returns the host-side interface of a local workload.
pub(super) fn of(
    cluster: &Cluster,
    interface: impl Fn(&super::name::WorkloadName) -> Option<String>,
) -> InventoryBuilder {
    let node = cluster.hosts.node;
    let mut builder = InventoryBuilder::new(NODE, &[node.ip4.into(), node.ip6.into()]);
    for (name, namespace) in &cluster.namespaces {
        let labels: Vec<(&str, &str)> = namespace
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        builder = builder.namespace(name, &labels);
    }
    for (name, member) in &cluster.workloads {
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

fn attributes(member: &WorkloadState) -> Attributes {
    Attributes {
        labels: member.labels.clone(),
        service_account: Some(member.service_account.clone()),
        ports: member.ports.clone(),
    }
}
