//! The policies as objects that come, change and go one by one, each namespace within its budget.
//!
//! Pure. Invariants: a policy in force is never put out of force because another one came; of one that is
//! beyond the budget, the version before stays in force. What is not changed is not looked at, apart from
//! policies beyond their budget in namespaces that are: the sums of the others are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::budget::{Needs, OverBudget};
use super::inventory::Change;
use super::name::NamespaceName;
use super::policy::{Policy, PolicyId};
use super::policy_set::PolicySet;
use crate::ordmap::Map;

/// Policies with the budget of each namespace. A copy shares everything.
#[derive(Debug, Clone, Default)]
pub struct PolicyStore {
    budget: Needs,
    in_force: Arc<PolicySet>,
    /// What the policies in force of each namespace need.
    used: Map<NamespaceName, Needs>,
    over_budget: Map<PolicyId, OverBudget>,
}

impl PolicyStore {
    /// No policies, each namespace with this budget.
    #[must_use]
    pub fn new(budget: Needs) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// The policies in force.
    #[must_use]
    pub const fn in_force(&self) -> &Arc<PolicySet> {
        &self.in_force
    }

    /// The policies that their namespace has no budget for, in name order.
    pub fn over_budget(&self) -> impl Iterator<Item = &OverBudget> {
        self.over_budget.values()
    }

    /// What a policy is to be, in force or not.
    #[must_use]
    pub fn wanted(&self, id: &PolicyId) -> Option<&Arc<Policy>> {
        let beyond = self.over_budget.get(id).map(|over| &over.policy);
        beyond.or_else(|| self.in_force.policies.get(id))
    }

    /// Applies changes, each name at most once. What is as it was is no change.
    pub fn apply(&mut self, changes: Vec<Change<PolicyId, Arc<Policy>>>) {
        let mut namespaces: BTreeSet<NamespaceName> = BTreeSet::new();
        let mut wanted: BTreeMap<PolicyId, Arc<Policy>> = BTreeMap::new();
        for (id, policy) in changes {
            if self.wanted(&id) == policy.as_ref() {
                continue;
            }
            namespaces.extend(id.namespace.clone());
            match policy {
                Some(policy) => _ = wanted.insert(id, policy),
                None => self.remove(&id),
            }
        }
        // What was beyond the budget may have room now.
        let waiting = self.over_budget.iter();
        let waiting = waiting.filter(|(id, _)| {
            let namespace = id.namespace.as_ref();
            namespace.is_some_and(|namespace| namespaces.contains(namespace))
        });
        for (id, over) in waiting {
            let policy = || Arc::clone(&over.policy);
            wanted.entry(id.clone()).or_insert_with(policy);
        }
        let mut wanted: Vec<(PolicyId, Arc<Policy>)> = wanted.into_iter().collect();
        // What frees some of the budget comes before what takes it.
        wanted.sort_by_key(|(id, policy)| {
            let before = self.in_force.policies.get(id);
            !before.is_some_and(|before| Needs::of(policy).is_within(Needs::of(before)))
        });
        for (id, policy) in wanted {
            self.upsert(id, policy);
        }
    }

    fn upsert(&mut self, id: PolicyId, policy: Arc<Policy>) {
        let before = self.in_force.policies.get(&id);
        if before == Some(&policy) {
            self.over_budget.remove(&id);
            return;
        }
        let Some(namespace) = &id.namespace else {
            let policies = Arc::make_mut(&mut self.in_force);
            policies.policies.insert(id, policy);
            return;
        };
        let sum = self.used.get(namespace).copied().unwrap_or_default();
        let own = before.map_or_else(Needs::default, |before| Needs::of(before));
        let needs = sum.minus(own).plus(Needs::of(&policy));
        if needs.may_follow(sum, self.budget) {
            self.over_budget.remove(&id);
            self.used.insert(namespace.clone(), needs);
            let policies = Arc::make_mut(&mut self.in_force);
            policies.policies.insert(id, policy);
            return;
        }
        let over = OverBudget {
            policy,
            needs,
            budget: self.budget,
            has_earlier: before.is_some(),
        };
        self.over_budget.insert(id, over);
    }

    fn remove(&mut self, id: &PolicyId) {
        self.over_budget.remove(id);
        if !self.in_force.policies.contains_key(id) {
            return;
        }
        let policies = Arc::make_mut(&mut self.in_force);
        let gone = policies.policies.remove(id);
        if let (Some(namespace), Some(gone)) = (&id.namespace, gone) {
            let sum = self.used.get(namespace).copied().unwrap_or_default();
            let left = sum.minus(Needs::of(&gone));
            if left == Needs::default() {
                self.used.remove(namespace);
            } else {
                self.used.insert(namespace.clone(), left);
            }
        }
    }
}

#[cfg(test)]
mod tests;
