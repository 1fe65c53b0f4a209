//! All policies together, and the checks that involve more than one policy.
//!
//! Copies share their unchanged parts. A `PolicySet` never contains two policies with the same full name. `check_namespaces` checks
//! that the namespaces of its policies exist in an inventory.

use std::collections::{BTreeMap, btree_map::Entry};
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

/// Two policies of one language with the same name in a namespace, or in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "policy {id} at {second} is already declared at {first}: expected one, rename or remove one"
)]
pub struct DuplicatePolicy {
    /// Their full name.
    pub id: PolicyId,
    /// Where the first one was declared.
    pub first: Origin,
    /// Where the second one, which is refused, was declared.
    pub second: Origin,
}

/// A policy for a namespace that the inventory does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "policy {policy} is for the unknown namespace {namespace}: expected a [[namespace]] with that \
     name in the inventory"
)]
pub struct UnknownNamespace {
    /// The policy.
    pub policy: PolicyId,
    /// The unknown namespace.
    pub namespace: NamespaceName,
    /// Where the policy was declared.
    pub origin: Origin,
}

impl PolicySet {
    /// Collects policies.
    ///
    /// # Errors
    /// Every policy that has the same full name as an earlier one.
    pub fn build(
        policies: impl IntoIterator<Item = Arc<Policy>>,
    ) -> Result<Self, Vec<DuplicatePolicy>> {
        let mut found: BTreeMap<PolicyId, Arc<Policy>> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for policy in policies {
            match found.entry(policy.id()) {
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
            let policies = found.into_iter().collect();
            Ok(Self { policies })
        } else {
            Err(duplicates)
        }
    }

    /// All policies in name order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// The number of policies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// True if there are no policies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

/// Checks that the inventory has the namespace of each policy.
///
/// # Errors
/// One for each policy whose namespace is unknown, in name order.
pub fn check_namespaces(
    policies: &PolicySet,
    inventory: &Inventory,
) -> Result<(), Vec<UnknownNamespace>> {
    let mut errors = Vec::new();
    // Policies are in the order of their namespaces, so that each is looked up once.
    let mut last: Option<&NamespaceName> = None;
    for (id, policy) in &policies.policies {
        let Scope::Namespace(namespace) = &policy.scope else {
            continue;
        };
        if last == Some(namespace) {
            continue;
        }
        if inventory.namespaces.contains_key(namespace) {
            last = Some(namespace);
        } else {
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
    fn an_error_about_a_duplicate_names_both_places() {
        let errors =
            PolicySet::build([policy("a", "x.toml", 3), policy("a", "y.toml", 7)]).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "policy shop/a at y.toml:7 is already declared at x.toml:3: expected one, rename or \
             remove one"
        );
    }

    #[test]
    fn a_policy_for_an_unknown_namespace_is_refused() {
        let set = PolicySet::build([policy("a", "x.toml", 3)]).unwrap();
        let errors = check_namespaces(&set, &Inventory::default()).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "policy shop/a is for the unknown namespace shop: expected a [[namespace]] with that \
             name in the inventory"
        );
    }
}
