//! Identities: the distinct peers that policy can tell apart.
//!
//! Invariant: every policy that names no new CIDR, label key or service account treats two addresses
//! of equal identity alike: same namespace (with its labels), same named labels, named service
//! account and declared ports of the workload, or same non-workload kind, and same set of policy
//! prefixes around the address, and same special range.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::ids::IdentityId;

use crate::model::{Labels, NamedPort, NamespaceName, ServiceAccountName, ServicePort};

/// The properties of a workload that selectors can match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadKind {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// That namespace's labels.
    pub namespace_labels: Arc<Labels>,
    /// Its own labels with keys that policies name; others, such as those unique to a pod or job,
    /// are left out.
    pub labels: Labels,
    /// Its service account, if policies name it.
    pub service_account: Option<ServiceAccountName>,
    /// The ports it declares by name.
    pub ports: Vec<NamedPort>,
}

/// The kind of an address's owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// This node.
    Host,
    /// Another node.
    RemoteNode,
    /// No known owner: an address outside the cluster.
    World,
    /// No known owner, in a special range.
    Special,
    /// No known owner, in a range of the cluster.
    Cluster,
    /// A workload.
    Workload(Arc<WorkloadKind>),
    /// A Service with these backends.
    Service(Arc<ServiceBackends>),
}

/// What may be behind each port of a Service: identities at their ports. Services that are the same in this are one
/// identity.
pub type ServiceBackends = BTreeMap<ServicePort, BTreeSet<(IdentityId, u16)>>;

/// One distinct peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The owner's kind.
    pub kind: Kind,
    /// The policy prefixes that the address lies in, sorted.
    pub cidrs: Vec<IpNet>,
    /// The special range that the address lies in, with or without an owner.
    pub special: Option<IpNet>,
}

impl Identity {
    /// The workload behind it, if it is one.
    #[must_use]
    pub fn workload(&self) -> Option<&WorkloadKind> {
        match &self.kind {
            Kind::Workload(workload) => Some(workload),
            Kind::Host
            | Kind::RemoteNode
            | Kind::World
            | Kind::Special
            | Kind::Cluster
            | Kind::Service(_) => None,
        }
    }

    /// The backends behind it, if it is a Service.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceBackends> {
        match &self.kind {
            Kind::Service(backends) => Some(backends),
            _ => None,
        }
    }

    /// Whether a node may be what receives packets to it: groups, broadcast and links have nodes among
    /// their members, and nodes have addresses in the ranges of their pods that nothing lists.
    #[must_use]
    pub fn ends_tunnels(&self) -> bool {
        matches!(
            self.kind,
            Kind::Host | Kind::RemoteNode | Kind::Special | Kind::Cluster
        )
    }
}
