//! The subjects of refused policies that have no last good content.
//!
//! This module only describes the subjects, as far as they could be read. Whether they are locked
//! down depends on the mode of their namespace, which is not known here.

use super::labels::Labels;
use super::name::NamespaceName;
use super::policy::{Origin, Policy, Scope};
use super::selector::LabelSelector;

/// The subjects of a refused policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lockdown {
    /// In which namespaces.
    pub scope: LockedScope,
    /// Which workloads there; all of them if the subject could not be read.
    pub subject: LabelSelector,
    /// Where the policy was written.
    pub origin: Origin,
}

/// The namespaces of the subjects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockedScope {
    /// One namespace, by its name.
    Namespace(NamespaceName),
    /// The namespaces whose labels match.
    Namespaces(LabelSelector),
}

impl Lockdown {
    /// The subjects of a policy that is valid by itself, but not in force.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self {
            scope: match &policy.scope {
                Scope::Namespace(name) => LockedScope::Namespace(name.clone()),
                Scope::Cluster { namespaces, .. } => LockedScope::Namespaces(namespaces.clone()),
            },
            subject: policy.subject.clone(),
            origin: policy.origin.clone(),
        }
    }

    /// True if workloads with these labels in this namespace are among the subjects.
    #[must_use]
    pub fn selects(
        &self,
        namespace: &NamespaceName,
        namespace_labels: &Labels,
        labels: &Labels,
    ) -> bool {
        let in_scope = match &self.scope {
            LockedScope::Namespace(name) => name == namespace,
            LockedScope::Namespaces(selector) => selector.matches(namespace_labels),
        };
        in_scope && self.subject.matches(labels)
    }
}

impl std::fmt::Display for Lockdown {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = super::quote::sanitise(&self.origin.to_string());
        write!(
            out,
            "locked down: {place} is refused and has no earlier content"
        )
    }
}
