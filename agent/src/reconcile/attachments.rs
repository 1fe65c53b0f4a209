//! Which interfaces each workload of this node has, and why one has no fence.
//!
//! Pure. Invariants: an interface belongs to at most one workload; one that is unsuitable gets no fence;
//! every workload that names an interface is accounted for, whether that exists or not.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Inventory, WorkloadId},
    source::interfaces::{Links, Unsuitable},
};

use super::WorkloadInterfaces;

/// Why a workload of this node has no fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfenced {
    /// No interface has the name.
    #[error("no interface has this name or alternative name in the agent's network namespace")]
    Missing,
    /// The interface gets no fence.
    #[error("it gets no fence: {0}")]
    Unsuitable(#[from] Unsuitable),
    /// Nothing is attached to it yet.
    #[error("the fence is not attached; if this lasts, the last error says why")]
    NotAttached,
}

impl Unfenced {
    /// The label values of the metric.
    pub const REASONS: [&'static str; 3] = ["missing", "unsuitable", "not-attached"];

    /// The label value of the metric.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unsuitable(_) => "unsuitable",
            Self::NotAttached => "not-attached",
        }
    }
}

/// A workload that names an interface of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// The interface's name in the inventory.
    pub interface: String,
    /// The indices of its interfaces.
    pub ifindices: BTreeSet<u32>,
    /// Why it has no fence, or not on all of them.
    pub unfenced: Option<Unfenced>,
}

/// Every workload that names an interface of this node.
pub type Presences = BTreeMap<WorkloadId, Presence>;

/// Which workload each interface belongs to.
#[derive(Default)]
pub(super) struct Attachments {
    wanted: WorkloadInterfaces,
    bound: BTreeMap<u32, WorkloadId>,
}

impl Attachments {
    /// Updates to an inventory and a list of links.
    pub(super) fn bind(&mut self, inventory: &Inventory, links: &Links) {
        let wanted = self.wanted.update(inventory);
        self.bound.clear();
        for (workload, interface) in wanted {
            if let Some(ifindex) = links.named(interface) {
                self.bound.insert(ifindex, workload.clone());
            }
        }
    }

    /// The interfaces that get a fence, with their workloads.
    pub(super) fn suitable(&self, links: &Links) -> impl Iterator<Item = (u32, &WorkloadId)> {
        let bound = self
            .bound
            .iter()
            .map(|(ifindex, workload)| (*ifindex, workload));
        bound.filter(|(ifindex, _)| links.unsuitable(*ifindex).is_none())
    }

    /// The workloads that name an interface, given those with a fence.
    pub(super) fn presences(&self, links: &Links, fenced: &BTreeSet<u32>) -> Presences {
        let mut presences: Presences = BTreeMap::new();
        for (workload, interface) in self.wanted.current() {
            let presence = Presence {
                interface: interface.clone(),
                ifindices: BTreeSet::new(),
                unfenced: Some(Unfenced::Missing),
            };
            presences.insert(workload.clone(), presence);
        }
        for (ifindex, workload) in &self.bound {
            let Some(presence) = presences.get_mut(workload) else {
                continue;
            };
            let is_first = presence.ifindices.is_empty();
            presence.ifindices.insert(*ifindex);
            let unfenced = match links.unsuitable(*ifindex) {
                Some(unsuitable) => Some(unsuitable.into()),
                None => (!fenced.contains(ifindex)).then_some(Unfenced::NotAttached),
            };
            if is_first || unfenced.is_some() {
                presence.unfenced = unfenced;
            }
        }
        presences
    }
}

#[cfg(test)]
mod tests;
