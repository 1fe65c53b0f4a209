//! `cargo xtask flood`: some endpoints flood the node, on a release build of the agent.
//!
//! The frames and the counts are in the test bed.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, test};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    test::require_root("the flood")?;
    demo::become_testbed_program("ringfence-flood", arguments)
}
