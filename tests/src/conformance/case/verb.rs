//! The verbs of steps.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Changes, WorkloadDelta, raw, workload};
use crate::conformance::duration;
use crate::conformance::name::WorkloadName;
use crate::conformance::objects::ObjectKey;

/// The verb of a step, with its arguments.
#[derive(Clone, Debug)]
pub(in crate::conformance) enum Verb {
    /// Create or replace Kubernetes objects.
    Apply(String),
    /// Replace the whole set of TOML policies.
    ApplyToml(String),
    /// Delete Kubernetes objects.
    Delete(Vec<ObjectKey>),
    /// Change labels of a workload.
    LabelWorkload(WorkloadName, Changes),
    /// Change labels of a namespace.
    LabelNamespace(String, Changes),
    /// Add workloads.
    Add(BTreeMap<WorkloadName, WorkloadDelta>),
    /// Remove workloads.
    Remove(Vec<WorkloadName>),
    /// Remove the first workload and recreate the second with the first one's address.
    MoveAddress(WorkloadName, WorkloadName),
    /// Set modes of namespaces.
    Mode(BTreeMap<String, Mode>),
    /// Wait.
    Wait(Duration),
    /// Stop and start the agent.
    Restart(Stop),
    /// Like `Apply`, but must be refused and change nothing.
    Reject(String),
    /// Like `ApplyToml`, but must be refused and change nothing.
    RejectToml(String),
}

/// A namespace's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conformance) enum Mode {
    Observe,
    Enforce,
    Lockdown,
}

impl Mode {
    /// The name on the agent's command line.
    pub(in crate::conformance) const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
            Self::Lockdown => "lockdown",
        }
    }
}

/// How the agent is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conformance) enum Stop {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Term,
}

impl Verb {
    /// The policy text, which may contain placeholders.
    pub(in crate::conformance) fn text(&self) -> Option<&str> {
        match self {
            Self::Apply(text)
            | Self::ApplyToml(text)
            | Self::Reject(text)
            | Self::RejectToml(text) => Some(text),
            Self::Delete(_)
            | Self::LabelWorkload(..)
            | Self::LabelNamespace(..)
            | Self::Add(_)
            | Self::Remove(_)
            | Self::MoveAddress(..)
            | Self::Mode(_)
            | Self::Wait(_)
            | Self::Restart(_) => None,
        }
    }
}

/// The only verb of a step.
pub(super) fn of(raw: raw::Step) -> Result<Verb> {
    let verbs = [
        raw.apply.map(|text| Ok(Verb::Apply(text))),
        raw.apply_toml.map(|text| Ok(Verb::ApplyToml(text))),
        raw.reject.map(|text| Ok(Verb::Reject(text))),
        raw.reject_toml.map(|text| Ok(Verb::RejectToml(text))),
        raw.delete.map(|keys| delete(&keys)),
        raw.label.map(label),
        raw.add.map(add),
        raw.remove.map(|names| each(&names).map(Verb::Remove)),
        raw.move_address
            .map(|it| Ok(Verb::MoveAddress(it.from.parse()?, it.to.parse()?))),
        raw.mode.map(mode),
        raw.wait.map(|text| Ok(Verb::Wait(duration::parse(&text)?))),
        raw.restart_agent.map(|how| restart(&how)),
    ];
    let mut given = verbs.into_iter().flatten();
    let verb = given.next().context("the step has no verb")??;
    ensure!(given.next().is_none(), "the step has more than one verb");
    Ok(verb)
}

fn delete(keys: &[String]) -> Result<Verb> {
    let keys = keys.iter().map(|key| key.parse());
    Ok(Verb::Delete(keys.collect::<Result<_>>()?))
}

fn label(raw: raw::Label) -> Result<Verb> {
    match (raw.workload, raw.namespace) {
        (Some(workload), None) => Ok(Verb::LabelWorkload(workload.parse()?, raw.labels)),
        (None, Some(namespace)) => Ok(Verb::LabelNamespace(namespace, raw.labels)),
        _ => bail!("label: expected either workload or namespace"),
    }
}

fn add(raw: BTreeMap<String, Option<raw::Workload>>) -> Result<Verb> {
    let added = raw
        .into_iter()
        .map(|(name, raw)| Ok((name.parse()?, workload(raw.unwrap_or_default())?)));
    Ok(Verb::Add(added.collect::<Result<_>>()?))
}

fn each(names: &[String]) -> Result<Vec<WorkloadName>> {
    names.iter().map(|name| name.parse()).collect()
}

fn mode(raw: BTreeMap<String, String>) -> Result<Verb> {
    let modes = raw.into_iter().map(|(namespace, mode)| {
        let mode = match mode.as_str() {
            "observe" => Mode::Observe,
            "enforce" => Mode::Enforce,
            "lockdown" => Mode::Lockdown,
            other => bail!("mode {other:?}: expected observe, enforce or lockdown"),
        };
        Ok((namespace, mode))
    });
    Ok(Verb::Mode(modes.collect::<Result<_>>()?))
}

fn restart(how: &str) -> Result<Verb> {
    match how {
        "kill" => Ok(Verb::Restart(Stop::Kill)),
        "term" => Ok(Verb::Restart(Stop::Term)),
        other => bail!("restart-agent: {other:?}: expected kill or term"),
    }
}
