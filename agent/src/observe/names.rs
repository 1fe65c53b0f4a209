//! Names for the numbers and addresses in flow events.
//!
//! Invariants: a `Directory` never changes once built, so all names of a flow are from one
//! revision; names are shared, never copied per address. A copy shares what is not changed in it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_common::ids::{IdentityId, RuleSlot};

use crate::model::{Owner, ServiceId, Workload};
use crate::ordmap::Map;

/// The names that identify a policy's rule to users. All text but the kind is untrusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleName {
    /// The policy's full name.
    pub policy: Arc<str>,
    /// Its kind, such as `NetworkPolicy`.
    pub kind: &'static str,
    /// Its namespace; empty for cluster scope.
    pub namespace: Arc<str>,
    /// Its name in the namespace.
    pub name: Arc<str>,
    /// The rule within the policy: `ingress[0]`.
    pub rule: Arc<str>,
    /// The policy's owner.
    pub owner: Option<Arc<str>>,
    /// Why the policy exists.
    pub justification: Option<Arc<str>>,
    /// The ticket that requested it.
    pub ticket: Option<Arc<str>>,
    /// The day by which it is due for review.
    pub review_by: Option<Arc<str>>,
    /// When the rule ends, RFC 3339.
    pub expires: Option<Arc<str>>,
    /// The rule's file and line.
    pub origin: Arc<str>,
}

/// What decided about a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decider {
    /// A reserved slot, such as a default.
    Reserved(&'static str),
    /// A rule of a policy.
    Rule(Arc<RuleName>),
    /// A slot that no current rule has.
    Retired(u32),
}

/// An immutable snapshot of all names at one revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directory {
    node: Arc<str>,
    owners: Map<IpAddr, Owner>,
    services: Arc<HashMap<IpAddr, ServiceId>>,
    endpoints: HashMap<u32, Arc<Workload>>,
    identities: Map<IdentityId, Arc<str>>,
    rules: Map<RuleSlot, Arc<RuleName>>,
}

impl Directory {
    /// A directory with this node's name and the owners of addresses, and no other names yet.
    #[must_use]
    pub fn new(node: &str, owners: Map<IpAddr, Owner>) -> Self {
        Self {
            node: Arc::from(node),
            owners,
            ..Self::default()
        }
    }

    /// Replaces the owners of addresses.
    #[must_use]
    pub fn with_owners(mut self, owners: Map<IpAddr, Owner>) -> Self {
        self.owners = owners;
        self
    }

    /// Replaces the Services behind addresses.
    #[must_use]
    pub fn with_services(mut self, services: Arc<HashMap<IpAddr, ServiceId>>) -> Self {
        self.services = services;
        self
    }

    /// Replaces the workloads behind interfaces.
    #[must_use]
    pub fn with_endpoints(
        mut self,
        endpoints: impl IntoIterator<Item = (u32, Arc<Workload>)>,
    ) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// Sets the description of an identity, or removes it.
    pub fn set_identity(&mut self, identity: IdentityId, description: Option<Arc<str>>) {
        match description {
            Some(description) => self.identities.insert(identity, description),
            None => self.identities.remove(&identity),
        };
    }

    /// Sets the name of a rule slot, or removes it.
    pub fn set_rule(&mut self, slot: RuleSlot, name: Option<Arc<RuleName>>) {
        match name {
            Some(name) => self.rules.insert(slot, name),
            None => self.rules.remove(&slot),
        };
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The workload behind an interface.
    #[must_use]
    pub fn endpoint(&self, ifindex: u32) -> Option<&Arc<Workload>> {
        self.endpoints.get(&ifindex)
    }

    /// The owner of an address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Owner> {
        self.owners.get(&address)
    }

    /// The Service that has an address.
    #[must_use]
    pub fn service(&self, address: IpAddr) -> Option<&ServiceId> {
        self.services.get(&address)
    }

    /// The description of an identity; `None` if this revision does not have it.
    #[must_use]
    pub fn identity(&self, identity: IdentityId) -> Option<&str> {
        reserved_identity(identity).or_else(|| self.identities.get(&identity).map(AsRef::as_ref))
    }

    /// The decider that a rule slot stands for.
    #[must_use]
    pub fn decider(&self, slot: RuleSlot) -> Decider {
        match (slot.reserved_name(), self.rules.get(&slot)) {
            (Some(name), _) => Decider::Reserved(name),
            (None, Some(rule)) => Decider::Rule(Arc::clone(rule)),
            (None, None) => Decider::Retired(slot.0),
        }
    }
}

/// The name of a reserved identity.
#[must_use]
pub fn reserved_identity(identity: IdentityId) -> Option<&'static str> {
    match identity {
        IdentityId::UNKNOWN => Some("unknown"),
        IdentityId::HOST => Some("host"),
        IdentityId::REMOTE_NODE => Some("remote-node"),
        IdentityId::WORLD => Some("world"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_identities_have_names() {
        let name = Arc::new(RuleName {
            policy: "shop/web".into(),
            ..RuleName::default()
        });
        let mut directory = Directory::new("node-1", Map::new());
        directory.set_rule(RuleSlot(16), Some(Arc::clone(&name)));
        directory.set_identity(IdentityId(16), Some("shop app=web".into()));
        assert_eq!(
            directory.decider(RuleSlot::DEFAULT_DENY),
            Decider::Reserved("default-deny")
        );
        assert_eq!(directory.decider(RuleSlot(16)), Decider::Rule(name));
        assert_eq!(directory.decider(RuleSlot(17)), Decider::Retired(17));
        assert_eq!(directory.identity(IdentityId::WORLD), Some("world"));
        assert_eq!(directory.identity(IdentityId(16)), Some("shop app=web"));
        assert_eq!(directory.identity(IdentityId(17)), None);
    }
}
