//! All policies together, and the checks that take more than one policy.
//!
//! A `PolicySet` never holds two policies of one name in a namespace. Whether its policies'
//! namespaces exist is a question to an inventory: `check_namespaces`.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::inventory::Inventory;
use super::name::NamespaceName;
use super::policy::{Origin, PoliciesById, Policy, PolicyId, Scope};

/// Every policy in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// The policies by full name.
    pub policies: PoliciesById,
}

/// Two policies of one language with one name in a namespace, or in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "policy {id} at {second} is already declared at {first}: expected one, rename or remove one"
)]
pub struct DuplicatePolicy {
    /// Their name.
    pub id: PolicyId,
    /// The first one's place.
    pub first: Origin,
    /// The refused one's place.
    pub second: Origin,
}

/// A policy for a namespace that the inventory lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "policy {policy} is for the unknown namespace {namespace}: expected a [[namespace]] with that \
     name in the inventory"
)]
pub struct UnknownNamespace {
    /// The policy.
    pub policy: PolicyId,
    /// The namespace nobody declares.
    pub namespace: NamespaceName,
    /// Where the policy was written.
    pub origin: Origin,
}

impl PolicySet {
    /// Collects policies.
    ///
    /// # Errors
    /// Every policy whose name an earlier one has.
    pub fn build(
        policies: impl IntoIterator<Item = Arc<Policy>>,
    ) -> Result<Self, Vec<DuplicatePolicy>> {
        let mut set = Self::default();
        let mut duplicates = Vec::new();
        for policy in policies {
            match set.policies.entry(policy.id()) {
                Entry::Vacant(free) => {
                    free.insert(policy);
                }
                Entry::Occupied(taken) => duplicates.push(DuplicatePolicy {
                    id: taken.key().clone(),
                    first: taken.get().origin.clone(),
                    second: policy.origin.clone(),
                }),
            }
        }
        if duplicates.is_empty() {
            Ok(set)
        } else {
            Err(duplicates)
        }
    }

    /// All policies in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// True without any policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

/// Finds the policies whose namespace the inventory lacks.
///
/// # Errors
/// One for each such policy, in the order of their names.
pub fn check_namespaces(
    policies: &PolicySet,
    inventory: &Inventory,
) -> Result<(), Vec<UnknownNamespace>> {
    let mut errors = Vec::new();
    for (id, policy) in &policies.policies {
        let Scope::Namespace(namespace) = &policy.scope else {
            continue;
        };
        if !inventory.namespaces.contains_key(namespace) {
            errors.push(UnknownNamespace {
                policy: id.clone(),
                namespace: namespace.clone(),
                origin: policy.origin.clone(),
            });
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{About, LabelSelector, PolicyKind, PolicyName};

    fn policy(name: &str, file: &str, line: u32) -> Arc<Policy> {
        Arc::new(Policy {
            kind: PolicyKind::Ringfence,
            name: PolicyName::new(name).unwrap(),
            scope: Scope::Namespace(NamespaceName::new("shop").unwrap()),
            subject: LabelSelector::everything(),
            about: About::default(),
            ingress: None,
            egress: None,
            tests: Vec::new(),
            origin: Origin {
                file: Arc::from(file),
                line,
            },
        })
    }

    #[test]
    fn duplicates_name_both_places() {
        let errors =
            PolicySet::build([policy("a", "x.toml", 3), policy("a", "y.toml", 7)]).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "policy shop/a at y.toml:7 is already declared at x.toml:3: expected one, rename or \
             remove one"
        );
    }

    #[test]
    fn namespaces_must_exist() {
        let set = PolicySet::build([policy("a", "x.toml", 3)]).unwrap();
        let errors = check_namespaces(&set, &Inventory::default()).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "policy shop/a is for the unknown namespace shop: expected a [[namespace]] with that \
             name in the inventory"
        );
    }
}
