//! Lints: valid policies that are probably not intended, or not maintainable.
//!
//! Invariants: pure functions of the policies, the inventory if given, and the time. A finding
//! names location, problem and remedy, and is reported only if it is certain. Lints that need the
//! inventory report nothing without one. Policies are parsed elsewhere, and so are the parser's own
//! warnings.

mod about;
mod address;
mod breadth;
mod code;
mod dns;
mod duplicate;
mod finding;
mod implication;
mod isolation;
mod population;
mod priority;
mod range;
mod reference;
mod shadow;
mod window;

use std::collections::BTreeMap;

pub use code::{LintCode, UnknownCode};
pub use finding::Finding;

use crate::model::{Inventory, NamespaceName, Origin, Policy, PolicySet, WallTime};
use population::Population;

/// The input of the lints.
#[derive(Debug, Clone, Copy)]
pub struct LintInput<'a> {
    /// All policies, checked as one set.
    pub policies: &'a PolicySet,
    /// The inventory; without one, the lints that need it report nothing.
    pub inventory: Option<&'a Inventory>,
    /// Locations of the inventory's namespaces.
    pub namespaces: &'a BTreeMap<NamespaceName, Origin>,
    /// The time.
    pub now: WallTime,
}

/// All findings, in the order of files and lines.
#[must_use]
pub fn lint(input: &LintInput<'_>) -> Vec<Finding> {
    let policies: Vec<&Policy> = input.policies.iter().map(AsRef::as_ref).collect();
    let population = input.inventory.map(Population::of);
    let population = population.as_ref();
    let mut findings = Vec::new();
    for policy in &policies {
        findings.extend(about::lint(policy, input.now));
        for place in finding::places(policy) {
            findings.extend(window::lint(&place, input.now));
            findings.extend(breadth::lint(&place));
            findings.extend(address::lint(&place, population));
        }
        if let Some(population) = population {
            findings.extend(reference::lint(policy, population));
        }
    }
    findings.extend(dns::lint(&policies, population, input.now));
    findings.extend(isolation::lint(&policies, input));
    findings.extend(priority::lint(&policies));
    let copies = duplicate::Copies::of(&policies);
    findings.extend(copies.lint());
    findings.extend(shadow::lint(&policies, &copies, input));
    findings.sort();
    findings.dedup();
    findings
}

#[cfg(test)]
mod tests;
