//! `cargo xtask bench`: measurements of a release build of the agent.
//!
//! Arguments go to the benchmark as they are, with the agent of another revision where they ask for a
//! comparison with one. What is measured, and against what, lives in the
//! test bed.

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
