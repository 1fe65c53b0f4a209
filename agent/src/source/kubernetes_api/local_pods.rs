//! The pods of this node, and the interface that each of them is behind.
//!
//! Pure. Invariants: an interface is one pod's at most, the most recent one's whose address leads to it; a pod
//! whose object is gone keeps its identity and its fence until its interface is gone, since its processes
//! may still run; a pod that follows it under its name takes that over once it has an interface of its own, or is on
//! another node. The one before it then has another name, which no object can have, and keeps its fence.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::object::{Key, Object};
use super::pod::PodObject;
use crate::model::{Recency, Workload, WorkloadId};

/// How long a pod may have an address without an interface before that is an error: its network is being
/// set up, or taken down.
const GRACE: Duration = Duration::from_secs(2);

/// A pod of this node, or one that follows one of this node under its name.
#[derive(Debug, Default)]
struct LocalPod {
    /// As the API has it.
    current: Option<PodObject>,
    /// Those of this name whose object is gone, and whose interface may be there, the last one last.
    before: Vec<Arc<Workload>>,
    /// Those of them that were delivered under another name.
    outlived: BTreeMap<WorkloadId, Arc<Workload>>,
    /// What was delivered last.
    delivered: Option<Arc<Workload>>,
    /// Since when it has an address, but no interface.
    unreached: Option<Instant>,
}

/// The pods of this node.
#[derive(Debug, Default)]
pub(super) struct LocalPods {
    pods: BTreeMap<WorkloadId, LocalPod>,
    /// The interface that each address is behind.
    pub(super) interfaces: BTreeMap<IpAddr, String>,
    /// The addresses of which it is known whether they have one.
    pub(super) settled: BTreeSet<IpAddr>,
    /// Whether a pod without an interface has its addresses no longer, because nothing but an earlier agent
    /// says so.
    pub(super) have_lapsed: bool,
}

/// Pods whose address leads to no interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unreached {
    /// An error for each.
    pub(super) texts: Vec<String>,
    /// When there may be another one.
    pub(super) next: Option<Instant>,
}

/// Which of several pods an interface belongs to: one that the API has before one that is gone, then the
/// most recent.
type Rank<'a> = (bool, Option<&'a Recency>, &'a WorkloadId);

impl LocalPods {
    /// Notes what a pod is. Returns it if it is and was none of this node.
    pub(super) fn upsert(&mut self, new: PodObject) -> Option<PodObject> {
        let id = &new.workload.id;
        if !new.is_local && !self.pods.contains_key(id) {
            return Some(new);
        }
        let pod = self.pods.entry(id.clone()).or_default();
        if pod.current.as_ref().map(|it| uid(&it.workload)) != Some(uid(&new.workload)) {
            pod.end();
        }
        pod.current = Some(new);
        None
    }

    /// Notes that a pod is gone, or has ended. Returns false if it was none of this node.
    pub(super) fn remove(&mut self, id: &WorkloadId) -> bool {
        let pod = self.pods.get_mut(id);
        pod.map(LocalPod::end).is_some()
    }

