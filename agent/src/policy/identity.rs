//! Identities: the distinct kinds of peers that policy can tell apart at all.
//!
//! Invariant: two addresses of equal identity are treated alike by every policy there is or could
//! be without a new CIDR: namespace (with its labels), labels, service account and declared ports
//! of the workload, or the kind of non-workload, and the set of policy prefixes around the address.

use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{Labels, NamedPort, NamespaceName, ServiceAccountName};

/// What a workload is to a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadKind {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// That namespace's labels.
    pub namespace_labels: Arc<Labels>,
    /// Its own labels.
    pub labels: Labels,
    /// Its service account.
    pub service_account: ServiceAccountName,
    /// The ports it declares by name.
    pub ports: Vec<NamedPort>,
}

/// What kind of owner an address has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// This node.
    Host,
    /// Another node.
    RemoteNode,
    /// Nobody we know.
    World,
    /// A workload.
    Workload(Arc<WorkloadKind>),
}

/// One distinct kind of peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The owner's kind.
    pub kind: Kind,
    /// The policy prefixes that the address lies in, sorted.
    pub cidrs: Vec<IpNet>,
}

impl Identity {
    /// The workload behind it, if it is one.
    #[must_use]
    pub fn workload(&self) -> Option<&WorkloadKind> {
        match &self.kind {
            Kind::Workload(workload) => Some(workload),
            Kind::Host | Kind::RemoteNode | Kind::World => None,
        }
    }
}
