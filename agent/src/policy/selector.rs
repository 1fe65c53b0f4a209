//! Selectors: what a rule requires of a peer's identity.
//!
//! Invariant: a selector depends on the identity alone, so it matches all or none of its addresses.

use std::sync::Arc;

use ipnet::IpNet;
use ringfence_common::mutant;

use super::{
    identity::{Identity, Kind, WorkloadKind},
    numbers::{Digest, digest_of},
};
use crate::model::{Entity, NamedPort, NamespaceMatch, Peer};

/// One requirement; both parts must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Requirement {
    /// The required peer; `None` for any.
    pub(crate) peer: Option<Peer>,
    /// A port that the peer must declare; `None` for no such requirement.
    pub(crate) declares: Option<NamedPort>,
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
            identity.workload().is_some_and(|workload| {
                mutant!(
                    declared_by_name_alone,
                    workload.ports.contains(port),
                    workload.ports.iter().any(|own| own.name == port.name),
                )
            })
        });
        declares
            && self
                .requirement
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
                && mutant!(
                    service_account_ignored,
                    service_account
                        .as_ref()
                        .is_none_or(|name| *name == workload.service_account),
                    true,
                )
        }),
        Peer::Cidr { net, except } => {
            let inside = |net: &IpNet| identity.cidrs.contains(net);
            let in_hole = mutant!(except_ignored, except.iter().any(inside), false);
            let counts = mutant!(cidr_skips_workloads, true, identity.workload().is_none(),);
            inside(net) && !in_hole && counts
        }
        Peer::Entity(Entity::World) => mutant!(
            world_includes_nodes,
            identity.kind == Kind::World,
            identity.workload().is_none(),
        ),
        Peer::Entity(Entity::Host) => identity.kind == Kind::Host,
        Peer::Entity(Entity::RemoteNode) => identity.kind == Kind::RemoteNode,
    }
}

fn in_namespace(namespaces: &NamespaceMatch, workload: &WorkloadKind) -> bool {
    match namespaces {
        NamespaceMatch::Own(name) => {
            mutant!(own_namespace_ignored, *name == workload.namespace, true)
        }
        NamespaceMatch::Selector(selector) => mutant!(
            namespace_selector_ignored,
            selector.matches(&workload.namespace_labels),
            true,
        ),
    }
}
