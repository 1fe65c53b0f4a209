//! `cargo xtask attack`: hostile frames against a release build of the agent.
//!
//! Arguments go to the attack as they are; it takes this process's place, so the exit status is its
//! own. What is sent and what must become of it lives in the test bed.

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
