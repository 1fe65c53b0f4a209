//! Names of what a case talks about: workloads, and the ends of a probe.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Error, ensure};

/// A workload, `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WorkloadName(Arc<str>);

impl WorkloadName {
    /// The namespace's name.
    pub(super) fn namespace(&self) -> &str {
        self.0
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// The name within the namespace.
    pub(super) fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// Both parts, as written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkloadName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let well_formed = text
            .split_once('/')
            .is_some_and(|(namespace, name)| is_label(namespace) && is_label(name));
        ensure!(
            well_formed,
            "{text:?} is no workload: expected namespace/name"
        );
        Ok(Self(text.into()))
    }
}

/// Whether this can name a namespace: what Kubernetes accepts, roughly.
pub(super) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.'))
}

/// Where a probe starts or ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// A workload.
    Workload(WorkloadName),
    /// The node's own sockets.
    Node,
    /// A host outside.
    Outside,
}

impl End {
    /// As cases write it.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Workload(name) => name.as_str(),
            Self::Node => "node",
            Self::Outside => "ext",
        }
    }

    /// The workload, if it is one.
    pub(super) fn workload(&self) -> Option<&WorkloadName> {
        match self {
            Self::Workload(name) => Some(name),
            Self::Node | Self::Outside => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for End {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "node" => Ok(Self::Node),
            "ext" => Ok(Self::Outside),
            workload => workload.parse().map(Self::Workload),
        }
    }
}
