//! Namespaces without a default deny: workloads there that no policy selects are open.
//!
//! A default deny is a policy of the namespace that selects every workload and isolates a
//! direction, or a cluster policy that denies everything in every such namespace. Both directions
//! count.

use std::collections::BTreeMap;

use ringfence_common::mode::Direction;

use super::LintInput;
use super::code::LintCode;
use super::finding::{DIRECTIONS, Finding, places_in};
use super::implication::selects_namespace;
use crate::model::{Inventory, NamespaceName, Peers, Policy, Ports, Scope, Window};

pub(super) fn lint(policies: &[&Policy], input: &LintInput<'_>) -> Vec<Finding> {
    let mut first: BTreeMap<&NamespaceName, Option<&Policy>> = BTreeMap::new();
    if let Some(inventory) = input.inventory {
        let inhabited = inventory.workloads.keys().map(|id| &id.namespace);
        first.extend(inhabited.map(|namespace| (namespace, None)));
    }
    let mut of_namespace: BTreeMap<&NamespaceName, Vec<&Policy>> = BTreeMap::new();
    for policy in policies {
        let Scope::Namespace(namespace) = &policy.scope else {
            continue;
        };
        of_namespace.entry(namespace).or_default().push(policy);
        let known = first.entry(namespace).or_default();
        if known.is_none_or(|known| policy.origin < known.origin) {
            *known = Some(policy);
        }
    }
    let cluster: Vec<&Policy> = policies
        .iter()
        .copied()
        .filter(|policy| matches!(policy.scope, Scope::Cluster { .. }))
        .collect();
    let mut findings = Vec::new();
    for (namespace, first) in first {
        let own = of_namespace.get(namespace).map(Vec::as_slice);
        let own = own.unwrap_or_default();
        let closes =
            |policy: &&Policy, direction| closes(policy, namespace, direction, input.inventory);
        let open: Vec<&str> = DIRECTIONS
            .into_iter()
            .filter(|direction| !own.iter().chain(&cluster).any(|p| closes(p, *direction)))
            .map(Direction::name)
            .collect();
        if !open.is_empty() {
            findings.extend(report(namespace, &open.join(" and "), first, input));
        }
    }
    findings
}

fn closes(
    policy: &Policy,
    namespace: &NamespaceName,
    direction: Direction,
    inventory: Option<&Inventory>,
) -> bool {
    if !policy.subject.is_everything() {
        return false;
    }
    match &policy.scope {
        Scope::Namespace(_) => policy.rules(direction).is_some(),
        Scope::Cluster { namespaces, .. } => {
            selects_namespace(namespaces, namespace, inventory)
                && places_in(policy, direction).any(|place| {
                    let rule = place.rule;
                    rule.action.denies()
                        && rule.peers == Peers::Any
                        && rule.ports == Ports::Any
                        && rule.window == Window::default()
                })
        }
    }
}

fn report(
    namespace: &NamespaceName,
    open: &str,
    first: Option<&Policy>,
    input: &LintInput<'_>,
) -> Option<Finding> {
    let code = LintCode::NoDefaultDeny;
    let message = format!("namespace {namespace} has no default deny for {open}");
    if let Some(policy) = first {
        let found = Finding::about(policy, code, "");
        return Some(Finding { message, ..found });
    }
    let origin = input.namespaces.get(namespace)?;
    Some(Finding {
        file: origin.file.clone(),
        line: origin.line,
        code,
        message: format!("{message}, and no policy"),
        remedy: code.remedy(),
    })
}
