//! Endpoints of this node: what identifies them, and where they are attached.
//!
//! Invariants: an endpoint is the same one for the life of its workload here, whatever its interfaces are
//! called, numbered or replaced by; it is never identified by an interface index. Pure.

use std::fmt;

use super::name::WorkloadId;

/// The identity of an endpoint of this node: that of its workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(WorkloadId);

impl EndpointId {
    /// The endpoint of a workload.
    #[must_use]
    pub const fn of(workload: WorkloadId) -> Self {
        Self(workload)
    }

    /// Its workload.
    #[must_use]
    pub const fn workload(&self) -> &WorkloadId {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// One of the host-side interfaces of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The interface's index while it exists.
    pub ifindex: u32,
    /// Boot-clock second until which older connections are picked up.
    pub pickup_until: u32,
}
