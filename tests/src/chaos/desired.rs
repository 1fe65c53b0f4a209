//! The desired states of a run, and the text of the files that say so.

use anyhow::Result;

use super::hosts::{DATAGRAM_PORT, Hosts, KEPT_PORT, OPEN_PORT, SLOTS, slot};
use crate::inventory::{Attributes, InventoryBuilder};
use crate::topology::Node;

/// What differs between the desired states of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Desired {
    /// Workloads of other nodes.
    pub(super) remote: usize,
    /// Part of a label of every remote workload: their identities are new when it changes.
    pub(super) generation: u64,
    /// How many identities they have.
    pub(super) identities: usize,
    /// A further port in the rule that allows the traffic, so that every flow is evaluated again.
    pub(super) further: u16,
    /// A port whose flows a later change revokes.
    pub(super) revocable: Option<u16>,
    /// A constant of the kernel programs, which must be loaded again when it changes.
    pub(super) constant: u32,
}

impl Desired {
    /// That of the start, with workloads of other nodes.
    pub(super) const fn first(remote: usize) -> Self {
        Self {
            remote,
            generation: 0,
            identities: 1,
            further: 9000,
            revocable: None,
            constant: 180,
        }
    }

    /// Puts another port into the rule that allows the traffic.
    pub(super) const fn change_rule(&mut self) {
        self.further = if self.further == 9000 { 9001 } else { 9000 };
    }

    /// Changes a constant of the kernel programs.
    pub(super) const fn change_constant(&mut self) {
        self.constant = if self.constant == 180 { 181 } else { 180 };
    }

    /// The text of the inventory.
    pub(super) fn inventory(&self, hosts: &Hosts) -> Result<String> {
        let mut inventory = namespaces(&hosts.node);
        for workload in hosts.all() {
            let labels = Attributes::labels(&[("app", &workload.name)]);
            inventory = inventory.local(workload, &labels);
        }
        for number in 0..SLOTS {
            let address = format!("198.18.0.{}", number + 1).parse()?;
            let (name, interface) = (format!("w{number}"), slot(number));
            let attributes = Attributes::default();
            inventory = inventory.workload("lab", &name, &[address], Some(&interface), &attributes);
        }
        for number in 0..self.remote {
            let generation = format!("g{}-{}", self.generation, number % self.identities);
            let attributes = Attributes::labels(&[("generation", &generation)]);
            let address = format!("198.19.{}.{}", number / 250, number % 250 + 1).parse()?;
            inventory = inventory.remote("far", &format!("r{number}"), &[address], &attributes);
        }
        Ok(inventory.build())
    }

    /// The text of the policies. They isolate both directions of client and server, so that only who
    /// opened a flow lets its replies pass.
    pub(super) fn policies(&self) -> String {
        let revocable = self.revocable.map_or_else(String::new, |port| {
            format!(", \"tcp/{port}\", \"udp/{port}\"")
        });
        format!(
            r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
egress = []
[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = ["tcp/{KEPT_PORT}", "udp/{DATAGRAM_PORT}", "tcp/{OPEN_PORT}", "tcp/{}"{revocable}]
[[policy.ingress]]
from = [{{ namespaces = "", pods = "generation=g0-0" }}]
ports = ["tcp/9004"]

[[policy]]
name = "client"
namespace = "shop"
subject = "app=client"
ingress = []
[[policy.egress]]
to = [{{ pods = "app=server" }}]

[[policy]]
name = "vault"
namespace = "shop"
subject = "app=vault"
ingress = []
egress = []

[[policy]]
name = "cell"
namespace = "annex"
subject = "app=cell"
ingress = []
egress = []
"#,
            self.further
        )
    }
}

/// An inventory with only this node and the namespaces.
pub(super) fn namespaces(node: &Node) -> InventoryBuilder {
    let all = ["shop", "annex", "lab", "far"].into_iter();
    all.fold(node.inventory(), |inventory, name| {
        inventory.namespace(name, &[])
    })
}
