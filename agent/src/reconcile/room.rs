//! Which policies are in force when not all of them fit into the kernel's maps.
//!
//! Pure, except for the question whether a set of policies fits. Invariants: a policy in force makes no
//! room for another one; a removed policy is not in force; namespaces come in the order of what they ask
//! for, the least first, so that one that asks for too much keeps no other from its policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Lockdown, NamespaceName, Needs, Policy, PolicySet};

/// The most questions about the policies of one namespace.
const MAX_TRIALS: usize = 24;

/// A policy without room in the kernel's maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "policy {} does not fit into the kernel's maps together with the others: {}; expected fewer rules, peers and \
     ports, or larger maps under [maps] in the configuration", policy.id(), self.outcome()
)]
pub struct WithoutRoom {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Whether an earlier version of it is in force.
    pub has_earlier: bool,
}

impl WithoutRoom {
    const fn outcome(&self) -> &'static str {
        if self.has_earlier {
            "its earlier version stays in force"
        } else {
            "it is not in force, and its subjects are locked down where the namespace is in enforce mode"
        }
    }
}

/// The subjects of the policies of which no earlier version is in force.
pub(super) fn locked(without_room: &[WithoutRoom]) -> Vec<Lockdown> {
    let new = without_room.iter().filter(|it| !it.has_earlier);
    new.map(|it| Lockdown::of(&it.policy)).collect()
}

/// The policies that fit.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) policies: Arc<PolicySet>,
    pub(super) without_room: Vec<WithoutRoom>,
}

/// The new and changed policies of one namespace, or of the cluster.
type Group<'a> = Vec<&'a Arc<Policy>>;

/// Chooses the policies that fit along with those in force; `None` if not even these do.
pub(super) fn choose(
    in_force: &PolicySet,
    desired: &PolicySet,
    fits: impl FnMut(&Arc<PolicySet>) -> bool,
) -> Option<Chosen> {
    let kept = in_force.policies.iter();
    let kept = kept.filter(|(id, _)| desired.policies.contains_key(*id));
    let kept = kept.map(|(id, policy)| (id.clone(), Arc::clone(policy)));
    let mut search = Search {
        fits,
        chosen: Arc::new(PolicySet {
            policies: kept.collect(),
        }),
        trials: 0,
        without_room: Vec::new(),
    };
    if !(search.fits)(&search.chosen) {
        return None;
    }
    search.choose_groups(&changed(&search.chosen.clone(), desired));
    Some(Chosen {
        policies: search.chosen,
        without_room: search.without_room,
    })
}

/// What differs from the policies in force, by namespace: the cluster's first, then those of the
/// namespaces that need the fewest rows.
fn changed<'a>(in_force: &PolicySet, desired: &'a PolicySet) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<Option<&NamespaceName>, (u64, Group<'a>)> = BTreeMap::new();
    for (id, policy) in &desired.policies {
        let (rows, group) = groups.entry(id.namespace.as_ref()).or_default();
        *rows = rows.saturating_add(Needs::of(policy).rows);
        if in_force.policies.get(id) != Some(policy) {
            group.push(policy);
        }
    }
    let cluster = groups.remove(&None);
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|(rows, _)| *rows);
    let groups = cluster.into_iter().chain(groups).map(|(_, group)| group);
    groups.filter(|group| !group.is_empty()).collect()
}

struct Search<F> {
    fits: F,
    chosen: Arc<PolicySet>,
    /// Questions about the policies of the present namespace.
    trials: usize,
    without_room: Vec<WithoutRoom>,
}

impl<F: FnMut(&Arc<PolicySet>) -> bool> Search<F> {
    fn choose_groups(&mut self, groups: &[Group<'_>]) {
        let all: Group<'_> = groups.iter().flatten().copied().collect();
        match groups {
            [] => {}
            [group] => {
                self.trials = 0;
                self.choose_policies(group);
            }
            _ if self.adds(&all) => {}
            _ => {
                let (first, rest) = groups.split_at(groups.len() / 2);
                self.choose_groups(first);
                self.choose_groups(rest);
            }
        }
    }

    fn choose_policies(&mut self, policies: &[&Arc<Policy>]) {
        self.trials += 1;
        if self.trials <= MAX_TRIALS && self.adds(policies) {
            return;
        }
        if policies.len() > 1 && self.trials < MAX_TRIALS {
            let (first, rest) = policies.split_at(policies.len() / 2);
            self.choose_policies(first);
            self.choose_policies(rest);
            return;
        }
        let without_room = policies.iter().map(|policy| WithoutRoom {
            policy: Arc::clone(policy),
            has_earlier: self.chosen.policies.contains_key(&policy.id()),
        });
        self.without_room.extend(without_room);
    }

    /// Takes these policies in if they fit.
    fn adds(&mut self, policies: &[&Arc<Policy>]) -> bool {
        let mut with = PolicySet::clone(&self.chosen);
        for policy in policies {
            with.policies.insert(policy.id(), Arc::clone(policy));
        }
        let with = Arc::new(with);
        let fits = (self.fits)(&with);
        if fits {
            self.chosen = with;
        }
        fits
    }
}

#[cfg(test)]
mod tests;
