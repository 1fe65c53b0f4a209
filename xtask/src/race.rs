//! `cargo xtask race`: records are rewritten under packets, in the kernel programs as they ship.
//!
//! The packets and the writes are in the test bed.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, test};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    test::require_root("the kernel programs")?;
    demo::become_testbed_program("ringfence-race", arguments)
}
