//! All possible ends of a flow, in groups that the compiled tables treat alike.
//!
//! Invariants: members of a group have the same table and, address by address, the same classes in
//! every policy set, so a verdict for one holds for all. A group does not span namespaces.
//! Addresses that belong to neither workload nor node are `world`, with one group for each prefix
//! in the policies, or in a special range or one of the cluster, with one group for all of them that have
//! the same classes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfence_common::ids::{ClassId, TableId};
use serde::Serialize;

use super::{
    evaluate::Evaluator,
    inventory_reduction::{PolicyFeatures, ReducedInventory},
};
use crate::model::{Inventory, NamedPort, NamespaceName, Unlisted, Workload, WorkloadId};

/// How many members of a group are listed in JSON.
const LISTED: usize = 5;
/// How many labels that all members share are shown.
const SHARED: usize = 3;

/// What a group consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupKind {
    /// Workloads of one namespace.
    Workloads,
    /// This node.
    Host,
    /// Other nodes.
    RemoteNode,
    /// Neither workload nor node, outside the cluster.
    World,
    /// Neither workload nor node, in special ranges.
    Special,
    /// Neither workload nor node, in ranges of the cluster.
    Cluster,
}

/// The name of a group in output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GroupName {
    /// What it is.
    pub kind: GroupKind,
    /// Name for display.
    pub name: String,
    /// How many workloads, nodes or ranges it has; 0 for the world.
    pub count: usize,
    /// The first members.
    pub members: Vec<String>,
}

impl fmt::Display for GroupName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

/// One address of a member as peers see it: its family and its class in each policy set.
pub(crate) type Face<const N: usize> = (bool, [ClassId; N]);

/// Ends of flows that `N` policy sets treat alike.
pub(crate) struct Group<const N: usize> {
    pub(crate) kind: GroupKind,
    pub(crate) tables: [Option<TableId>; N],
    pub(crate) faces: BTreeSet<Face<N>>,
    pub(crate) members: Vec<WorkloadId>,
    /// Ports that members declare.
    pub(crate) ports: BTreeSet<NamedPort>,
    pub(crate) name: GroupName,
}

/// One compiled policy set over one inventory.
#[derive(Clone, Copy)]
pub(crate) struct Set<'a> {
    pub(crate) evaluator: &'a Evaluator,
    pub(crate) inventory: &'a Inventory,
    pub(crate) reduced: &'a ReducedInventory,
}

/// All groups: workloads that are in every set, by namespace; then nodes; then the world.
pub(crate) fn groups<const N: usize>(
    sets: [Set<'_>; N],
    features: &PolicyFeatures,
) -> Vec<Group<N>> {
    let mut groups = workloads(sets);
    groups.extend(nodes(sets));
    groups.extend(world(sets, features));
    groups
}

type Key<'a, const N: usize> = (&'a NamespaceName, [Option<TableId>; N], BTreeSet<Face<N>>);