    /// The addresses of all of them.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        let workloads = self.pods.values().flat_map(LocalPod::workloads);
        workloads.flat_map(|it| it.addresses.clone()).collect()
    }

    /// Whether it is known of each of them whether it has an interface.
    pub(super) fn are_settled(&self) -> bool {
        self.addresses().is_subset(&self.settled)
    }

    /// The pods without an interface of their own.
    pub(super) fn without_interface(&self) -> Vec<WorkloadId> {
        let owners = self.owners();
        let has_one = |id: &WorkloadId, pod: &LocalPod| {
            let local = pod.local();
            local.is_some_and(|it| owners.contains_key(&(id.clone(), uid(it))))
        };
        let pods = self.pods.iter().filter(|(id, pod)| !has_one(id, pod));
        pods.map(|(id, _)| id.clone()).collect()
    }

    /// What is to be delivered otherwise than before.
    pub(super) fn changes(&mut self) -> Vec<(Key, Option<Object>)> {
        let owners = self.owners();
        let mut changes = Vec::new();
        for (id, pod) in &mut self.pods {
            let with_interface = |workload: &Arc<Workload>| {
                let interface = owners.get(&(id.clone(), uid(workload)))?;
                let interface = Some(interface.clone());
                let workload = Workload::clone(workload);
                Some(Arc::new(Workload {
                    interface,
                    ..workload
                }))
            };
            let current = pod.current.as_ref().map(|it| &it.workload);
            let fenced = current.and_then(with_interface);
            pod.before.retain(|it| with_interface(it).is_some());
            let mut before: Vec<_> = pod.before.iter().filter_map(with_interface).collect();
            let is_elsewhere = pod.current.as_ref().is_some_and(|it| !it.is_local);
            let follows = fenced.is_some() || is_elsewhere;
            let last = if follows { None } else { before.pop() };
            let without = current.map(|it| match self.have_lapsed {
                true => Arc::new(it.lapsed()),
                false => Arc::clone(it),
            });
            let next = fenced.or(last).or(without);
            let outlived: BTreeMap<_, _> = before.iter().map(renamed).collect();
            let gone = pod.outlived.keys().filter(|it| !outlived.contains_key(*it));
            changes.extend(gone.map(|it| (Key::Pod(it.clone()), None)));
            for (id, workload) in &outlived {
                if pod.outlived.get(id) != Some(workload) {
                    let (workload, is_local) = (Arc::clone(workload), true);
                    let object = Object::Pod(PodObject { workload, is_local });
                    changes.push((Key::Pod(id.clone()), Some(object)));
                }
            }
            pod.outlived = outlived;
            // One that is gone may have been delivered before it was one of this node.
            if next.is_some() && next == pod.delivered {
                continue;
            }
            pod.delivered.clone_from(&next);
            let is_local = true;
            let object = next.map(|workload| Object::Pod(PodObject { workload, is_local }));
            changes.push((Key::Pod(id.clone()), object));
        }
        self.pods.retain(|_, pod| {
            let is_local = pod.current.as_ref().is_some_and(|it| it.is_local);
            is_local || !pod.before.is_empty()
        });
        changes
    }

    /// The interface of each pod that has one.
    fn owners(&self) -> BTreeMap<(WorkloadId, Option<Arc<str>>), String> {
        let mut best: BTreeMap<&String, (Rank<'_>, &Arc<Workload>)> = BTreeMap::new();
        for (id, pod) in &self.pods {
            for workload in pod.workloads() {
                let mut found = workload.addresses.iter();
                let found = found.find_map(|address| self.interfaces.get(address));
                let Some(interface) = found else {
                    continue;
                };
                let current = pod.current.as_ref().map(|it| &it.workload);
                let is_current = current == Some(workload);
                let rank = (is_current, workload.recency.as_ref(), id);
                let other = best.get(interface).map(|(rank, _)| *rank);
                if other.is_none_or(|other| other < rank) {
                    best.insert(interface, (rank, workload));
                }
            }
        }
        let owners = best.into_iter();
        owners
            .map(|(interface, (_, it))| ((it.id.clone(), uid(it)), interface.clone()))
            .collect()
    }

    /// The pods that have had an address for some time, and no interface.
    pub(super) fn unreached(&mut self, now: Instant) -> Unreached {
        let mut unreached = Unreached::default();
        for (id, pod) in &mut self.pods {
            let is_delivered = pod.delivered.as_ref();
            let is_reached = is_delivered.is_none_or(|it| it.interface.is_some());
            let address = pod.local().and_then(|it| it.addresses.first().copied());
            let Some(address) = address.filter(|_| !is_reached) else {
                pod.unreached = None;
                continue;
            };
            let due = *pod.unreached.get_or_insert(now) + GRACE;
            if due > now {
                unreached.next = unreached.next.into_iter().chain([due]).min();
                continue;
            }
            unreached.texts.push(format!(
                "pod {id} of this node has no fence: no interface of its own leads to {address}"
            ));
        }
        unreached
    }
}

impl LocalPod {
    /// Its object, if it runs on this node.
    fn local(&self) -> Option<&Arc<Workload>> {
        let current = self.current.as_ref().filter(|it| it.is_local);
        current.map(|it| &it.workload)
    }

    /// The pods whose interface may be here.
    fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.local().into_iter().chain(&self.before)
    }

    /// Notes that its object is gone, or another one.
    fn end(&mut self) {
        let old = self.current.take().filter(|it| it.is_local);
        if let Some(PodObject { workload, .. }) = old
            && !workload.addresses.is_empty()
        {
            self.before.push(workload);
        }
    }
}

/// A pod under a name of its own: that of its object is another one's.
fn renamed(workload: &Arc<Workload>) -> (WorkloadId, Arc<Workload>) {
    let mut workload = Workload::clone(workload);
    let uid = uid(&workload);
    workload.id.name = workload
        .id
        .name
        .outlived(uid.as_deref().unwrap_or_default());
    (workload.id.clone(), Arc::new(workload))
}

/// What tells a pod from others of its name.
fn uid(workload: &Workload) -> Option<Arc<str>> {
    let recency = workload.recency.as_ref()?;
    Some(Arc::clone(&recency.uid))
}

#[cfg(test)]
mod tests;
