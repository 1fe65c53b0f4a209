//! `cargo xtask churn`: workloads, namespaces and policies come and go under traffic.
//!
//! What comes and goes, and what must be freed, is in the test bed.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, test};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    test::require_root("the kernel programs")?;
    demo::become_testbed_program("ringfence-churn", arguments)
}
