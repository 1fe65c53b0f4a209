//! The workload properties that policies name: label keys and service accounts.
//!
//! Invariants: no selector can tell apart two workloads that differ only in other properties. A
//! property is named until every user that added it has removed it.

use std::collections::{BTreeSet, HashMap};

use crate::model::{
    LabelSelector, NamespaceMatch, Peer, Peers, Policy, ServiceAccountName, Workload,
};

/// A property as a policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Key(&'a str),
    Account(&'a ServiceAccountName),
}

/// Every property that occurs in a policy, with the number of its users.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamedProperties {
    keys: HashMap<String, usize>,
    accounts: HashMap<ServiceAccountName, usize>,
    flipped: FlippedProperties,
}

/// Properties that policies started or stopped to name.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlippedProperties {
    pub(crate) keys: BTreeSet<String>,
    pub(crate) accounts: BTreeSet<ServiceAccountName>,
}

impl NamedProperties {
    /// Adds a property.
    pub(crate) fn add(&mut self, named: Named<'_>) {
        match named {
            Named::Key(key) => {
                let count = self.keys.entry(key.to_owned()).or_default();
                *count += 1;
                if *count == 1 {
                    flip(&mut self.flipped.keys, key.to_owned());
                }
            }
            Named::Account(account) => {
                let count = self.accounts.entry(account.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    flip(&mut self.flipped.accounts, account.clone());
                }
            }
        }
    }

    /// Removes a property once.
    pub(crate) fn remove(&mut self, named: Named<'_>) {
        match named {
            Named::Key(key) => {
                if is_last(self.keys.get_mut(key)) {
                    self.keys.remove(key);
                    flip(&mut self.flipped.keys, key.to_owned());
                }
            }
            Named::Account(account) => {
                if is_last(self.accounts.get_mut(account)) {
                    self.accounts.remove(account);
                    flip(&mut self.flipped.accounts, account.clone());
                }
            }
        }
    }

    /// The properties that flipped since the last call.
    pub(crate) fn take_changed(&mut self) -> FlippedProperties {
        std::mem::take(&mut self.flipped)
    }
}

impl FlippedProperties {
    /// Whether nothing flipped.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.accounts.is_empty()
    }

    /// Whether a workload has any of them.
    pub(crate) fn concern(&self, workload: &Workload) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| workload.labels.get(key).is_some())
            || self.accounts.contains(&workload.service_account)
    }
}

fn flip<T: Ord>(flipped: &mut BTreeSet<T>, item: T) {
    if !flipped.remove(&item) {
        flipped.insert(item);
    }
}

/// Counts one user less; whether it was the last.
fn is_last(count: Option<&mut usize>) -> bool {
    count.is_some_and(|count| {
        *count -= 1;
        *count == 0
    })
}

/// The properties in a policy: those of its subject and of its peers.
pub(crate) fn named_in_policy(policy: &Policy) -> impl Iterator<Item = Named<'_>> {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    let peers = rules.filter_map(|rule| match &rule.peers {
        Peers::Of(peers) => Some(peers),
        Peers::Any | Peers::NoPeer => None,
    });
    keys_of(&policy.subject).chain(peers.flatten().flat_map(named_in_peer))
}

/// The properties in a peer.
pub(crate) fn named_in_peer(peer: &Peer) -> impl Iterator<Item = Named<'_>> {
    let (pods, account) = match peer {
        Peer::Workloads {
            // Labels of namespaces are in every kind.
            namespaces: NamespaceMatch::Own(_) | NamespaceMatch::Selector(_),
            pods,
            service_account,
        } => (pods.as_ref(), service_account.as_ref()),
        Peer::Cidr { .. } | Peer::Entity(_) => (None, None),
    };
    let keys = pods.into_iter().flat_map(keys_of);
    keys.chain(account.map(Named::Account))
}

fn keys_of(selector: &LabelSelector) -> impl Iterator<Item = Named<'_>> {
    selector
        .requirements()
        .iter()
        .map(|of| Named::Key(of.key()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_named_until_its_last_user_is_gone() {
        let account = ServiceAccountName::new("robot").unwrap();
        let mut named = NamedProperties::default();
        for of in [Named::Key("app"), Named::Account(&account)] {
            named.add(of);
            named.add(of);
        }
        let came = named.take_changed();
        assert_eq!(came.keys, ["app".to_owned()].into());
        assert_eq!(came.accounts, [account.clone()].into());
        for of in [Named::Key("app"), Named::Account(&account)] {
            named.remove(of);
        }
        assert!(named.take_changed().is_empty());
        for of in [Named::Key("app"), Named::Account(&account)] {
            named.remove(of);
        }
        let gone = named.take_changed();
        assert_eq!((gone.keys.len(), gone.accounts.len()), (1, 1));
    }

    #[test]
    fn a_property_that_is_replaced_by_itself_does_not_flip() {
        let mut named = NamedProperties::default();
        named.add(Named::Key("app"));
        named.take_changed();
        named.remove(Named::Key("app"));
        named.add(Named::Key("app"));
        assert!(named.take_changed().is_empty());
    }
}
