//! Cluster policies with equal priority.
//!
//! Invariant: one finding for each policy that ties with one before it, not one for each pair.

use std::collections::BTreeMap;

use super::code::LintCode;
use super::finding::{DIRECTIONS, Finding};
use super::implication::are_disjoint;
use crate::model::quote::sanitise;
use crate::model::{LabelSelector, Policy, Priority, Scope, Tier};

pub(super) fn lint(policies: &[&Policy]) -> Vec<Finding> {
    let mut ties: BTreeMap<(Tier, Priority), Vec<(&Policy, &LabelSelector)>> = BTreeMap::new();
    for policy in policies {
        if let Scope::Cluster {
            tier,
            priority,
            namespaces,
        } = &policy.scope
        {
            let peers = ties.entry((*tier, *priority)).or_default();
            peers.push((policy, namespaces));
        }
    }
    let mut findings = Vec::new();
    for ((tier, priority), mut tied) in ties {
        tied.sort_by(|one, other| one.0.origin.cmp(&other.0.origin));
        for (index, (policy, namespaces)) in tied.iter().enumerate() {
            let mut before = tied.iter().take(index);
            let rival = before.find(|(other, others)| {
                !are_disjoint(namespaces, others)
                    && !are_disjoint(&policy.subject, &other.subject)
                    && share_a_direction(policy, other)
            });
            if let Some((rival, _)) = rival {
                let place = sanitise(&rival.origin.to_string());
                let what = format!(
                    "has priority {priority} in the {tier} tier, as has {} ({place})",
                    rival.id()
                );
                findings.push(Finding::about(policy, LintCode::EqualPriority, &what));
            }
        }
    }
    findings
}

fn share_a_direction(one: &Policy, other: &Policy) -> bool {
    let has_rules = |policy: &Policy, direction| {
        let rules = policy.rules(direction);
        rules.is_some_and(|rules| !rules.is_empty())
    };
    DIRECTIONS
        .into_iter()
        .any(|direction| has_rules(one, direction) && has_rules(other, direction))
}
