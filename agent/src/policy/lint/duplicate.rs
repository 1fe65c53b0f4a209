//! Policies that are copies of another.
//!
//! Copies have equal scope, subject and rules; name, owner and other metadata may differ.

use std::collections::{BTreeMap, HashMap};

use super::code::LintCode;
use super::finding::Finding;
use crate::model::quote::sanitise;
use crate::model::{
    LabelSelector, Peers, Policy, PolicyId, Ports, Rule, RuleAction, Scope, Window,
};

/// Which policies are copies, and their originals.
pub(super) struct Copies<'a> {
    originals: BTreeMap<PolicyId, (&'a Policy, &'a Policy)>,
}

type Statement<'a> = (RuleAction, &'a Peers, &'a Ports, Window);
type Content<'a> = (
    &'a Scope,
    &'a LabelSelector,
    Option<Vec<Statement<'a>>>,
    Option<Vec<Statement<'a>>>,
);

fn content(policy: &Policy) -> Content<'_> {
    (
        &policy.scope,
        &policy.subject,
        policy.ingress.as_deref().map(statements),
        policy.egress.as_deref().map(statements),
    )
}

fn statements<'a>(rules: &'a [Rule]) -> Vec<Statement<'a>> {
    let said = |rule: &'a Rule| (rule.action, &rule.peers, &rule.ports, rule.window);
    rules.iter().map(said).collect()
}

impl<'a> Copies<'a> {
    /// Finds the copies: of equal policies, the first is the original.
    pub(super) fn of(policies: &[&'a Policy]) -> Self {
        let mut ordered = policies.to_vec();
        ordered.sort_by(|one, other| one.origin.cmp(&other.origin));
        let mut first: HashMap<Content<'a>, &'a Policy> = HashMap::new();
        let mut originals = BTreeMap::new();
        for policy in ordered {
            let original = *first.entry(content(policy)).or_insert(policy);
            if original.id() != policy.id() {
                originals.insert(policy.id(), (policy, original));
            }
        }
        Self { originals }
    }

    /// True for a copy; its rules get no findings of their own.
    pub(super) fn has(&self, policy: &Policy) -> bool {
        self.originals.contains_key(&policy.id())
    }

    pub(super) fn lint(&self) -> Vec<Finding> {
        let pairs = self.originals.values();
        let found = pairs.map(|(copy, original)| {
            let place = sanitise(&original.origin.to_string());
            let what = format!("has the same content as {} ({place})", original.id());
            Finding::about(copy, LintCode::DuplicatePolicy, &what)
        });
        found.collect()
    }
}
