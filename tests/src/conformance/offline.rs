//! Playing cases on paper: `ringfence policy eval` judges, the runner applies the modes.
//!
//! A new directory of files for each question, so that nothing is left over from the one before.
//! Time is virtual: waiting moves a clock that the agent is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::case::Stop;
use super::grid::{Cell, Got, Judged, Miss};
use super::inventory_text;
use super::name::End;
use super::stage::{Policies, Reception, Sight, Stage};
use super::world::{Ends, Mode, World};

/// The agent's exit status for input that it refuses.
const INVALID: i32 = 2;

/// A stage on paper.
#[derive(Debug)]
pub(super) struct Offline {
    agent: PathBuf,
    dir: TempDir,
    /// How far the virtual clock is ahead of the real one.
    ahead: Duration,
    world: Option<World>,
}

#[derive(Serialize)]
struct Query<'a> {
    from: &'a str,
    to: &'a str,
    port: String,
    family: u8,
}

#[derive(Deserialize)]
struct Answer {
    egress: Side,
    ingress: Side,
}

#[derive(Deserialize)]
struct Side {
    verdict: String,
}

impl Offline {
    /// A stage that asks this agent binary.
    pub(super) fn new(agent: PathBuf) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("ringfence-conformance-")
            .tempdir()
            .context("making a temporary directory")?;
        fs::create_dir(dir.path().join("policies"))?;
        Ok(Self {
            agent,
            dir,
            ahead: Duration::ZERO,
            world: None,
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

    /// The refusal of what is written now, if it is refused.
    fn refusal(&self) -> Result<Option<String>> {
        let output = self.eval("")?;
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => Ok(None),
            Some(INVALID) => Ok(Some(error)),
            _ => bail!("ringfence policy eval: {}: {error}", output.status),
        }
    }

    fn judge(&self, cells: &[Judged]) -> Result<Vec<Miss>> {
        let world = self.world.as_ref().context("judging without a world")?;
        let mut queries = String::new();
        for judged in cells {
            queries.push_str(&query(world, &judged.cell)?);
            queries.push('\n');
        }
        let output = self.eval(&queries)?;
        ensure!(
            output.status.success(),
            "ringfence policy eval: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let answers = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<&str> = answers.lines().collect();
        ensure!(
            answers.len() == cells.len(),
            "{} queries had {} answers",
            cells.len(),
            answers.len()
        );
        let mut misses = Vec::new();
        for (judged, answer) in cells.iter().zip(answers) {
            let answer: Answer =
                serde_json::from_str(answer).with_context(|| format!("the answer {answer}"))?;
            let got = act(world, &judged.cell, &answer)?;
            if !judged.want.is(got) {
                misses.push(Miss {
                    judged: judged.clone(),
                    got,
                });
            }
        }
        Ok(misses)
    }
}

impl Stage for Offline {
    fn ends(&self) -> Ends {
        Ends::FOR_READING
    }

    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::try_from(self.ahead).unwrap_or(SignedDuration::MAX);
        Timestamp::now()
            .checked_add(ahead)
            .unwrap_or(Timestamp::MAX)
    }

    fn update(&mut self, world: &World, policies: &Policies) -> Result<Option<String>> {
        let inventory = inventory_text::of(world, |_| None).build();
        fs::write(self.path("inventory.toml"), inventory)?;
        self.world = Some(world.clone());
        self.write(policies)?;
        self.refusal()
    }

    fn offer(&mut self, policies: &Policies) -> Result<Reception> {
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
            // What only the inventory shows to be wrong.
            self.refusal()?
        };
        // On paper there is no last good content: nobody but us keeps what was refused away.
        self.write(&former)?;
        Ok(refusal.map_or(Reception::Accepted, Reception::Refused))
    }

    fn closed(&mut self, cells: &[Judged]) -> Result<Vec<Miss>> {
        self.judge(cells)
    }

    fn look(&mut self, cells: &[Judged]) -> Result<Sight> {
        Ok(Sight {
            misses: self.judge(cells)?,
            complaint: None,
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

fn query(world: &World, cell: &Cell) -> Result<String> {
    let end = |end: &End| -> Result<String> {
        Ok(match end {
            End::Workload(name) => name.to_string(),
            End::Node | End::Outside => world.address(end, cell.family)?.to_string(),
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

/// What the modes make of the two verdicts.
fn act(world: &World, cell: &Cell, answer: &Answer) -> Result<Got> {
    // What a workload says to itself never comes to its fence.
    let itself = cell.from == cell.to;
    for (end, side) in [(&cell.from, &answer.egress), (&cell.to, &answer.ingress)] {
        let denied = match side.verdict.as_str() {
            "allow" => false,
            "deny" => true,
            other => bail!("the verdict {other:?} is none"),
        };
        let mode = end.workload().map(|name| world.mode_of(name));
        let drops = match mode {
            Some(Mode::Lockdown) => !itself,
            Some(Mode::Observe) => false,
            // Only workloads have a fence; an agent that denies elsewhere is wrong all the same.
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
