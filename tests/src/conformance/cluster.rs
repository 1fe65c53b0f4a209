//! The state of the cluster at some point of a case: namespaces, workloads with addresses and
//! labels, modes.
//!
//! This is a simulation without side effects: it applies the steps, so that the expectations of
//! every step are known before anything runs. An address is assigned to each name and kept after
//! the workload is gone, because policies may refer to it before and after.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail, ensure};

use super::case::{Case, Changes, Verb, WorkloadDelta};
use super::name::{End, WorkloadName};
use super::port::{Family, Port};
use crate::topology::Addresses;

pub(super) use super::case::Mode;

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const WORKLOADS: [&str; 3] = ["a", "b", "c"];
/// The label that Kubernetes puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Addresses of the two ends that are not workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostAddresses {
    pub(super) node: Addresses,
    pub(super) outside: Addresses,
}

impl HostAddresses {
    /// Addresses for cases that do not run on the wire.
    pub(super) const PLACEHOLDER: Self = Self {
        node: Addresses {
            ip4: Ipv4Addr::new(100, 120, 0, 1),
            ip6: Ipv6Addr::new(0x2001, 0xdb8, 0x120, 0, 0, 0, 0, 1),
        },
        outside: Addresses {
            ip4: Ipv4Addr::new(100, 96, 0, 1),
            ip6: Ipv6Addr::new(0x2001, 0xdb8, 0x96, 0, 0, 0, 0, 1),
        },
    };
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) mode: Mode,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkloadState {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) service_account: String,
    pub(super) ports: BTreeMap<String, String>,
    pub(super) addresses: Addresses,
}

/// The simulated cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) hosts: HostAddresses,
    pub(super) namespaces: BTreeMap<String, Namespace>,
    pub(super) workloads: BTreeMap<WorkloadName, WorkloadState>,
    /// The ports that every end serves.
    pub(super) grid: Vec<Port>,
    /// The current, last or future addresses of each workload.
    assigned: BTreeMap<WorkloadName, Addresses>,
    next: u32,
}

impl Cluster {
    /// The cluster before the first step of a case.
    pub(super) fn new(case: &Case, hosts: HostAddresses) -> Result<Self> {
        let mut cluster = Self {
            hosts,
            namespaces: BTreeMap::new(),
            workloads: BTreeMap::new(),
            grid: Port::DEFAULT.to_vec(),
            assigned: BTreeMap::new(),
            next: 0,
        };
        let extra = case.delta.grid.iter();
        cluster.grid.extend(extra);
        let mut seen = Vec::new();
        cluster.grid.retain(|port| {
            let fresh = !seen.contains(port);
            seen.push(*port);
            fresh
        });
        for namespace in NAMESPACES {
            cluster.namespace(namespace);
            let labels = Changes::from([("ns".to_owned(), Some(namespace.to_owned()))]);
            cluster.label_namespace(namespace, &labels)?;
            for name in WORKLOADS {
                let delta = WorkloadDelta {
                    labels: Changes::from([("pod".to_owned(), Some(name.to_owned()))]),
                    ..WorkloadDelta::default()
                };
                cluster.create(&format!("{namespace}/{name}").parse()?, &delta)?;
            }
        }
        for (namespace, labels) in &case.delta.namespaces {
            cluster.namespace(namespace);
            cluster.label_namespace(namespace, labels)?;
        }
        for (name, delta) in &case.delta.workloads {
            cluster.create(name, delta)?;
        }
        cluster.ensure_distinct()?;
        cluster.assign_future_addresses(case);
        Ok(cluster)
    }

    /// Applies a step. Steps that only concern policies, time or the agent change nothing here.
    pub(super) fn apply(&mut self, verb: &Verb) -> Result<()> {
        match verb {
            Verb::LabelWorkload(name, labels) => {
                let member = self.workloads.get_mut(name);
                change(&mut member.with_context(|| absent(name))?.labels, labels);
            }
            Verb::LabelNamespace(name, labels) => self.label_namespace(name, labels)?,
            Verb::Add(added) => {
                for (name, delta) in added {
                    ensure!(
                        !self.workloads.contains_key(name),
                        "{name} already exists and cannot be added"
                    );
                    self.create(name, delta)?;
                }
                self.ensure_distinct()?;
            }
            Verb::Remove(names) => {
                for name in names {
                    self.workloads.remove(name).with_context(|| absent(name))?;
                }
            }
            Verb::MoveAddress(from, to) => {
                ensure!(from != to, "{from} cannot move its address to itself");
                let left = self.workloads.remove(from).with_context(|| absent(from))?;
                let new_owner = self.workloads.get_mut(to).with_context(|| absent(to))?;
                new_owner.addresses = left.addresses;
                self.assigned.insert(to.clone(), left.addresses);
            }
            Verb::Mode(modes) => {
                for (name, mode) in modes {
                    let namespace = self.namespaces.get_mut(name);
                    namespace
                        .with_context(|| format!("there is no namespace {name:?}"))?
                        .mode = *mode;
                }
            }
            Verb::Apply(_)
            | Verb::ApplyToml(_)
            | Verb::Delete(_)
            | Verb::Wait(_)
            | Verb::Restart(_)
            | Verb::Reject(_)
            | Verb::RejectToml(_) => {}
        }
        Ok(())
    }

