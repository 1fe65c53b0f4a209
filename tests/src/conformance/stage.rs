//! Where a case is played: offline on paper, or on the wire.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::case::Stop;
use super::grid::{Judged, Miss};
use super::world::{Ends, World};

/// The texts of all policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Policies {
    /// Kubernetes objects, a YAML stream.
    pub(super) objects: String,
    /// TOML policies.
    pub(super) toml: String,
}

/// What became of policies that should be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reception {
    /// They were taken.
    Accepted,
    /// They were refused, with this error.
    Refused(String),
}

/// What was seen of a grid.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    /// The cells that are not as wanted.
    pub(super) misses: Vec<Miss>,
    /// What the agent says is wrong, if anything.
    pub(super) complaint: Option<String>,
}

/// Something that can play cases, one after another. An error means that it no longer can.
pub(super) trait Stage {
    /// The addresses of the ends that are no workloads.
    fn ends(&self) -> Ends;

    /// The time that policies and steps go by.
    fn now(&self) -> Timestamp;

    /// Brings world and policies in line with these. `Some` is the agent's refusal.
    fn update(&mut self, world: &World, policies: &Policies) -> Result<Option<String>>;

    /// Offers policies that must be refused, and leaves them in place of the former ones.
    fn offer(&mut self, policies: &Policies) -> Result<Reception>;

    /// Controls: which of the cells are not open.
    fn closed(&mut self, cells: &[Judged]) -> Result<Vec<Miss>>;

    /// What is not as wanted, once what was last changed has had its time.
    fn look(&mut self, cells: &[Judged]) -> Result<Sight>;

    /// Lets time pass.
    fn wait(&mut self, span: Duration) -> Result<()>;

    /// Stops the agent and starts it again.
    fn restart(&mut self, how: Stop) -> Result<()>;
}
