//! `cargo xtask demo`: Ringfence at work, on a release build of the agent.
//!
//! The demo replaces this process, so it receives Ctrl-C, cleans up, and sets the exit status. The
//! demo itself is in the test bed.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::{build, child, setup, test, workspace};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    test::require_root("the demo")?;
    become_testbed_program("ringfence-demo", arguments)
}

/// Builds everything and replaces this process with the test bed's `program`; returns only on
/// failure.
pub(crate) fn become_testbed_program(program: &str, arguments: &[OsString]) -> Result<ExitCode> {
    become_testbed_program_with(program, arguments, None)
}

/// The same, with one more environment variable.
pub(crate) fn become_testbed_program_with(
    program: &str,
    arguments: &[OsString],
    variable: Option<(&str, &Path)>,
) -> Result<ExitCode> {
    let toolchain = setup::ensure()?;
    let agent = build::release(&toolchain)?;
    let mut cargo = workspace::cargo(&toolchain)?;
    cargo.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "ringfence-testbed",
        "--bin",
        program,
    ]);
    cargo
        .arg("--")
        .args(arguments)
        .env(test::AGENT_VARIABLE, agent)
        .envs(variable);
    match child::replace_by(cargo)? {}
}