    /// All ends: workloads in order, then `node` and `ext`.
    pub(super) fn all_ends(&self) -> Vec<End> {
        let workloads = self.workloads.keys().cloned().map(End::Workload);
        workloads.chain([End::Node, End::Outside]).collect()
    }

    /// The address of an end; for a workload also before it is added and after it is removed.
    pub(super) fn address(&self, end: &End, family: Family) -> Result<IpAddr> {
        let addresses = match end {
            End::Workload(name) => *self.assigned.get(name).with_context(|| absent(name))?,
            End::Node => self.hosts.node,
            End::Outside => self.hosts.outside,
        };
        Ok(match family {
            Family::V4 => addresses.ip4.into(),
            Family::V6 => addresses.ip6.into(),
        })
    }

    /// The mode of a workload's namespace.
    pub(super) fn mode_of(&self, name: &WorkloadName) -> Mode {
        self.namespaces
            .get(name.namespace())
            .map_or(Mode::Enforce, |namespace| namespace.mode)
    }

    /// A copy with every namespace in `enforce`.
    pub(super) fn enforcing(&self) -> Self {
        let mut cluster = self.clone();
        for namespace in cluster.namespaces.values_mut() {
            namespace.mode = Mode::Enforce;
        }
        cluster
    }

    fn namespace(&mut self, name: &str) {
        self.namespaces
            .entry(name.to_owned())
            .or_insert_with(|| Namespace {
                labels: BTreeMap::from([(NAME_LABEL.to_owned(), name.to_owned())]),
                mode: Mode::Enforce,
            });
    }

    fn label_namespace(&mut self, name: &str, labels: &Changes) -> Result<()> {
        let namespace = self.namespaces.get_mut(name);
        let namespace = namespace.with_context(|| format!("there is no namespace {name:?}"))?;
        change(&mut namespace.labels, labels);
        Ok(())
    }

    /// Creates a workload or changes an existing one.
    fn create(&mut self, name: &WorkloadName, delta: &WorkloadDelta) -> Result<()> {
        self.namespace(name.namespace());
        let mut addresses = self.addresses_for(name);
        addresses.ip4 = delta.ip4.unwrap_or(addresses.ip4);
        addresses.ip6 = delta.ip6.unwrap_or(addresses.ip6);
        self.assigned.insert(name.clone(), addresses);
        let ports = self.grid.iter();
        let ports = ports.map(|port| (port.served_name(), port.to_string()));
        let ports = ports.collect();
        let member = self
            .workloads
            .entry(name.clone())
            .or_insert_with(|| WorkloadState {
                labels: BTreeMap::new(),
                service_account: "default".to_owned(),
                ports,
                addresses,
            });
        member.addresses = addresses;
        change(&mut member.labels, &delta.labels);
        change(&mut member.ports, &delta.ports);
        if let Some(account) = &delta.service_account {
            member.service_account.clone_from(account);
        }
        Ok(())
    }

    /// The addresses already assigned to it, unless another workload has them now.
    fn addresses_for(&mut self, name: &WorkloadName) -> Addresses {
        if let Some(known) = self.assigned.get(name) {
            let taken = self.workloads.iter().any(|(other, member)| {
                other != name
                    && (member.addresses.ip4 == known.ip4 || member.addresses.ip6 == known.ip6)
            });
            if !taken {
                return *known;
            }
        }
        self.next += 1;
        Addresses {
            ip4: Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 1, 0).to_bits() + self.next),
            ip6: Ipv6Addr::from_bits(
                Ipv6Addr::new(0x2001, 0xdb8, 0x64, 1, 0, 0, 0, 0).to_bits() + u128::from(self.next),
            ),
        }
    }

    /// Assigns addresses to workloads that will be added, so that policies may refer to them
    /// before.
    fn assign_future_addresses(&mut self, case: &Case) {
        for step in &case.steps {
            let Verb::Add(added) = &step.verb else {
                continue;
            };
            for (name, delta) in added {
                if self.assigned.contains_key(name) {
                    continue;
                }
                let mut addresses = self.addresses_for(name);
                addresses.ip4 = delta.ip4.unwrap_or(addresses.ip4);
                addresses.ip6 = delta.ip6.unwrap_or(addresses.ip6);
                self.assigned.insert(name.clone(), addresses);
            }
        }
    }

    fn ensure_distinct(&self) -> Result<()> {
        let mut owners: BTreeMap<IpAddr, &WorkloadName> = BTreeMap::new();
        for (name, member) in &self.workloads {
            let addresses = member.addresses;
            for address in [IpAddr::from(addresses.ip4), IpAddr::from(addresses.ip6)] {
                if let Some(other) = owners.insert(address, name) {
                    bail!("{address} belongs to both {other} and {name}");
                }
            }
        }
        Ok(())
    }
}

fn absent(name: &WorkloadName) -> String {
    format!("there is no workload {name}")
}

fn change(values: &mut BTreeMap<String, String>, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => values.insert(key.clone(), value.clone()),
            None => values.remove(key),
        };
    }
}

#[cfg(test)]
mod tests;
