//! The tests that must catch a seeded bug, built once, and run until the first of them fails.
//!
//! A suite is a test program (`kernel`) or a module of one (`kernel::fragments`). Invariants: the
//! random tests draw the same worlds for every bug, few of them, and do not shrink; a kernel program
//! that does not load does not count as a catch, because then every test of it fails.

use std::env;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::child;

/// Names the bug to a test program; `switch.rs` reads it.
const CHOSEN: &str = "RINGFENCE_MUTANT";
/// Settings of the random tests, unless the caller has others.
const DRAWN: [(&str, &str); 3] = [
    ("RINGFENCE_PROPTEST_CASES", "1500"),
    ("RINGFENCE_PROPTEST_SEED", "1"),
    ("PROPTEST_MAX_SHRINK_ITERS", "0"),
];
/// Exit code of libtest when a test failed; the test's own line names it.
const FAILED: i32 = 101;
/// The program that runs the kernel programs, and a test in it that passes if they load.
const KERNEL: &str = "kernel";
const LOADS: &str = "object::every_named_map_is_in_the_object_and_pinned";
/// The test programs, with the package each comes from.
const PROGRAMS: [(&str, &str); 3] = [
    ("ringfence", "ringfence"),
    ("ringfence_common", "ringfence-common"),
    (KERNEL, "ringfence-testbed"),
];

/// A test program, and the module in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suite<'a> {
    program: &'a str,
    module: &'a str,
}

impl fmt::Display for Suite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module {
            "" => f.write_str(self.program),
            module => write!(f, "{}::{module}", self.program),
        }
    }
}

/// The suite of that name, if it is of a program that is built here.
pub(super) fn parse(name: &str) -> Option<Suite<'_>> {
    let (program, module) = name.split_once("::").unwrap_or((name, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let known = names().contains(&program) && module.chars().all(plain);
    known.then_some(Suite { program, module })
}

/// The test programs.
pub(super) fn names() -> [&'static str; 3] {
    PROGRAMS.map(|(name, _)| name)
}

/// What became of a suite.
pub(super) enum Outcome {
    Passed,
    /// The first test that failed.
    Failed(String),
    /// The kernel refused the programs.
    Refused,
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
    /// Builds, with a cargo that stands in the copy, what these suites need.
    pub(super) fn build<'a>(
        mut cargo: Command,
        suites: &(impl Iterator<Item = Suite<'a>> + Clone),
    ) -> Result<Self> {
        cargo.args([
            "test",
            "--no-run",
            "--message-format",
            "json-render-diagnostics",
        ]);
        // The test bed is always there, so that the shared crate has the same features each time.
        for (name, package) in PROGRAMS {
            if name == KERNEL || suites.clone().any(|suite| suite.program == name) {
                cargo.args(["--package", package]);
            }
        }
        cargo.args(["--lib", "--test", KERNEL]);
        // Seeded bugs may cause warnings.
        cargo.env("RUSTFLAGS", "--cap-lints=allow");
        cargo.stderr(Stdio::inherit());
        let programs = child::output_of(&mut cargo)?
            .lines()
            .filter_map(|line| program(&serde_json::from_str(line).ok()?))
            .collect();
        Ok(Self { programs })
    }

    /// Runs a suite with a bug, or without any.
    pub(super) fn run(&self, suite: Suite<'_>, bug: Option<&str>) -> Result<Outcome> {
        let named = |program: &&Program| program.name == suite.program;
        let program = self.programs.iter().find(named);
        let program =
            program.with_context(|| format!("cargo built no test program {}", suite.program))?;
        let run = program.run(suite.module, bug)?;
        let Some(test) = run.failure else {
            return Ok(Outcome::Passed);
        };
        if suite.program == KERNEL && !run.passed && program.run(LOADS, bug)?.failure.is_some() {
            return Ok(Outcome::Refused);
        }
        Ok(Outcome::Failed(test))
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

/// What was seen of a test program until it ended or a test failed.
struct Run {
    failure: Option<String>,
    /// A test passed before.
    passed: bool,
}

impl Program {
    /// Runs the tests whose name begins with `module` until one fails.
    fn run(&self, module: &str, bug: Option<&str>) -> Result<Run> {
        let mut command = Command::new(&self.path);
        command.arg(module).current_dir(&self.directory);
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
        let mut passed = false;
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read the tests' output")?;
            // libtest also runs tests whose name contains the module's name elsewhere.
            let Some((test, ok)) = result(&line).filter(|(test, _)| test.starts_with(module))
            else {
                continue;
            };
            passed |= ok;
            if !ok {
                // Further failures do not matter. The program may have ended by itself.
                _ = running.kill();
                running.wait().context("cannot learn how the tests ended")?;
                return Ok(Run {
                    failure: Some(format!("{}::{test}", self.name)),
                    passed,
                });
            }
        }
        let status = running.wait().context("cannot learn how the tests ended")?;
        let crashed = !status.success() && status.code() != Some(FAILED);
        let failure = crashed.then(|| format!("{}, which ended with {status}", self.name));
        ensure!(
            passed || failure.is_some(),
            "`{described}` ran no test: name a module that has some as the suite"
        );
        Ok(Run { failure, passed })
    }
}

/// The name in `test NAME ... ok` or `... FAILED`, and whether the test passed.
fn result(line: &str) -> Option<(&str, bool)> {
    let rest = line.strip_prefix("test ")?;
    let ok = rest.strip_suffix(" ... ok").map(|test| (test, true));
    ok.or_else(|| Some((rest.strip_suffix(" ... FAILED")?, false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_a_program_or_a_module_of_one() {
        let suite = parse("kernel::fragments").unwrap();
        assert_eq!((suite.program, suite.module), ("kernel", "fragments"));
        let whole = parse("ringfence_common").unwrap();
        assert_eq!((whole.program, whole.module), ("ringfence_common", ""));
        assert_eq!(parse("fence::start"), None);
        assert_eq!(parse("kernel::--skip x"), None);
    }

    #[test]
    fn only_libtests_own_line_is_a_result() {
        assert_eq!(result("test a::b ... FAILED"), Some(("a::b", false)));
        assert_eq!(result("test a::b ... ok"), Some(("a::b", true)));
        assert_eq!(result("it said: test a::b ... FAILED"), None);
        assert_eq!(result("test a::b ... ignored"), None);
        assert_eq!(result("test result: FAILED. 0 passed"), None);
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
