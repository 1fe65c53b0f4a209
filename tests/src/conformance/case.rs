//! A conformance case, read from its file and checked as far as possible without running it.
//!
//! Errors are reported with the file's name and line. A case that was read successfully refers only
//! to workloads and namespaces that exist at that step, has one verb in each step, and uses no
//! placeholder without a value.

mod raw;
mod verb;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use serde_saphyr::Spanned;

use super::cluster::{Cluster, HostAddresses};
use super::grid::{Expectation, Verdict};
use super::name::{WorkloadName, is_label};
use super::pattern::Patterns;
use super::port::Port;
use super::substitution;

pub(super) use verb::{Mode, Stop, Verb};

/// Labels or ports by name; `None` removes an existing one.
pub(super) type Changes = BTreeMap<String, Option<String>>;

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// The cluster before the first step, except addresses.
    pub(super) delta: Delta,
    pub(super) steps: Vec<Step>,
}

/// A case's changes to the default topology.
#[derive(Clone, Debug, Default)]
pub(super) struct Delta {
    pub(super) namespaces: BTreeMap<String, Changes>,
    pub(super) workloads: BTreeMap<WorkloadName, WorkloadDelta>,
    pub(super) grid: Vec<Port>,
}

/// A case's changes to one workload.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkloadDelta {
    pub(super) labels: Changes,
    pub(super) service_account: Option<String>,
    pub(super) ports: Changes,
    pub(super) ip4: Option<Ipv4Addr>,
    pub(super) ip6: Option<Ipv6Addr>,
}

/// One step, with the expectations after it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) verb: Verb,
    /// A step without expectations inherits those of the previous step.
    pub(super) expect: Arc<[Expectation]>,
}

/// A case file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct Unreadable {
    file: String,
    line: u64,
    reason: String,
}

/// Reads and checks one file.
pub(super) fn read(path: &Path) -> Result<Case, Unreadable> {
    let unreadable = |line, reason| Unreadable {
        file: path.display().to_string(),
        line,
        reason,
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let text = std::fs::read_to_string(path)
        .map_err(|error| unreadable(1, format!("cannot read the file: {error}")))?;
    parse(&stem, &text).map_err(|error| unreadable(error.line, error.reason))
}

/// An error with its line.
#[derive(Debug)]
struct ParseError {
    line: u64,
    reason: String,
}

fn parse(stem: &str, text: &str) -> Result<Case, ParseError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let raw: raw::Case = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let reason = error.without_snippet().to_string();
        ParseError {
            line: error.location().map_or(1, |at| at.line()),
            reason: reason.lines().collect::<Vec<_>>().join(" "),
        }
    })?;
    at(&raw.name, || {
        let name = &raw.name.value;
        ensure!(
            *name == stem,
            "the case's name is {name:?}, but its file's is {stem:?}"
        );
        Ok(())
    })?;
    at(&raw.tag, || {
        let tag = raw.tag.value.as_str();
        ensure!(
            matches!(tag, "S" | "U" | "O"),
            "tag {tag:?}: expected S, U or O"
        );
        Ok(())
    })?;
    let mut case = Case {
        name: raw.name.value,
        delta: delta(raw.delta.unwrap_or_default())?,
        steps: Vec::new(),
    };
    let mut lines = Vec::new();
    let mut expect: Arc<[Expectation]> = Arc::from([]);
    for step in raw.steps {
        let line = step.referenced.line();
        let mut raw = step.value;
        if let Some(given) = raw.expect.take() {
            expect = given
                .into_iter()
                .map(expectation)
                .collect::<Result<_, _>>()?;
        }
        case.steps.push(Step {
            verb: verb::of(raw).map_err(|error| error_at(line, &error))?,
            expect: Arc::clone(&expect),
        });
        lines.push(line);
    }
    validate(&case, &lines)?;
    Ok(case)
}

/// Applies the steps to a simulated cluster, to find references to things that do not exist.
fn validate(case: &Case, lines: &[u64]) -> Result<(), ParseError> {
    let mut cluster =
        Cluster::new(case, HostAddresses::PLACEHOLDER).map_err(|error| error_at(1, &error))?;
    for (step, line) in case.steps.iter().zip(lines) {
        cluster
            .apply(&step.verb)
            .and_then(|()| {
                let texts = step.verb.text().into_iter();
                texts
                    .map(|text| substitution::fill_in(text, &cluster, jiff::Timestamp::UNIX_EPOCH))
                    .try_for_each(|filled| filled.map(|_| ()))
            })
            .map_err(|error| error_at(*line, &error))?;
    }
    Ok(())
}

fn delta(raw: raw::Delta) -> Result<Delta, ParseError> {
    let mut delta = Delta::default();
    for (name, namespace) in raw.namespaces.unwrap_or_default() {
        at(&namespace, || {
            ensure!(is_label(&name), "{name:?} is not a valid namespace name");
            Ok(())
        })?;
        let labels = namespace.value.unwrap_or_default().labels;
        delta.namespaces.insert(name, labels.unwrap_or_default());
    }
    for (name, raw) in raw.workloads.unwrap_or_default() {
        let line = raw.referenced.line();
        let parsed = name
            .parse()
            .and_then(|name| Ok((name, workload(raw.value.unwrap_or_default())?)));
        let (name, workload) = parsed.map_err(|error| error_at(line, &error))?;
        delta.workloads.insert(name, workload);
    }
    for port in raw.grid.unwrap_or_default() {
        delta.grid.push(at(&port, || port.value.parse())?);
    }
    Ok(delta)
}

fn workload(raw: raw::Workload) -> Result<WorkloadDelta> {
    let ports = raw.ports.unwrap_or_default();
    for (name, port) in &ports {
        if let Some(port) = port {
            // The inventory accepts more protocols than the grid; this check is no stricter than
            // the inventory.
            let shape = port.split_once('/');
            ensure!(
                shape.is_some_and(|(_, number)| number.parse::<u16>().is_ok()),
                "port {name}: {port:?}: expected e.g. tcp/80"
            );
        }
    }
    Ok(WorkloadDelta {
        labels: raw.labels.unwrap_or_default(),
        service_account: raw.service_account,
        ports,
        ip4: raw.ip4.as_deref().map(address).transpose()?,
        ip6: raw.ip6.as_deref().map(address).transpose()?,
    })
}

fn address<T: std::str::FromStr<Err = std::net::AddrParseError>>(text: &str) -> Result<T> {
    text.parse()
        .with_context(|| format!("{text:?} is not an address of this family"))
}

fn expectation(raw: Spanned<raw::Expectation>) -> Result<Expectation, ParseError> {
    let verdict = at(&raw, || match raw.value.verdict.as_str() {
        "allow" => Ok(Verdict::Allow),
        "deny" => Ok(Verdict::Deny),
        "any" => Ok(Verdict::Any),
        other => bail!("verdict {other:?}: expected allow, deny or any"),
    })?;
    let patterns = |globs: Option<raw::OneOrMany>| {
        globs.map_or_else(Patterns::any, |globs| Patterns::new(globs.into_globs()))
    };
    let raw = raw.value;
    Ok(Expectation {
        from: patterns(raw.from),
        to: patterns(raw.to),
        port: patterns(raw.port),
        family: patterns(raw.family),
        verdict,
    })
}

fn at<T, S>(place: &Spanned<S>, check: impl FnOnce() -> Result<T>) -> Result<T, ParseError> {
    check().map_err(|error| error_at(place.referenced.line(), &error))
}

fn error_at(line: u64, error: &anyhow::Error) -> ParseError {
    ParseError {
        line,
        reason: format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests;
