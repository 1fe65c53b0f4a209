//! Names for the numbers and addresses in flow events.
//!
//! Invariants: a `Directory` never changes once built, so all names of a flow are from one
//! revision; names are shared, never copied per address. The address book is separate, because it
//! changes with the inventory only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_common::ids::{IdentityId, RuleSlot};

use crate::model::{NodeName, Workload};

/// The owner of an address or an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A workload, on this node or another.
    Workload(Arc<Workload>),
    /// A node.
    Node(NodeName),
}

impl Owner {
    /// The workload, if it is one.
    #[must_use]
    pub fn workload(&self) -> Option<&Workload> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Node(_) => None,
        }
    }
}

/// Every address of the inventory with its owner.
#[derive(Debug, Default)]
pub struct AddressBook {
    /// Sorted by address: half the memory of a hash table at ten thousand workloads.
    entries: Box<[(IpAddr, Owner)]>,
}

impl AddressBook {
    /// Collects owners; an address given twice keeps one of them.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (IpAddr, Owner)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(address, _)| *address);
        entries.dedup_by_key(|(address, _)| *address);
        Self {
            entries: entries.into_boxed_slice(),
        }
    }

    /// The owner of an address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Owner> {
        let index = self
            .entries
            .binary_search_by_key(&address, |(known, _)| *known)
            .ok()?;
        self.entries.get(index).map(|(_, owner)| owner)
    }

    /// The number of addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no addresses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

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
#[derive(Debug, Default)]
pub struct Directory {
    node: Arc<str>,
    book: Arc<AddressBook>,
    endpoints: HashMap<u32, Arc<Workload>>,
    identities: HashMap<IdentityId, Arc<str>>,
    rules: HashMap<RuleSlot, Arc<RuleName>>,
}

impl Directory {
    /// A directory with this node's name and the owners of addresses, and no other names yet.
    #[must_use]
    pub fn new(node: &str, book: Arc<AddressBook>) -> Self {
        Self {
            node: Arc::from(node),
            book,
            ..Self::default()
        }
    }

    /// Adds the workload behind an interface.
    #[must_use]
    pub fn with_endpoint(mut self, ifindex: u32, workload: Arc<Workload>) -> Self {
        self.endpoints.insert(ifindex, workload);
        self
    }

    /// Adds the description of an identity.
    #[must_use]
    pub fn with_identity(mut self, identity: IdentityId, description: Arc<str>) -> Self {
        self.identities.insert(identity, description);
        self
    }

    /// Adds the name of a rule slot.
    #[must_use]
    pub fn with_rule(mut self, slot: RuleSlot, name: Arc<RuleName>) -> Self {
        self.rules.insert(slot, name);
        self
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
        self.book.owner(address)
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
    fn the_address_book_finds_owners() {
        let node = |name| Owner::Node(NodeName::new(name).unwrap());
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let book = AddressBook::new([(b, node("two")), (a, node("one"))]);
        assert_eq!(book.owner(a), Some(&node("one")));
        assert_eq!(book.owner(b), Some(&node("two")));
        assert_eq!(book.owner("10.0.0.2".parse().unwrap()), None);
        assert_eq!(book.len(), 2);
    }

    #[test]
    fn slots_and_identities_have_names() {
        let name = Arc::new(RuleName {
            policy: "shop/web".into(),
            ..RuleName::default()
        });
        let directory = Directory::new("node-1", Arc::default())
            .with_rule(RuleSlot(16), Arc::clone(&name))
            .with_identity(IdentityId(16), "shop app=web".into());
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
