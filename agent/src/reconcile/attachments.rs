//! Which interfaces each workload of this node has, and why one has no fence.
//!
//! Pure. Invariants: an interface belongs to at most one workload, and stays with it under any name as long
//! as it is in the agent's network namespace, unless its name is another workload's; one that is unsuitable
//! gets no fence, and a default route takes none off; every workload that names an interface is accounted
//! for, whether that exists or not.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_common::endpoint::Endpoint;

use crate::{
    model::{Inventory, WorkloadId},
    policy::own_addresses,
    source::interfaces::{Links, Unsuitable},
};

use super::{Degraded, WorkloadInterfaces};

/// Why a workload of this node has no fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfenced {
    /// No interface has the name.
    #[error("no interface has this name or alternative name in the agent's network namespace")]
    Missing,
    /// The interface left for another network namespace.
    #[error(
        "it moved to another network namespace, where it has no fence: move it back, or create \
         another one for the workload"
    )]
    Left,
    /// The interface gets no fence.
    #[error("it gets no fence: {0}")]
    Unsuitable(#[from] Unsuitable),
    /// Nothing is attached to it.
    #[error("the fence is not attached")]
    NotAttached,
}

impl Unfenced {
    /// The label values of the metric.
    pub const REASONS: [&'static str; 4] = ["missing", "left", "unsuitable", "not-attached"];

    /// The label value of the metric.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Left => "left",
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
    /// Why the fence could not be attached.
    pub error: Option<String>,
    /// Why the fence may not do what was asked for.
    pub degraded: Option<Degraded>,
}

impl Presence {
    /// Whether each of its interfaces has a fence.
    #[must_use]
    pub const fn is_fenced(&self) -> bool {
        self.unfenced.is_none()
    }

    /// Whether it has its fence, and that does what was asked for.
    #[must_use]
    pub const fn is_in_order(&self) -> bool {
        self.is_fenced() && self.degraded.is_none()
    }

    /// Why it has no fence, with the error if there is one.
    #[must_use]
    pub fn why_unfenced(&self) -> Option<String> {
        let unfenced = self.unfenced?;
        Some(match &self.error {
            Some(error) => format!("{unfenced}: {error}"),
            None => unfenced.to_string(),
        })
    }

    /// Why its fence may not do what was asked for.
    #[must_use]
    pub fn why_degraded(&self) -> Option<String> {
        self.degraded.as_ref().map(ToString::to_string)
    }
}

/// What is attached to interfaces.
#[derive(Clone, Copy)]
pub(super) struct Fences<'a> {
    /// Those with a fence.
    pub(super) attached: &'a BTreeSet<u32>,
    /// Those of them that may not do what was asked for.
    pub(super) degraded: &'a BTreeMap<u32, Degraded>,
    /// Why others have none.
    pub(super) failures: &'a BTreeMap<u32, String>,
}

/// Every workload that names an interface of this node.
pub type Presences = BTreeMap<WorkloadId, Presence>;

/// Which workload each interface belongs to.
#[derive(Default)]
pub(super) struct Attachments {
    wanted: WorkloadInterfaces,
    bound: BTreeMap<u32, Binding>,
    /// The interfaces that workloads without one had last.
    lost: BTreeMap<u32, Lost>,
    /// Whether the records found at the start were looked at.
    is_adopted: bool,
}

/// Why an interface belongs to a workload.
struct Binding {
    workload: WorkloadId,
    /// What the inventory named when it was bound.
    interface: String,
    /// It is known by its record only, not by a name.
    is_adopted: bool,
}

/// An interface that is no longer in the agent's network namespace.
struct Lost {
    workload: WorkloadId,
    /// The kernel said that it left for another one. A list of links can lack an interface before that
    /// notice comes.
    has_left: bool,
}

