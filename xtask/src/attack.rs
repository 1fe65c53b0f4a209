//! `cargo xtask attack`: hostile frames against a release build of the agent.
//!
//! Arguments are passed on unchanged; the attack program replaces this process, so the exit status
//! is its own. The test bed defines the frames and their expected results.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, test};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    if !arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        test::require_root("attacks on the wire")?;
    }
    demo::become_testbed_program("ringfence-attack", arguments)
}
