//! Selectors: what a rule requires of a peer's identity.
//!
//! Invariant: a selector depends on the identity alone, so it matches all or none of its addresses.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    digest::{Digest, digest_of},
    identity::{Identity, Kind, WorkloadKind},
};
use crate::model::{Entity, NamedPort, NamespaceMatch, Peer};

/// One requirement; both parts must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Requirement {
    /// The required peer; `None` for any.
    pub(crate) peer: Option<Peer>,
    /// A port that the peer must declare; `None` for no such requirement.
    pub(crate) declares: Option<NamedPort>,
    /// Whether a range also matches in special ranges that it does not name. Rules that deny do.
    pub(crate) unnamed: bool,
    /// Whether a node may take packets to it out of their tunnels.
    pub(crate) ends_tunnels: bool,
}

/// A selector with its digest.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    pub(crate) requirement: Arc<Requirement>,
    pub(crate) digest: Digest,
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}
impl Eq for Selector {}
impl std::hash::Hash for Selector {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl Selector {
    pub(crate) fn new(requirement: Requirement) -> Self {
        let digest = digest_of(&requirement);
        Self {
            requirement: Arc::new(requirement),
            digest,
        }
    }

    /// Whether an identity matches the peer.
    pub(crate) fn matches(&self, identity: &Identity) -> bool {
        let declares = self.requirement.declares.as_ref().is_none_or(|port| {
            identity
                .workload()
                .is_some_and(|workload| workload.ports.contains(port))
        });
        declares
            && (!self.requirement.ends_tunnels || identity.ends_tunnels())
            && self
                .requirement
                .peer
                .as_ref()
                .is_none_or(|peer| is_peer(peer, self.requirement.unnamed, identity))
    }
}

fn is_peer(peer: &Peer, unnamed: bool, identity: &Identity) -> bool {
    match peer {
        Peer::Workloads {
            namespaces,
            pods,
            service_account,
        } => identity.workload().is_some_and(|workload| {
            in_namespace(namespaces, workload)
                && pods
                    .as_ref()
                    .is_none_or(|pods| pods.matches(&workload.labels))
                && service_account
                    .as_ref()
                    .is_none_or(|name| workload.service_account.as_ref() == Some(name))
        }),
        Peer::Cidr { net, except } => {
            let inside = |net: &IpNet| identity.cidrs.contains(net);
            let in_hole = except.iter().any(inside);
            let special = identity.special.filter(|_| !unnamed);
            inside(net) && !in_hole && special.is_none_or(|range| range.contains(net))
        }
        Peer::Entity(Entity::World) => identity.kind == Kind::World,
        Peer::Entity(Entity::Host) => identity.kind == Kind::Host,
        Peer::Entity(Entity::RemoteNode) => identity.kind == Kind::RemoteNode,
    }
}

fn in_namespace(namespaces: &NamespaceMatch, workload: &WorkloadKind) -> bool {
    match namespaces {
        NamespaceMatch::Own(name) => *name == workload.namespace,
        NamespaceMatch::Selector(selector) => selector.matches(&workload.namespace_labels),
    }
}
