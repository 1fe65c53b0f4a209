//! Names of workloads and of the ends of a probe.

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

/// Whether this is a valid namespace name, approximately by the rules of Kubernetes.
pub(super) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.'))
}

/// The source or target of a probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// A workload.
    Workload(WorkloadName),
    /// The host.
    Node,
    /// An external host.
    Outside,
}

impl End {
    /// The name in case files.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Workload(name) => name.as_str(),
            Self::Node => "node",
            Self::Outside => "ext",
        }
    }

    /// The workload's name, if the end is a workload.
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
