//! Which tests run on every kernel, and how they are built and started in a guest.
//!
//! Emulation is slow, so not all do. Of the suite `kernel` all run but those left out by name: random
//! properties, floods and races, which say little about a kernel in the time that they take; restarts, which
//! load the programs many times; what an emulated machine is too slow for (rates to exceed, and bridges to be
//! looked at before their links are attached); and on a kernel without tcx the tests of tcx links. Of the suite
//! `fence` only those run that are named here. Both are printed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::results;
use crate::guest::{KernelPackage, Session};
use crate::toolchain::Toolchain;
use crate::{child, report, test, workspace};

/// Deadlines of tests are longer by this factor: the test bed's `wait::FACTOR`.
const FACTOR: (&str, &str) = ("RINGFENCE_DEADLINE_FACTOR", "20");
/// Where tests report in the guest, which nothing else uses.
const REPORT: &str = "/run/ringfence-report";
/// The series from which on the kernel has tcx.
const TCX: (u32, u32) = (6, 6);

/// A test program and what of it runs.
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// Only tests whose name contains one of these; all if empty.
    only: &'static [&'static str],
    /// Tests that take too long in emulation, or for which it is too slow.
    slow: &'static [&'static str],
    /// Tests of tcx links.
    tcx: &'static [&'static str],
}

pub(super) const SUITES: [Suite; 2] = [
    Suite {
        name: "kernel",
        only: &[],
        slow: &[
            "agreement::",
            "differential::",
            "ct_claims::",
            "ct_usage::",
            "flood",
            "restart::",
            "a_scan_is_aggregated",
            "requests_are_limited",
            "a_bridge_is_the_fence_until",
            "a_bridge_that_was_taken_away",
        ],
        tcx: &["bridge::", "migration::"],
    },
    Suite {
        name: "fence",
        only: &["any_kernel::", "modes::", "live::enforcing_stops"],
        slow: &[],
        tcx: &[],
    },
];

impl Suite {
    /// The names of tests that do not run on a kernel.
    fn left_out(&self, kernel: &KernelPackage) -> Vec<&'static str> {
        let tcx = if has_tcx(&kernel.series()) {
            &[]
        } else {
            self.tcx
        };
        self.slow.iter().chain(tcx).copied().collect()
    }
}

/// What runs on a kernel, for people.
pub(super) fn description(kernel: &KernelPackage) -> String {
    let named = |names: &[&str]| {
        let names = names.iter().map(|name| name.trim_end_matches("::"));
        names.collect::<Vec<_>>().join(", ")
    };
    let suites = SUITES.iter().map(|suite| {
        let chosen = match suite.only {
            [] => "all".to_owned(),
            only => format!("only {}", named(only)),
        };
        match suite.left_out(kernel) {
            names if names.is_empty() => format!("of {} {chosen}", suite.name),
            names => format!("of {} {chosen} without {}", suite.name, named(&names)),
        }
    });
    suites.collect::<Vec<_>>().join("; ")
}

/// The names in [`Suite::only`] that none of these tests has: a test was renamed, and nothing runs in its
/// place.
pub(super) fn without_tests(ran: &[String]) -> Vec<String> {
    let names = SUITES
        .iter()
        .flat_map(|suite| suite.only.iter().map(|name| (suite.name, *name)));
    let is_missing = |&(suite, name): &(&str, &str)| {
        let mut of_suite = ran
            .iter()
            .filter_map(|test| test.strip_prefix(suite)?.strip_prefix("::"));
        !of_suite.any(|test| test.contains(name))
    };
    names
        .filter(is_missing)
        .map(|(suite, name)| format!("{suite}::{name}"))
        .collect()
}

fn has_tcx(series: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    let parts = series.split_once('.');
    let version = parts.and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    version.is_some_and(|version| version >= TCX)
}

/// The programs of [`SUITES`], and the agent.
pub(super) struct Programs {
    agent: PathBuf,
    suites: Vec<PathBuf>,
    directory: PathBuf,
}

