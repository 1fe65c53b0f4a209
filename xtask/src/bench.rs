//! `cargo xtask bench`: measurements of a release build of the agent.
//!
//! Arguments are passed to the benchmark unchanged. For a comparison with another revision, its agent
//! is built first. The measurements are in the test bed.

mod against;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, test};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    // The policy engine alone needs no privileges.
    if !arguments.iter().any(|argument| argument == "--scale") {
        test::require_root("the benchmark")?;
    }
    demo::become_testbed_program("ringfence-bench", &against::prepare(arguments)?)
}
