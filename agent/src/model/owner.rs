//! The owner of an address.

use std::sync::Arc;

use super::name::NodeName;
use super::workload::Workload;

/// Who owns an address or an interface.
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
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Node(_) => None,
        }
    }
}