impl Programs {
    /// Builds them without optimisation; the kernel programs are always optimised.
    pub(super) fn build(toolchain: &Toolchain) -> Result<Self> {
        let mut agent = workspace::cargo(toolchain)?;
        agent.args(["build", "--package", "ringfence", "--bin", "ringfence"]);
        child::run(&mut agent)?;
        let mut tests = workspace::cargo(toolchain)?;
        tests.args(["test", "--no-run", "--package", "ringfence-testbed"]);
        for suite in &SUITES {
            tests.args(["--test", suite.name]);
        }
        tests.args(["--message-format", "json-render-diagnostics"]);
        let messages = child::output_of(tests.stderr(Stdio::inherit()))?;
        let program = |suite: &Suite| {
            let found = executable(&messages, suite.name);
            found.with_context(|| format!("cargo built no test program `{}`", suite.name))
        };
        Ok(Self {
            agent: workspace::agent_binary("debug")?,
            suites: SUITES.iter().map(program).collect::<Result<_>>()?,
            directory: workspace::root()?.join("tests"),
        })
    }

    /// All suites, one after the other, on a kernel.
    pub(super) fn session(&self, kernel: &KernelPackage, filters: &[String]) -> Session {
        let mut script = String::from("failed=0\n");
        let mut arguments: Vec<OsString> = Vec::new();
        for (suite, program) in SUITES.iter().zip(&self.suites) {
            let first = arguments.len() + 1;
            arguments.push(program.into());
            let chosen = filters.iter().map(String::as_str);
            let only: Vec<&str> = if filters.is_empty() {
                suite.only.to_vec()
            } else {
                chosen.collect()
            };
            arguments.extend(only.into_iter().map(OsString::from));
            for name in suite.left_out(kernel) {
                arguments.extend(["--skip".into(), name.into()]);
            }
            let count = arguments.len() + 1 - first;
            script += &format!(
                "echo '{mark}{name}'\n\"${{@:{first}:{count}}}\" || failed=1\n",
                mark = results::SUITE,
                name = suite.name,
            );
        }
        script += &format!("cat {REPORT}\nexit $failed\n");
        let mut words: Vec<OsString> = ["/bin/bash", "-c"].map(OsString::from).to_vec();
        words.extend([script.into(), "bash".into()]);
        words.extend(arguments);
        Session {
            program: words,
            directory: self.directory.clone(),
            environment: vec![
                (test::AGENT_VARIABLE.to_owned(), self.agent.clone().into()),
                (report::VARIABLE.to_owned(), REPORT.into()),
                (FACTOR.0.to_owned(), FACTOR.1.into()),
                ("RUST_BACKTRACE".to_owned(), "0".into()),
            ],
        }
    }
}

/// The path of a test program in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let mut messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.find_map(|message| {
        let target = message.get("target")?;
        let is_it = target.get("name")? == name
            && target
                .get("kind")?
                .as_array()?
                .iter()
                .any(|kind| kind == "test");
        let path = message.get("executable")?.as_str()?;
        is_it.then(|| Path::new(path).to_path_buf())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcx_is_there_from_6_6_on() {
        let with: Vec<bool> = ["5.10", "6.1", "6.5", "6.6", "6.12", "7.0", "?"]
            .map(has_tcx)
            .to_vec();
        assert_eq!(with, [false, false, false, true, true, true, false]);
    }

    #[test]
    fn a_name_without_tests_is_noticed() {
        let ran = [
            "fence::any_kernel::a",
            "fence::modes::b",
            "kernel::live::enforcing_stops",
        ];
        let missing = without_tests(&ran.map(str::to_owned));
        assert_eq!(missing, ["fence::live::enforcing_stops"]);
    }

    #[test]
    fn a_test_program_is_found_by_target() {
        let message = |kind: &str, name: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/x/{kind}-{name}"}}"#
            )
        };
        let messages = [
            r#"{"reason":"build-script-executed"}"#.to_owned(),
            message("bin", "fence"),
            message("test", "kernel"),
            message("test", "fence"),
            "text".to_owned(),
        ];
        let messages = messages.join("\n");
        let found = executable(&messages, "fence").unwrap();
        assert_eq!(found, Path::new("/x/test-fence"));
        assert!(executable(&messages, "demo").is_none());
    }
}
