//! `cargo xtask oracle`: compares random compiled policy sets with the oracle, on the host and
//! through the kernel programs.
//!
//! The two properties are also part of `cargo xtask test`; here they run alone, for any number of
//! policy sets. Their totals come last.

use std::process::ExitCode;

use anyhow::Result;

use crate::report::Report;
use crate::{setup, test, workspace};

/// The environment variable with the number of policy sets of the host's property; the kernel's
/// compares a fixed share of it.
const CASES: &str = "RINGFENCE_PROPTEST_CASES";
const PROPERTIES: [&str; 2] = [
    "compiled_rows_say_what_the_oracle_says",
    "the_programs_say_what_the_oracle_says",
];

/// The subcommand.
pub(crate) fn run(cases: Option<u32>) -> Result<ExitCode> {
    test::require_root("the kernel programs")?;
    let toolchain = setup::ensure()?;
    let mut cargo = workspace::cargo(&toolchain)?;
    cargo.args(["test", "--quiet", "--no-fail-fast"]);
    cargo.args(["--package", "ringfence", "--package", "ringfence-testbed"]);
    cargo.args(["--lib", "--test", "kernel", "--", "--nocapture"]);
    cargo.args(PROPERTIES);
    cargo.envs(cases.map(|cases| (CASES, cases.to_string())));
    Report::run_tests(cargo)
}
