//! The test programs that are to notice, built once, and run until the first test fails.
//!
//! Invariants: the random tests draw the same worlds for every bug, few of them, and do not shrink;
//! each area has its suites, in the order in which they notice most per second, and a failure ends
//! the run.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::toolchain::Toolchain;
use crate::{child, workspace};

/// Names the bug to a test program; `common/src/mutant.rs` reads it.
const CHOSEN: &str = "RINGFENCE_MUTANT";
/// Settings of the random tests, unless the caller has others.
const DRAWN: [(&str, &str); 3] = [
    ("RINGFENCE_PROPTEST_CASES", "1500"),
    ("RINGFENCE_PROPTEST_SEED", "1"),
    ("PROPTEST_MAX_SHRINK_ITERS", "0"),
];
/// Test programs with the tests in them that are about policies.
const POLICY: [Suite; 4] = [
    ("ringfence", &["policy::tests::agreement"]),
    (
        "ringfence",
        &[
            "model::",
            "plan::",
            "policy::",
            "source::kubernetes",
            "source::policy",
        ],
    ),
    ("ringfence_common", &["policy::"]),
    ("kernel", &["agreement::"]),
];
/// Those that are about packets; the programs themselves come first.
const DATAPATH: [Suite; 2] = [
    (
        "kernel",
        &[
            "--skip",
            "agreement::",
            "--skip",
            "differential",
            "--skip",
            "schedules::",
        ],
    ),
    ("ringfence_common", &[]),
];

/// A test program, and what it is told.
type Suite = (&'static str, &'static [&'static str]);

/// What a bug is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    Policy,
    Datapath,
}

impl Area {
    const fn suites(self) -> &'static [Suite] {
        match self {
            Self::Policy => &POLICY,
            Self::Datapath => &DATAPATH,
        }
    }
}

/// What became of all suites.
pub(super) enum Outcome {
    Passed,
    /// The first test that failed.
    Failed(String),
}

pub(super) struct Suites {
    programs: Vec<Program>,
}

struct Program {
    name: String,
    path: PathBuf,
    /// Where cargo would run it.
    directory: PathBuf,
}

impl Suites {
    /// Builds what these areas need.
    pub(super) fn build(toolchain: &Toolchain, areas: &[Area]) -> Result<Self> {
        let mut cargo = workspace::cargo(toolchain)?;
        cargo.args(["test", "--no-run", "--message-format", "json"]);
        cargo.args([
            "--package",
            "ringfence-common",
            "--package",
            "ringfence-testbed",
        ]);
        if areas.contains(&Area::Policy) {
            cargo.args(["--package", "ringfence"]);
        }
        cargo.args([
            "--lib",
            "--test",
            "kernel",
            "--features",
            "ringfence-testbed/mutants",
        ]);
        cargo.stderr(Stdio::inherit());
        let programs = child::output_of(&mut cargo)?
            .lines()
            .filter_map(|line| program(&serde_json::from_str(line).ok()?))
            .collect();
        Ok(Self { programs })
    }

    /// Runs everything of an area with a bug, or without any.
    pub(super) fn run(&self, area: Area, bug: Option<&str>) -> Result<Outcome> {
        for (name, filters) in area.suites() {
            let program = self.programs.iter().find(|program| program.name == *name);
            let program = program.with_context(|| format!("cargo built no test program {name}"))?;
            if let Some(test) = program.first_failure(filters, bug)? {
                return Ok(Outcome::Failed(test));
            }
        }
        Ok(Outcome::Passed)
    }
}

/// The test program that a message of cargo announces, if it does.
fn program(message: &Value) -> Option<Program> {
    let path = message.get("executable")?.as_str()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    let name = message.pointer("/target/name")?.as_str()?;
    is_test.then(|| Program {
        name: name.replace('-', "_"),
        path: PathBuf::from(path),
        directory: manifest.parent().map(Path::to_path_buf).unwrap_or_default(),
    })
}

impl Program {
    fn first_failure(&self, filters: &[&str], bug: Option<&str>) -> Result<Option<String>> {
        let mut command = Command::new(&self.path);
        command.args(filters).current_dir(&self.directory);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.env_remove(CHOSEN);
        command.envs(bug.map(|bug| (CHOSEN, bug)));
        command.envs(
            DRAWN
                .iter()
                .filter(|(variable, _)| env::var_os(variable).is_none())
                .copied(),
        );
        let described = child::describe(&command);
        let mut running = command
            .spawn()
            .with_context(|| format!("cannot start `{described}`"))?;
        let output = running.stdout.take().context("no output is connected")?;
        let mut ran = false;
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read the tests' output")?;
            ran |= line.ends_with("... ok");
            if let Some(test) = failed(&line) {
                // What else would fail does not matter. It may have ended by itself.
                _ = running.kill();
                running.wait().context("cannot learn how the tests ended")?;
                return Ok(Some(format!("{}::{test}", self.name)));
            }
        }
        let status = running.wait().context("cannot learn how the tests ended")?;
        if !status.success() {
            return Ok(Some(format!("{}, which ended with {status}", self.name)));
        }
        ensure!(ran, "`{described}` ran no test");
        Ok(None)
    }
}

/// The name in `test NAME ... FAILED`.
fn failed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libtests_own_line_is_a_failure() {
        assert_eq!(failed("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failed("test a::b ... ok"), None);
        assert_eq!(failed("it said: test a::b ... FAILED"), None);
        assert_eq!(failed("test result: FAILED. 0 passed"), None);
    }

    #[test]
    fn test_programs_are_told_from_other_artifacts() {
        let message = |executable: &str, test: bool| {
            let text = format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/agent/Cargo.toml",
                "target":{{"name":"ringfence-common"}},"profile":{{"test":{test}}},
                "executable":{executable}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let found = program(&message("\"/t/x\"", true)).unwrap();
        assert_eq!(found.name, "ringfence_common");
        assert_eq!(found.directory, Path::new("/w/agent"));
        assert!(program(&message("\"/t/x\"", false)).is_none());
        assert!(program(&message("null", true)).is_none());
    }
}
