//! Selectors: the questions that rules ask about a peer's identity.
//!
//! Invariant: a selector looks at the identity alone, so its answer holds for every address of it.

use std::sync::Arc;

use super::{
    identity::{Identity, Kind, WorkloadKind},
    numbers::{Digest, digest_of},
};
use crate::model::{Entity, NamedPort, NamespaceMatch, Peer};

/// One question; both parts must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Question {
    /// The peer it must be; `None` for anyone.
    pub(crate) peer: Option<Peer>,
    /// A port that it must declare; `None` for no such demand.
    pub(crate) declares: Option<NamedPort>,
}

/// A question with its content address.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    pub(crate) question: Arc<Question>,
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
    pub(crate) fn new(question: Question) -> Self {
        let digest = digest_of(&question);
        Self {
            question: Arc::new(question),
            digest,
        }
    }

    /// Whether an identity is such a peer.
    pub(crate) fn matches(&self, identity: &Identity) -> bool {
        let declares = self.question.declares.as_ref().is_none_or(|port| {
            identity
                .workload()
                .is_some_and(|workload| workload.ports.contains(port))
        });
        declares
            && self
                .question
                .peer
                .as_ref()
                .is_none_or(|peer| is_peer(peer, identity))
    }
}

fn is_peer(peer: &Peer, identity: &Identity) -> bool {
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
                    .is_none_or(|name| *name == workload.service_account)
        }),
        Peer::Cidr { net, except } => {
            identity.cidrs.contains(net) && !except.iter().any(|hole| identity.cidrs.contains(hole))
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
