//! Runs cases offline: `ringfence policy eval` evaluates policies, and this backend applies the
//! modes.
//!
//! The files are written again for each evaluation, so that nothing is left from the previous one.
//! Time is virtual: waiting advances a clock that is passed to the agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::backend::{Backend, CheckResult, Policies, Submission};
use super::case::Stop;
use super::cluster::{Cluster, HostAddresses, Mode};
use super::grid::{Cell, ExpectedCell, Got, Mismatch};
use super::inventory_text;
use super::name::End;

/// The agent's exit status for invalid input.
const INVALID: i32 = 2;

/// The offline backend.
#[derive(Debug)]
pub(super) struct Offline {
    agent: PathBuf,
    dir: TempDir,
    /// How far the virtual clock is ahead of the real one.
    ahead: Duration,
    cluster: Option<Cluster>,
}

#[derive(Serialize)]
struct Query<'a> {
    from: &'a str,
    to: &'a str,
    port: String,
    family: u8,
}

#[derive(Deserialize)]
struct Evaluation {
    egress: Side,
    ingress: Side,
}

#[derive(Deserialize)]
struct Side {
    verdict: String,
}

impl Offline {
    /// A backend that runs this agent binary.
    pub(super) fn new(agent: PathBuf) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("ringfence-conformance-")
            .tempdir()
            .context("creating a temporary directory")?;
        fs::create_dir(dir.path().join("policies"))?;
        Ok(Self {
            agent,
            dir,
            ahead: Duration::ZERO,
            cluster: None,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, policies: &Policies) -> Result<()> {
        let objects = self.path("policies/objects.yaml");
        fs::write(objects, &policies.objects)?;
        fs::write(self.path("policies/policies.toml"), &policies.toml)?;
        Ok(())
    }

    fn run(&self, command: &mut Command) -> Result<Output> {
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        let output = command.output();
        output.with_context(|| format!("running {}", self.agent.display()))
    }

    fn eval(&self, queries: &str) -> Result<Output> {
        fs::write(self.path("queries.jsonl"), queries)?;
        self.run(
            Command::new(&self.agent)
                .args(["policy", "eval", "--policies", "policies"])
                .args(["--inventory", "inventory.toml"])
                .args(["--queries", "queries.jsonl"])
                .args(["--now", &self.now().to_string()]),
        )
    }

    /// The agent's error if it refuses the current files.
    fn refusal(&self) -> Result<Option<String>> {
        let output = self.eval("")?;
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => Ok(None),
            Some(INVALID) => Ok(Some(error)),
            _ => bail!("ringfence policy eval: {}: {error}", output.status),
        }
    }

    fn evaluate(&self, cells: &[ExpectedCell]) -> Result<Vec<Mismatch>> {
        let cluster = self.cluster.as_ref().context("there is no cluster yet")?;
        let mut queries = String::new();
        for expected in cells {
            queries.push_str(&query(cluster, &expected.cell)?);
            queries.push('\n');
        }
        let output = self.eval(&queries)?;
        ensure!(
            output.status.success(),
            "ringfence policy eval: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let output = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = output.lines().collect();
        ensure!(
            lines.len() == cells.len(),
            "{} queries, but {} lines of output",
            cells.len(),
            lines.len()
        );
        let mut mismatches = Vec::new();
        for (expected, evaluation) in cells.iter().zip(lines) {
            let evaluation: Evaluation = serde_json::from_str(evaluation)
                .with_context(|| format!("parsing {evaluation}"))?;
            let got = apply_modes(cluster, &expected.cell, &evaluation)?;
            if !expected.want.matches(got) {
                mismatches.push(Mismatch {
                    expected: expected.clone(),
                    got,
                });
            }
        }
        Ok(mismatches)
    }
}

impl Backend for Offline {
    fn host_addresses(&self) -> HostAddresses {
        HostAddresses::PLACEHOLDER
    }

    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::try_from(self.ahead).unwrap_or(SignedDuration::MAX);
        Timestamp::now()
            .checked_add(ahead)
            .unwrap_or(Timestamp::MAX)
    }

    fn update(&mut self, cluster: &Cluster, policies: &Policies) -> Result<Option<String>> {
        let inventory = inventory_text::of(cluster, |_| None).build();
        fs::write(self.path("inventory.toml"), inventory)?;
        self.cluster = Some(cluster.clone());
        self.write(policies)?;
        self.refusal()
    }

    fn submit(&mut self, policies: &Policies) -> Result<Submission> {
        let former = |name: &str| -> Result<String> {
            let path = self.path(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let former = Policies {
            objects: former("policies/objects.yaml")?,
            toml: former("policies/policies.toml")?,
        };
        self.write(policies)?;
        let output = self.run(
            Command::new(&self.agent)
                .args(["policy", "check"])
                .arg(Path::new("policies")),
        )?;
        let refusal = if output.status.code() == Some(INVALID) {
            Some(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        } else {
            // Errors that only show with the inventory.
            self.refusal()?
        };
        // Offline there is no last good content: restore the former files.
        self.write(&former)?;
        Ok(refusal.map_or(Submission::Accepted, Submission::Refused))
    }

    fn check_controls(&mut self, cells: &[ExpectedCell]) -> Result<Vec<Mismatch>> {
        self.evaluate(cells)
    }

    fn check(&mut self, cells: &[ExpectedCell]) -> Result<CheckResult> {
        Ok(CheckResult {
            mismatches: self.evaluate(cells)?,
            agent_error: None,
        })
    }

    fn wait(&mut self, span: Duration) -> Result<()> {
        self.ahead += span;
        Ok(())
    }

    fn restart(&mut self, _how: Stop) -> Result<()> {
        Ok(())
    }
}

fn query(cluster: &Cluster, cell: &Cell) -> Result<String> {
    let end = |end: &End| -> Result<String> {
        Ok(match end {
            End::Workload(name) => name.to_string(),
            End::Node | End::Outside => cluster.address(end, cell.family)?.to_string(),
        })
    };
    let query = Query {
        from: &end(&cell.from)?,
        to: &end(&cell.to)?,
        port: cell.port.to_string(),
        family: match cell.family {
            super::port::Family::V4 => 4,
            super::port::Family::V6 => 6,
        },
    };
    Ok(serde_json::to_string(&query)?)
}

/// Applies the modes to the two verdicts.
fn apply_modes(cluster: &Cluster, cell: &Cell, evaluation: &Evaluation) -> Result<Got> {
    // Traffic of a workload to itself does not pass its fence.
    let itself = cell.from == cell.to;
    for (end, side) in [
        (&cell.from, &evaluation.egress),
        (&cell.to, &evaluation.ingress),
    ] {
        let denied = match side.verdict.as_str() {
            "allow" => false,
            "deny" => true,
            other => bail!("unknown verdict {other:?}"),
        };
        let mode = end.workload().map(|name| cluster.mode_of(name));
        let drops = match mode {
            Some(Mode::Lockdown) => !itself,
            Some(Mode::Observe) => false,
            // Only workloads have a fence; but a deny verdict for another end is an error of the
            // agent.
            Some(Mode::Enforce) | None => denied,
        };
        if drops {
            return Ok(Got::Deny);
        }
    }
    Ok(Got::Allow)
}

#[cfg(test)]
mod tests;
