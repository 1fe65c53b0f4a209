//! The policies in force, with the numbers of their rules and the selectors of their peers.
//!
//! Invariants: an unchanged policy is not processed again. A rule's number follows from its content
//! and its position, see `number_rule`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ringfence_common::{ids::RuleSlot, mode::Direction};

use super::{
    desired::RuleInfo,
    identity::WorkloadKind,
    numbers::{Exhausted, Numbers},
    selector::Selector,
    table::{NumberedRule, PolicyRules, number_rule, selectors_of},
};
use crate::{
    model::{NamespaceName, Policy, PolicyId, PolicySet, Scope},
    ordmap::Map,
};

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

struct Numbered {
    slot: RuleSlot,
    selectors: Option<Vec<Selector>>,
}

struct Entry {
    policy: Arc<Policy>,
    /// By direction, in the order of the policy's rules.
    rules: [Vec<Numbered>; 2],
}

/// Every policy, ready for layout.
#[derive(Default)]
pub(crate) struct Rulebook {
    policies: Arc<PolicySet>,
    entries: BTreeMap<PolicyId, Entry>,
    of_namespace: HashMap<NamespaceName, BTreeSet<PolicyId>>,
    of_cluster: BTreeSet<PolicyId>,
    pub(crate) rules: Map<RuleSlot, RuleInfo>,
}

/// A policy that was added, removed or changed.
pub(crate) struct PolicyChange {
    pub(crate) old: Option<Arc<Policy>>,
    pub(crate) new: Option<Arc<Policy>>,
}

impl PolicyChange {
    /// Whether either version selects workloads of a kind.
    pub(crate) fn concerns(&self, kind: &WorkloadKind) -> bool {
        let mut versions = self.old.iter().chain(&self.new);
        versions.any(|policy| selects(policy, kind))
    }
}

fn selects(policy: &Policy, kind: &WorkloadKind) -> bool {
    policy.selects(&kind.namespace, &kind.namespace_labels, &kind.labels)
}

impl Rulebook {
    /// Replaces the set of policies; returns what changed.
    pub(crate) fn update(
        &mut self,
        policies: &Arc<PolicySet>,
        numbers: &mut Numbers,
    ) -> Result<Vec<PolicyChange>, Exhausted> {
        if Arc::ptr_eq(&self.policies, policies) {
            return Ok(Vec::new());
        }
        let before = std::mem::replace(&mut self.policies, Arc::clone(policies));
        let mut changes = Vec::new();
        policies.policies.since(&before.policies, |change| {
            if let Some(old) = change.old {
                self.remove(change.key, old);
            }
            changes.push(PolicyChange {
                old: change.old.cloned(),
                new: change.new.cloned(),
            });
        });
        for policy in changes.iter().filter_map(|change| change.new.as_ref()) {
            self.insert(policy, numbers)?;
        }
        Ok(changes)
    }

    fn remove(&mut self, id: &PolicyId, policy: &Policy) {
        self.bucket(policy).remove(id);
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        for rule in entry.rules.iter().flatten() {
            self.rules.remove(&rule.slot);
        }
    }

    fn insert(&mut self, policy: &Arc<Policy>, numbers: &mut Numbers) -> Result<(), Exhausted> {
        let mut rules = [Vec::new(), Vec::new()];
        for (direction, numbered) in DIRECTIONS.into_iter().zip(&mut rules) {
            let written = policy.rules(direction).unwrap_or_default();
            for (index, rule) in written.iter().enumerate() {
                let slot = number_rule(numbers, policy, direction, index, rule)?;
                let info = RuleInfo {
                    policy: Arc::clone(policy),
                    direction,
                    index,
                    action: rule.action,
                    line: rule.line,
                };
                self.rules.insert(slot, info);
                let selectors = selectors_of(rule);
                numbered.push(Numbered { slot, selectors });
            }
        }
        let id = policy.id();
        self.bucket(policy).insert(id.clone());
        let policy = Arc::clone(policy);
        self.entries.insert(id, Entry { policy, rules });
        Ok(())
    }

    fn bucket(&mut self, policy: &Policy) -> &mut BTreeSet<PolicyId> {
        match &policy.scope {
            Scope::Namespace(name) => self.of_namespace.entry(name.clone()).or_default(),
            Scope::Cluster { .. } => &mut self.of_cluster,
        }
    }

    /// The policies that select workloads of a kind, ordered by name.
    pub(crate) fn selecting(&self, kind: &WorkloadKind) -> Vec<PolicyId> {
        let here = self.of_namespace.get(&kind.namespace);
        let ids = here.into_iter().flatten().chain(&self.of_cluster);
        let about = |id: &&PolicyId| {
            let entry = self.entries.get(*id);
            entry.is_some_and(|entry| selects(&entry.policy, kind))
        };
        let mut selecting: Vec<PolicyId> = ids.filter(about).cloned().collect();
        selecting.sort_unstable();
        selecting
    }

    /// The selectors of these policies in a direction; none from policies without that direction.
    pub(crate) fn asked<'a>(
        &'a self,
        direction: Direction,
        ids: &'a [PolicyId],
    ) -> impl Iterator<Item = PolicyRules<'a>> {
        ids.iter().filter_map(move |id| {
            let Entry { policy, rules } = self.entries.get(id)?;
            let [ingress, egress] = rules;
            let numbered = match direction {
                Direction::Ingress => ingress,
                Direction::Egress => egress,
            };
            let rules = policy.rules(direction)?.iter().zip(numbered);
            let rules = rules.map(|(rule, numbered)| NumberedRule {
                rule,
                slot: numbered.slot,
                selectors: numbered.selectors.as_deref(),
            });
            Some(PolicyRules {
                policy,
                rules: rules.collect(),
            })
        })
    }
}
