//! Workload kinds: workloads that no possible policy can distinguish share one `WorkloadKind`.
//!
//! Invariants: a kind exists while a workload has it; its number is not reused. A kind has the
//! labels and the service account that policies name, and no others. The ports that kinds declare
//! are counted, because a named egress port may refer to any of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, Hash as _, Hasher as _, RandomState},
    sync::Arc,
};

use super::{identity::WorkloadKind, named_properties::FlippedProperties};
use crate::model::{Inventory, Labels, NamedPort, NamespaceName, ServiceAccountName, Workload};

/// The number of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KindNumber(u64);

struct Known {
    number: KindNumber,
    kind: Arc<WorkloadKind>,
    workloads: usize,
}

/// All workload kinds.
#[derive(Default)]
pub(crate) struct WorkloadKinds {
    namespaces: BTreeMap<NamespaceName, Arc<Labels>>,
    /// The label keys that policies name.
    keys: HashSet<String>,
    /// The service accounts that policies name.
    accounts: HashSet<ServiceAccountName>,
    hashing: RandomState,
    /// By the hash of the workload's own properties.
    known: HashMap<u64, Vec<Known>>,
    next: u64,
    declaring: BTreeMap<NamedPort, usize>,
    /// Every port that any kind declares.
    pub(crate) declared: BTreeSet<NamedPort>,
    /// Whether declared ports changed since this was last set to false.
    pub(crate) declares_others: bool,
}

impl WorkloadKinds {
    /// Sets the labels of namespaces for workloads added from now on; `before` is the inventory of the
    /// last call.
    pub(crate) fn set_namespace_labels(&mut self, before: &Inventory, now: &Inventory) {
        now.namespaces.since(&before.namespaces, |change| {
            match change.new {
                Some(namespace) => {
                    let labels = Arc::new(namespace.labels().clone());
                    self.namespaces.insert(change.key.clone(), labels)
                }
                None => self.namespaces.remove(change.key),
            };
        });
    }

    /// Changes which properties are named, for workloads added from now on. Workloads with one that
    /// flipped must have been removed.
    pub(crate) fn set_named(&mut self, flipped: &FlippedProperties) {
        for key in &flipped.keys {
            if !self.keys.remove(key) {
                self.keys.insert(key.clone());
            }
        }
        for account in &flipped.accounts {
            if !self.accounts.remove(account) {
                self.accounts.insert(account.clone());
            }
        }
    }

    fn named_labels<'a>(&self, workload: &'a Workload) -> impl Iterator<Item = (&'a str, &'a str)> {
        let labels = workload.labels.iter();
        labels.filter(|(key, _)| self.keys.contains(*key))
    }

    fn named_account<'a>(&self, workload: &'a Workload) -> Option<&'a ServiceAccountName> {
        let account = &workload.service_account;
        self.accounts.contains(account).then_some(account)
    }

    fn hash(&self, workload: &Workload) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        workload.id.namespace.hash(&mut hasher);
        for label in self.named_labels(workload) {
            label.hash(&mut hasher);
        }
        self.named_account(workload).hash(&mut hasher);
        hasher.finish()
    }

    fn place(&self, hash: u64, workload: &Workload) -> Option<usize> {
        let alike = |known: &Known| self.has_kind(&known.kind, workload);
        self.known.get(&hash)?.iter().position(alike)
    }

    fn has_kind(&self, kind: &WorkloadKind, workload: &Workload) -> bool {
        let ports = &workload.ports;
        let labels = self.namespaces.get(&workload.id.namespace);
        kind.namespace == workload.id.namespace
            && kind.labels.iter().eq(self.named_labels(workload))
            && kind.service_account.as_ref() == self.named_account(workload)
            && kind.ports.len() == ports.len()
            && ports.iter().all(|port| kind.ports.contains(port))
            && labels.map_or(kind.namespace_labels.is_empty(), |labels| {
                Arc::ptr_eq(labels, &kind.namespace_labels) || *labels == kind.namespace_labels
            })
    }

    /// The kind of a workload that was added.
    pub(crate) fn of(&self, workload: &Workload) -> Option<(KindNumber, &Arc<WorkloadKind>)> {
        let hash = self.hash(workload);
        let place = self.place(hash, workload)?;
        let known = self.known.get(&hash)?.get(place)?;
        Some((known.number, &known.kind))
    }

    /// Adds a workload to its kind.
    pub(crate) fn add(&mut self, workload: &Workload) -> (KindNumber, Arc<WorkloadKind>) {
        let hash = self.hash(workload);
        let place = self.place(hash, workload);
        let known = self.known.get_mut(&hash);
        if let Some(known) = known.and_then(|alike| alike.get_mut(place?)) {
            known.workloads += 1;
            return (known.number, Arc::clone(&known.kind));
        }
        let number = KindNumber(self.next);
        self.next += 1;
        let namespace = workload.id.namespace.clone();
        let mut ports = workload.ports.clone();
        ports.sort_unstable();
        let kind = Arc::new(WorkloadKind {
            namespace_labels: self.namespaces.get(&namespace).cloned().unwrap_or_default(),
            namespace,
            labels: workload.labels.with_keys(|key| self.keys.contains(key)),
            service_account: self.named_account(workload).cloned(),
            ports,
        });
        self.known.entry(hash).or_default().push(Known {
            number,
            kind: Arc::clone(&kind),
            workloads: 1,
        });
        for port in &kind.ports {
            let count = self.declaring.entry(port.clone()).or_default();
            *count += 1;
            if *count == 1 {
                self.declares_others |= self.declared.insert(port.clone());
            }
        }
        (number, kind)
    }

    /// Removes a workload that was added with these labels of its namespace and these named
    /// properties.
    pub(crate) fn remove(&mut self, workload: &Workload) {
        let hash = self.hash(workload);
        let Some(place) = self.place(hash, workload) else {
            return;
        };
        let Some(alike) = self.known.get_mut(&hash) else {
            return;
        };
        let Some(known) = alike.get_mut(place) else {
            return;
        };
        known.workloads -= 1;
        if known.workloads > 0 {
            return;
        }
        let gone = alike.swap_remove(place);
        if alike.is_empty() {
            self.known.remove(&hash);
        }
        for port in &gone.kind.ports {
            let Some(count) = self.declaring.get_mut(port) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.declaring.remove(port);
                self.declares_others |= self.declared.remove(port);
            }
        }
    }
}
