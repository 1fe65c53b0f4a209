//! Reduces an inventory to one representative for each set of workloads that no given policy
//! distinguishes.
//!
//! Invariants: workloads with the same representative have the same namespace, the same values of
//! every label key in the policies, the same service account (if policies select by it), the same
//! declared ports, and lie in the same policy prefixes. So every verdict for the representative
//! holds for all of them. Labels that are in no policy, such as labels unique to a pod, are
//! ignored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    cidr::Prefixes,
    named_properties::{Named, named_in_policy},
};
use crate::model::{
    Inventory, NamedPort, NamespaceName, PolicySet, ServiceAccountName, Workload, WorkloadId,
};
use crate::ordmap::Map;

/// The workload properties that policies select by.
#[derive(Debug, Clone, Default)]
pub(crate) struct PolicyFeatures {
    keys: BTreeSet<String>,
    accounts: bool,
    prefixes: Vec<Prefixes>,
}

impl PolicyFeatures {
    /// The properties that any of these policy sets selects by.
    pub(crate) fn of(sets: &[&PolicySet]) -> Self {
        let mut features = Self::default();
        for set in sets {
            features.prefixes.push(Prefixes::of(set));
            for named in set.iter().flat_map(|policy| named_in_policy(policy)) {
                match named {
                    Named::Key(key) => _ = features.keys.insert(key.to_owned()),
                    Named::Account(_) => features.accounts = true,
                }
            }
        }
        features
    }

    /// Every prefix in the policies.
    pub(crate) fn prefixes(&self) -> BTreeSet<IpNet> {
        self.prefixes
            .iter()
            .flat_map(|p| p.iter().copied())
            .collect()
    }

    fn kind<'w>(&'w self, workload: &'w Workload) -> Kind<'w> {
        let labels = workload.labels.iter();
        let mut ports = workload.ports.clone();
        ports.sort_unstable();
        Kind {
            namespace: &workload.id.namespace,
            labels: labels.filter(|(key, _)| self.keys.contains(*key)).collect(),
            account: self.accounts.then_some(&workload.service_account),
            ports,
            faces: workload
                .addresses
                .iter()
                .map(|address| {
                    let around = self.prefixes.iter().map(|p| p.containing(*address));
                    (address.is_ipv6(), around.collect())
                })
                .collect(),
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Kind<'w> {
    namespace: &'w NamespaceName,
    labels: Vec<(&'w str, &'w str)>,
    account: Option<&'w ServiceAccountName>,
    ports: Vec<NamedPort>,
    faces: Vec<(bool, Vec<Vec<IpNet>>)>,
}

/// An inventory with the representatives only.
pub(crate) struct ReducedInventory {
    pub(crate) inventory: Arc<Inventory>,
    /// The representative of each workload.
    pub(crate) stands_for: BTreeMap<WorkloadId, WorkloadId>,
}

/// Keeps the first workload of each set as its representative.
pub(crate) fn reduce(inventory: &Inventory, features: &PolicyFeatures) -> ReducedInventory {
    let mut known: HashMap<Kind<'_>, &WorkloadId> = HashMap::new();
    let mut stands_for = BTreeMap::new();
    let mut workloads = BTreeMap::new();
    for (id, workload) in &inventory.workloads {
        let first = *known.entry(features.kind(workload)).or_insert_with(|| {
            workloads.insert(id.clone(), Arc::clone(workload));
            id
        });
        stands_for.insert(id.clone(), first.clone());
    }
    ReducedInventory {
        inventory: Arc::new(Inventory {
            services: Map::new(),
            namespaces: inventory.namespaces.clone(),
            workloads: workloads.into_iter().collect(),
            nodes: inventory.nodes.clone(),
            owners: inventory.owners.clone(),
            disputed: inventory.disputed.clone(),
            network: Arc::clone(&inventory.network),
        }),
        stands_for,
    }
}