impl Attachments {
    /// Updates to an inventory and a list of links, given the endpoint records in the kernel.
    pub(super) fn bind(
        &mut self,
        inventory: &Inventory,
        links: &Links,
        records: &BTreeMap<u32, Endpoint>,
    ) {
        let wanted = self.wanted.update(inventory);
        for (ifindex, binding) in &self.bound {
            if links.get(*ifindex).is_none() {
                let lost = Lost {
                    workload: binding.workload.clone(),
                    has_left: false,
                };
                self.lost.insert(*ifindex, lost);
            }
        }
        for (ifindex, lost) in &mut self.lost {
            lost.has_left |= links.has_left(*ifindex);
        }
        self.bound.retain(|ifindex, binding| {
            let is_wanted = wanted.get(&binding.workload) == Some(&binding.interface);
            let is_replaced = binding.is_adopted && links.named(&binding.interface).is_some();
            links.get(*ifindex).is_some() && is_wanted && !is_replaced
        });
        for (workload, interface) in wanted {
            if let Some(ifindex) = links.named(interface) {
                let binding = Binding {
                    workload: workload.clone(),
                    interface: interface.clone(),
                    is_adopted: false,
                };
                self.bound.insert(ifindex, binding);
            }
        }
        if !self.is_adopted {
            self.is_adopted = true;
            let adopted = self.adopted(inventory, links, records);
            self.bound.extend(adopted);
        }
        let bound = || self.bound.values().map(|binding| &binding.workload);
        self.lost.retain(|ifindex, Lost { workload, .. }| {
            links.get(*ifindex).is_none()
                && self.wanted.current().contains_key(workload)
                && !bound().any(|it| it == workload)
        });
    }

    /// The interfaces that were renamed before the agent's start: no workload has their name, but their
    /// record has the addresses of one whose interface is missing.
    fn adopted(
        &self,
        inventory: &Inventory,
        links: &Links,
        records: &BTreeMap<u32, Endpoint>,
    ) -> Vec<(u32, Binding)> {
        let unnamed = |(ifindex, _): &(&u32, &Endpoint)| {
            links.get(**ifindex).is_some() && !self.bound.contains_key(ifindex)
        };
        let mut adopted = Vec::new();
        for (ifindex, record) in records.iter().filter(unnamed) {
            let owner = self.wanted.current().iter().find(|(workload, interface)| {
                let workload = inventory.workload(workload);
                let has_addresses = workload.is_some_and(|it| {
                    let own = own_addresses(inventory, it);
                    own != Default::default() && own == (record.ip4, record.ip6)
                });
                has_addresses && links.named(interface).is_none()
            });
            if let Some((workload, interface)) = owner {
                let binding = Binding {
                    workload: workload.clone(),
                    interface: interface.clone(),
                    is_adopted: true,
                };
                adopted.push((*ifindex, binding));
            }
        }
        adopted
    }

    /// The interfaces that get or keep a fence, with their workloads, given the endpoint records in the
    /// kernel.
    pub(super) fn suitable<'a>(
        &'a self,
        links: &'a Links,
        records: &'a BTreeMap<u32, Endpoint>,
    ) -> impl Iterator<Item = (u32, &'a WorkloadId)> {
        let bound = self.bound.iter();
        let bound = bound.map(|(ifindex, binding)| (*ifindex, &binding.workload));
        bound.filter(|(ifindex, _)| match links.unsuitable(*ifindex) {
            None => true,
            Some(unsuitable) => unsuitable.keeps_a_fence() && records.contains_key(ifindex),
        })
    }

    /// The workloads that name an interface, given what is attached.
    pub(super) fn presences(&self, links: &Links, fences: &Fences<'_>) -> Presences {
        let mut presences: Presences = BTreeMap::new();
        for (workload, interface) in self.wanted.current() {
            let presence = Presence {
                interface: interface.clone(),
                unfenced: Some(Unfenced::Missing),
                ..Presence::default()
            };
            presences.insert(workload.clone(), presence);
        }
        for Lost { workload, .. } in self.lost.values().filter(|lost| lost.has_left) {
            if let Some(presence) = presences.get_mut(workload) {
                presence.unfenced = Some(Unfenced::Left);
            }
        }
        for (ifindex, binding) in &self.bound {
            let Some(presence) = presences.get_mut(&binding.workload) else {
                continue;
            };
            let is_first = presence.ifindices.is_empty();
            presence.ifindices.insert(*ifindex);
            let unfenced = match links.unsuitable(*ifindex) {
                _ if fences.attached.contains(ifindex) => None,
                Some(unsuitable) => Some(unsuitable.into()),
                None => Some(Unfenced::NotAttached),
            };
            if is_first || unfenced.is_some() {
                presence.unfenced = unfenced;
            }
            if unfenced == Some(Unfenced::NotAttached) {
                presence.error = fences.failures.get(ifindex).cloned();
            }
            if let Some(degraded) = fences.degraded.get(ifindex) {
                presence.degraded = Some(degraded.clone());
            }
        }
        presences
    }
}

#[cfg(test)]
mod tests;
