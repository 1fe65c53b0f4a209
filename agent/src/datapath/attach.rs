//! How programs are attached, and where. `tcx` and `clsact` attach them.

use std::{fs, io, path::Path};

use aya::programs::TcAttachType;
use nix::net::if_::if_indextoname;

use super::{DatapathError, error::chain, pins::failed};

/// The programs and their hooks. A packet that leaves a workload arrives at the TC ingress of its
/// host-side interface.
pub(super) const HOOKS: [(&str, TcAttachType); 2] = [
    ("from_workload", TcAttachType::Ingress),
    ("to_workload", TcAttachType::Egress),
];

/// How programs are attached on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachKind {
    /// tcx links (Linux 6.6); they survive `tc qdisc del`, and renames and moves of the interface.
    Tcx,
    /// Filters on a clsact qdisc.
    Clsact,
}

impl AttachKind {
    /// `tcx` or `clsact`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// One hook of one interface.
pub(super) struct AttachPoint<'a> {
    pub(super) ifindex: u32,
    pub(super) interface: &'a str,
    pub(super) name: &'static str,
    pub(super) hook: TcAttachType,
}

impl AttachPoint<'_> {
    pub(super) fn failed(
        &self,
        operation: &'static str,
        error: &dyn std::error::Error,
    ) -> DatapathError {
        self.refused(operation, &chain(error))
    }

    pub(super) fn refused(&self, operation: &'static str, reason: &str) -> DatapathError {
        DatapathError::Attach {
            interface: self.interface.to_owned(),
            ifindex: self.ifindex,
            operation,
            reason: reason.to_owned(),
        }
    }
}

/// The present name of an interface; `None` if it is gone from this network namespace.
pub(super) fn interface_name(ifindex: u32) -> Option<String> {
    if_indextoname(ifindex).ok()?.into_string().ok()
}

/// Removes a pin; no error if it does not exist.
pub(super) fn remove(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(pin, "remove", &error)),
        _ => Ok(()),
    }
}
