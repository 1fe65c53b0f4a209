//! The interface of the two backends that run cases: offline and on the wire.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::case::Stop;
use super::cluster::{Cluster, HostAddresses};
use super::grid::{ExpectedCell, Mismatch};

/// The texts of all policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Policies {
    /// Kubernetes objects, a YAML stream.
    pub(super) objects: String,
    /// TOML policies.
    pub(super) toml: String,
}

/// The result of submitting policies that should be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Submission {
    /// They were accepted.
    Accepted,
    /// They were refused, with this error.
    Refused(String),
}

/// The result of checking a grid.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckResult {
    /// The cells whose result differs from the expected one.
    pub(super) mismatches: Vec<Mismatch>,
    /// The error that the agent reports, if any.
    pub(super) agent_error: Option<String>,
}

/// A backend that runs cases, one after another. An error means that it is no longer usable.
pub(super) trait Backend {
    /// The addresses of the ends that are not workloads.
    fn host_addresses(&self) -> HostAddresses;

    /// The current time for policies and steps.
    fn now(&self) -> Timestamp;

    /// Applies the cluster's state and the policies. `Some` is the agent's refusal.
    fn update(&mut self, cluster: &Cluster, policies: &Policies) -> Result<Option<String>>;

    /// Submits policies that must be refused, in place of the current ones.
    fn submit(&mut self, policies: &Policies) -> Result<Submission>;

    /// Checks controls: returns the cells that do not have the expected result.
    fn check_controls(&mut self, cells: &[ExpectedCell]) -> Result<Vec<Mismatch>>;

    /// Returns the cells without the expected result, once the last change had time to take effect.
    fn check(&mut self, cells: &[ExpectedCell]) -> Result<CheckResult>;

    /// Waits.
    fn wait(&mut self, span: Duration) -> Result<()>;

    /// Stops the agent and starts it again.
    fn restart(&mut self, how: Stop) -> Result<()>;
}
