//! The inventory grouped by what selectors can match: workloads that no selector distinguishes form
//! one group.
//!
//! Invariant: a query costs as much as the number of groups that a label value leaves, not
//! workloads, so a large inventory with few distinct workloads is cheap.

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
        has_port(&self.ports, protocol, name)
    }
}

fn has_port(
    ports: &BTreeSet<(&PortName, Protocol)>,
    protocol: Option<Protocol>,
    name: &PortName,
) -> bool {
    let with_ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    with_ports
        .into_iter()
        .filter(|of| protocol.is_none_or(|wanted| wanted == *of))
        .any(|of| ports.contains(&(name, of)))
}

/// The namespaces of a query.
#[derive(Clone, Copy)]
enum Within<'s> {
    One(&'s NamespaceName),
    Like(&'s LabelSelector),
}

/// All groups, and the addresses of their workloads.
pub(super) struct Population<'a> {
    groups: Vec<Group<'a>>,
    by_namespace: BTreeMap<&'a NamespaceName, Vec<usize>>,
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    by_key: HashMap<&'a str, Vec<usize>>,
    declared: BTreeSet<(&'a PortName, Protocol)>,
    /// Sorted by family and number.
    addresses: Vec<((bool, u128), usize, &'a WorkloadId)>,
}

impl<'a> Population<'a> {
    pub(super) fn of(inventory: &'a Inventory) -> Self {
        let mut population = Self {
            groups: Vec::new(),
            by_namespace: BTreeMap::new(),
            by_label: HashMap::new(),
            by_key: HashMap::new(),
            declared: BTreeSet::new(),
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
                group.ports.extend(ports.clone());
                population.declared.extend(ports);
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
        for (key, value) in workload.labels.iter() {
            self.by_label.entry((key, value)).or_default().push(index);
            self.by_key.entry(key).or_default().push(index);
        }
        index
    }

    /// True if any workload declares the port.
    pub(super) fn declares(&self, protocol: Option<Protocol>, name: &PortName) -> bool {
        has_port(&self.declared, protocol, name)
    }

    /// The groups that a policy selects.
    pub(super) fn subjects<'s>(
        &'s self,
        policy: &'s Policy,
    ) -> impl Iterator<Item = &'s Group<'a>> {
        let own = match &policy.scope {
            Scope::Namespace(namespace) => Within::One(namespace),
            Scope::Cluster { namespaces, .. } => Within::Like(namespaces),
        };
        self.candidates(own, Some(&policy.subject)).filter(|group| {
            let namespace = group.namespace;
            policy.selects(namespace.name(), namespace.labels(), group.labels)
        })
    }

    /// The groups that a peer matches by identity; `None` for a peer by address.
    pub(super) fn peers<'s>(
        &'s self,
        peer: &'s Peer,
    ) -> Option<impl Iterator<Item = &'s Group<'a>>> {
        let Peer::Workloads {
            namespaces,
            pods,
            service_account,
        } = peer
        else {
            return None;
        };
        let own = match namespaces {
            NamespaceMatch::Own(namespace) => Within::One(namespace),
            NamespaceMatch::Selector(selector) => Within::Like(selector),
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

    /// A superset of the matching groups: the smallest that an index yields.
    fn candidates<'s>(
        &'s self,
        within: Within<'s>,
        pods: Option<&'s LabelSelector>,
    ) -> impl Iterator<Item = &'s Group<'a>> {
        let requirements = pods.map(LabelSelector::requirements).unwrap_or_default();
        let by_label = requirements
            .iter()
            .filter_map(|requirement| self.with_label(requirement));
        let here = self.in_namespaces(within);
        let size = |lists: &Vec<&[usize]>| lists.iter().map(|list| list.len()).sum::<usize>();
        let narrowed = by_label.chain(here).min_by_key(size);
        let every = narrowed.is_none().then(|| self.groups.iter());
        let some = narrowed.unwrap_or_default().into_iter().flatten();
        every
            .into_iter()
            .flatten()
            .chain(some.filter_map(|index| self.groups.get(*index)))
    }

    /// The groups in the namespaces, in disjoint lists; `None` for all.
    fn in_namespaces<'s>(&'s self, within: Within<'s>) -> Option<Vec<&'s [usize]>> {
        match within {
            Within::One(name) => Some(vec![as_slice(self.by_namespace.get(name))]),
            Within::Like(selector) if selector.is_everything() => None,
            Within::Like(selector) => {
                let is_like = |list: &&Vec<usize>| {
                    let group = list.first().and_then(|index| self.groups.get(*index));
                    group.is_some_and(|group| selector.matches(group.namespace.labels()))
                };
                let lists = self.by_namespace.values().filter(is_like);
                Some(lists.map(Vec::as_slice).collect())
            }
        }
    }

    /// The groups that can satisfy a requirement, in disjoint lists, if there is an index for it.
    fn with_label<'s>(&'s self, requirement: &'s Requirement) -> Option<Vec<&'s [usize]>> {
        let key = requirement.key();
        match requirement.operator() {
            Operator::In(values) => {
                let lists = values
                    .iter()
                    .map(|value| as_slice(self.by_label.get(&(key, value.as_str()))));
                Some(lists.collect())
            }
            Operator::Exists => Some(vec![as_slice(self.by_key.get(key))]),
            Operator::NotIn(_) | Operator::DoesNotExist => None,
        }
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

fn as_slice(list: Option<&Vec<usize>>) -> &[usize] {
    list.map(Vec::as_slice).unwrap_or_default()
}
