//! Which identities a selector could match, so that it is not matched against all of them.
//!
//! Invariant: every identity that a selector matches is among its candidates.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::ids::IdentityId;

use super::{
    identity::{Identity, Kind},
    selector::Selector,
};
use crate::model::{Labels, NamespaceMatch, NamespaceName, Peer};

#[derive(Default)]
struct NamespaceIdentities {
    labels: Arc<Labels>,
    all: BTreeSet<IdentityId>,
}

/// Identities by the criterion that selectors check first.
#[derive(Default)]
pub(crate) struct Candidates {
    namespaces: BTreeMap<NamespaceName, NamespaceIdentities>,
    cidrs: HashMap<IpNet, BTreeSet<IdentityId>>,
    entities: BTreeSet<IdentityId>,
}

impl Candidates {
    pub(crate) fn add(&mut self, id: IdentityId, identity: &Identity) {
        for net in &identity.cidrs {
            self.cidrs.entry(*net).or_default().insert(id);
        }
        let Kind::Workload(kind) = &identity.kind else {
            self.entities.insert(id);
            return;
        };
        let residents = self.namespaces.entry(kind.namespace.clone()).or_default();
        residents.labels = Arc::clone(&kind.namespace_labels);
        residents.all.insert(id);
    }

    pub(crate) fn remove(&mut self, id: IdentityId, identity: &Identity) {
        for net in &identity.cidrs {
            if let Some(inside) = self.cidrs.get_mut(net) {
                inside.remove(&id);
                if inside.is_empty() {
                    self.cidrs.remove(net);
                }
            }
        }
        let Some(kind) = identity.workload() else {
            self.entities.remove(&id);
            return;
        };
        if let Some(residents) = self.namespaces.get_mut(&kind.namespace) {
            residents.all.remove(&id);
            if residents.all.is_empty() {
                self.namespaces.remove(&kind.namespace);
            }
        }
    }

    /// Calls `visit` for every identity that a selector could match.
    pub(crate) fn of(&self, selector: &Selector, show: &mut dyn FnMut(IdentityId)) {
        let mut all = |ids: &BTreeSet<IdentityId>| ids.iter().for_each(|id| show(*id));
        match &selector.requirement.peer {
            Some(Peer::Cidr { net, .. }) => self.cidrs.get(net).into_iter().for_each(all),
            Some(Peer::Entity(_)) => all(&self.entities),
            Some(Peer::Workloads {
                namespaces: NamespaceMatch::Own(name),
                ..
            }) => {
                let residents = self.namespaces.get(name);
                if let Some(residents) = residents {
                    all(&residents.all);
                }
            }
            Some(Peer::Workloads {
                namespaces: NamespaceMatch::Selector(asked),
                ..
            }) => {
                for residents in self.namespaces.values() {
                    if asked.matches(&residents.labels) {
                        all(&residents.all);
                    }
                }
            }
            None if selector.requirement.ends_tunnels => all(&self.entities),
            // Only workloads declare named ports.
            None => {
                let everyone = self.namespaces.values();
                everyone.for_each(|residents| all(&residents.all));
                if selector.requirement.declares.is_none() {
                    all(&self.entities);
                }
            }
        }
    }
}
