//! The inventory as selectors see it: workloads that no selector can tell apart are one group.
//!
//! Invariant: questions cost by the groups that a label value narrows them to, not by workloads,
//! so a large inventory of few kinds is cheap.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::range::{self, Interval};
use crate::model::{
    Inventory, LabelSelector, Labels, Namespace, NamespaceMatch, NamespaceName, Operator, Peer,
    Policy, PortName, Protocol, Requirement, Scope, ServiceAccountName, Workload, WorkloadId,
};

/// Workloads of one namespace, set of labels and service account.
pub(super) struct Group<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) labels: &'a Labels,
    service_account: &'a ServiceAccountName,
    ports: BTreeSet<(&'a PortName, Protocol)>,
}

impl Group<'_> {
    /// True if one of its workloads declares the port.
    pub(super) fn declares(&self, protocol: Option<Protocol>, name: &PortName) -> bool {
        self.ports
            .iter()
            .any(|(its, of)| *its == name && protocol.is_none_or(|wanted| wanted == *of))
    }
}

/// All groups, and where their workloads' addresses are.
pub(super) struct Population<'a> {
    groups: Vec<Group<'a>>,
    by_namespace: BTreeMap<&'a NamespaceName, Vec<usize>>,
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    /// Sorted by family and number.
    addresses: Vec<((bool, u128), usize, &'a WorkloadId)>,
}

impl<'a> Population<'a> {
    pub(super) fn of(inventory: &'a Inventory) -> Self {
        let mut population = Self {
            groups: Vec::new(),
            by_namespace: BTreeMap::new(),
            by_label: HashMap::new(),
            addresses: Vec::new(),
        };
        let mut known = HashMap::new();
        for workload in inventory.workloads.values() {
            let Some(namespace) = inventory.namespaces.get(&workload.id.namespace) else {
                continue;
            };
            let kind = (
                namespace.name(),
                &workload.labels,
                &workload.service_account,
            );
            let index = *known
                .entry(kind)
                .or_insert_with(|| population.begin(namespace, workload));
            if let Some(group) = population.groups.get_mut(index) {
                let ports = workload
                    .ports
                    .iter()
                    .map(|port| (&port.name, port.protocol));
                group.ports.extend(ports);
            }
            let addresses = workload.addresses.iter();
            let owned = addresses.map(|address| (range::number(*address), index, &workload.id));
            population.addresses.extend(owned);
        }
        population.addresses.sort_unstable();
        population
    }

    fn begin(&mut self, namespace: &'a Namespace, workload: &'a Workload) -> usize {
        let index = self.groups.len();
        self.groups.push(Group {
            namespace,
            labels: &workload.labels,
            service_account: &workload.service_account,
            ports: BTreeSet::new(),
        });
        let neighbours = self.by_namespace.entry(namespace.name()).or_default();
        neighbours.push(index);
        for label in workload.labels.iter() {
            self.by_label.entry(label).or_default().push(index);
        }
        index
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Group<'a>> {
        self.groups.iter()
    }

    /// The groups that a policy is about.
    pub(super) fn subjects(&self, policy: &Policy) -> impl Iterator<Item = &Group<'a>> {
        let own = match &policy.scope {
            Scope::Namespace(namespace) => Some(namespace),
            Scope::Cluster { .. } => None,
        };
        self.candidates(own, Some(&policy.subject)).filter(|group| {
            let namespace = group.namespace;
            policy.selects(namespace.name(), namespace.labels(), group.labels)
        })
    }

    /// The groups that a peer matches by what they are; `None` for a peer by address.
    pub(super) fn peers(&self, peer: &Peer) -> Option<impl Iterator<Item = &Group<'a>>> {
        let Peer::Workloads {
            namespaces,
            pods,
            service_account,
        } = peer
        else {
            return None;
        };
        let own = match namespaces {
            NamespaceMatch::Own(namespace) => Some(namespace),
            NamespaceMatch::Selector(_) => None,
        };
        let candidates = self.candidates(own, pods.as_ref());
        Some(candidates.filter(move |group| {
            let here = match namespaces {
                NamespaceMatch::Own(namespace) => group.namespace.name() == namespace,
                NamespaceMatch::Selector(selector) => selector.matches(group.namespace.labels()),
            };
            here && pods.as_ref().is_none_or(|pods| pods.matches(group.labels))
                && service_account
                    .as_ref()
                    .is_none_or(|account| account == group.service_account)
        }))
    }

    /// A superset of what is asked for, the smallest that an index gives.
    fn candidates(
        &self,
        own: Option<&NamespaceName>,
        pods: Option<&LabelSelector>,
    ) -> impl Iterator<Item = &Group<'a>> {
        let requirements = pods.map(LabelSelector::requirements).unwrap_or_default();
        let by_label = requirements
            .iter()
            .filter_map(|requirement| self.with_label(requirement));
        let by_namespace = own.map(|own| {
            let here = self.by_namespace.get(own);
            here.cloned().unwrap_or_default()
        });
        let narrowed = by_label.chain(by_namespace).min_by_key(Vec::len);
        let every = narrowed.is_none().then(|| self.groups.iter());
        let some = narrowed.unwrap_or_default().into_iter();
        every
            .into_iter()
            .flatten()
            .chain(some.filter_map(|index| self.groups.get(index)))
    }

    fn with_label(&self, requirement: &Requirement) -> Option<Vec<usize>> {
        let Operator::In(values) = requirement.operator() else {
            return None;
        };
        let lists = values.iter().filter_map(|value| {
            let label = (requirement.key(), value.as_str());
            self.by_label.get(&label)
        });
        Some(lists.flatten().copied().collect())
    }

    /// A workload with an address in the range.
    pub(super) fn workload_in(&self, net: &IpNet, except: &[IpNet]) -> Option<&'a WorkloadId> {
        self.within(net, except).next().map(|(_, id)| id)
    }

    /// The groups of the workloads with an address in the range, once for each address.
    pub(super) fn groups_in(
        &self,
        net: &IpNet,
        except: &[IpNet],
    ) -> impl Iterator<Item = &Group<'a>> {
        self.within(net, except)
            .filter_map(|(index, _)| self.groups.get(index))
    }

    fn within(
        &self,
        net: &IpNet,
        except: &[IpNet],
    ) -> impl Iterator<Item = (usize, &'a WorkloadId)> {
        range::remaining(net, except).into_iter().flat_map(|part| {
            let Interval { is_v6, first, last } = part;
            let from = self
                .addresses
                .partition_point(|(at, ..)| *at < (is_v6, first));
            let owned = self.addresses.get(from..).unwrap_or_default().iter();
            owned
                .take_while(move |(at, ..)| *at <= (is_v6, last))
                .map(|(_, index, id)| (*index, *id))
        })
    }
}