fn workloads<const N: usize>(sets: [Set<'_>; N]) -> Vec<Group<N>> {
    let Some(first) = sets.first() else {
        return Vec::new();
    };
    let mut by_kind: HashMap<[&WorkloadId; N], Vec<&Workload>> = HashMap::new();
    for (id, workload) in &first.inventory.workloads {
        let kinds = sets.map(|set| set.reduced.stands_for.get(id));
        if kinds.iter().any(Option::is_none) {
            continue;
        }
        by_kind
            .entry(kinds.map(|kind| kind.unwrap_or(id)))
            .or_default()
            .push(workload);
    }
    let mut grouped: BTreeMap<Key<'_, N>, Vec<&Workload>> = BTreeMap::new();
    for (kinds, members) in by_kind {
        let Some(one) = members.first() else {
            continue;
        };
        let mut at = sets.iter().zip(kinds);
        let tables = [(); N].map(|()| {
            let (set, kind) = at.next()?;
            set.evaluator.table(kind)
        });
        let key = (&one.id.namespace, tables, faces(sets, kinds));
        grouped.entry(key).or_default().extend(members);
    }
    let mut groups: Vec<Group<N>> = grouped
        .into_iter()
        .map(|((_, tables, faces), mut members)| {
            members.sort_by_key(|workload| &workload.id);
            Group {
                kind: GroupKind::Workloads,
                tables,
                faces,
                name: name(&members),
                ports: members
                    .iter()
                    .flat_map(|w| w.ports.iter().cloned())
                    .collect(),
                members: members.iter().map(|workload| workload.id.clone()).collect(),
            }
        })
        .collect();
    groups.sort_by(|one, other| one.members.first().cmp(&other.members.first()));
    groups
}

/// The classes of a representative's addresses, address by address.
fn faces<const N: usize>(sets: [Set<'_>; N], kinds: [&WorkloadId; N]) -> BTreeSet<Face<N>> {
    let mut faces = BTreeSet::new();
    for v6 in [false, true] {
        let mut at = sets.iter().zip(kinds);
        let classes: [Vec<ClassId>; N] = [(); N].map(|()| {
            let Some((set, kind)) = at.next() else {
                return Vec::new();
            };
            let workload = set.inventory.workload(kind);
            let addresses = workload.map_or(&[][..], |workload| workload.addresses.as_slice());
            let own = addresses.iter().filter(|address| address.is_ipv6() == v6);
            own.map(|address| set.evaluator.class_of(*address))
                .collect()
        });
        let longest = classes.iter().map(Vec::len).min().unwrap_or(0);
        for place in 0..longest {
            let face = classes
                .each_ref()
                .map(|of| of.get(place).copied().unwrap_or_default());
            faces.insert((v6, face));
        }
    }
    faces
}

fn name(members: &[&Workload]) -> GroupName {
    let listed: Vec<String> = members
        .iter()
        .take(LISTED)
        .map(|workload| workload.id.to_string())
        .collect();
    let first = listed.first().cloned().unwrap_or_default();
    let name = match members.split_first() {
        Some((one, rest)) if !rest.is_empty() => {
            let shared: Vec<String> = one
                .labels
                .iter()
                .filter(|(key, value)| rest.iter().all(|w| w.labels.get(key) == Some(*value)))
                .take(SHARED)
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let labels = if shared.is_empty() {
                String::new()
            } else {
                format!(" ({})", shared.join(","))
            };
            format!("{first} and {} more{labels}", rest.len())
        }
        _ => first,
    };
    GroupName {
        kind: GroupKind::Workloads,
        name,
        count: members.len(),
        members: listed,
    }
}

fn nodes<const N: usize>(sets: [Set<'_>; N]) -> Vec<Group<N>> {
    let Some(first) = sets.first() else {
        return Vec::new();
    };
    let mut grouped: BTreeMap<(GroupKind, BTreeSet<Face<N>>), Vec<String>> = BTreeMap::new();
    for node in first.inventory.nodes.values() {
        let kind = if node.local {
            GroupKind::Host
        } else {
            GroupKind::RemoteNode
        };
        let face = |address: &IpAddr| {
            let classes = sets.map(|set| set.evaluator.class_of(*address));
            (address.is_ipv6(), classes)
        };
        let faces = node.addresses.iter().map(face).collect();
        let members = grouped.entry((kind, faces)).or_default();
        members.push(node.name.to_string());
    }
    let group = |((kind, faces), members): ((GroupKind, BTreeSet<Face<N>>), Vec<String>)| {
        let first = members.first().cloned().unwrap_or_default();
        let what = if kind == GroupKind::Host {
            "this node"
        } else {
            "node"
        };
        let more = match members.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let name = format!("{what} {first}{more}");
        outsider(kind, faces, name, members)
    };
    grouped.into_iter().map(group).collect()
}

fn world<const N: usize>(sets: [Set<'_>; N], features: &PolicyFeatures) -> Vec<Group<N>> {
    let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let face = |net: &IpNet| {
        let classes = sets.map(|set| set.evaluator.class_within(*net));
        (matches!(net, IpNet::V6(_)), classes)
    };
    let elsewhere = everything.iter().map(face).collect();
    let mut groups = vec![outsider(
        GroupKind::World,
        elsewhere,
        "world".to_owned(),
        Vec::new(),
    )];
    let network = sets.first().map(|set| &set.inventory.network);
    let mut nets = features.prefixes();
    nets.extend(network.iter().flat_map(|network| network.ranges()));
    let mut alike: BTreeMap<(GroupKind, [ClassId; N]), Vec<IpNet>> = BTreeMap::new();
    for net in nets {
        let kind = match network.map_or(Unlisted::World, |network| network.unlisted(&net)) {
            Unlisted::Special(_) => GroupKind::Special,
            Unlisted::Cluster => GroupKind::Cluster,
            Unlisted::Own => GroupKind::Host,
            Unlisted::World if net.prefix_len() == 0 => continue,
            Unlisted::World => {
                let faces = BTreeSet::from([face(&net)]);
                let name = format!("world in {net}");
                groups.push(outsider(GroupKind::World, faces, name, Vec::new()));
                continue;
            }
        };
        let (_, classes) = face(&net);
        alike.entry((kind, classes)).or_default().push(net);
    }
    for ((kind, _), nets) in alike {
        let faces = nets.iter().map(face).collect();
        let what = match kind {
            GroupKind::Special => "special range",
            GroupKind::Host => "this node in",
            _ => "unlisted in",
        };
        let first = nets.first().map(IpNet::to_string).unwrap_or_default();
        let more = match nets.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let members = nets.iter().map(IpNet::to_string).collect();
        groups.push(outsider(
            kind,
            faces,
            format!("{what} {first}{more}"),
            members,
        ));
    }
    groups
}

fn outsider<const N: usize>(
    kind: GroupKind,
    faces: BTreeSet<Face<N>>,
    name: String,
    members: Vec<String>,
) -> Group<N> {
    Group {
        kind,
        tables: [None; N],
        faces,
        members: Vec::new(),
        ports: BTreeSet::new(),
        name: GroupName {
            kind,
            name,
            count: members.len(),
            members: members.into_iter().take(LISTED).collect(),
        },
    }
}

impl<const N: usize> Group<N> {
    /// The pairs of classes (originator's, responder's) with which two groups meet.
    pub(crate) fn meet(&self, other: &Self) -> Vec<([ClassId; N], [ClassId; N])> {
        let mut pairs = Vec::new();
        for (v6, own) in &self.faces {
            for (its, theirs) in &other.faces {
                let pair = (*own, *theirs);
                if v6 == its && !pairs.contains(&pair) {
                    pairs.push(pair);
                }
            }
        }
        pairs
    }
}
