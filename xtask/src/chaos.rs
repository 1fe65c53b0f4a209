//! `cargo xtask chaos`: kills, upgrades and faults under traffic, on a release build of the agent.
//!
//! What happens, and what must not, is in the test bed.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, other_layout, setup, test};

/// The subcommand. Upgrades need a build with another layout as well.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    test::require_root("the agent")?;
    let needs_other = arguments.iter().any(|argument| argument == "upgrades");
    let other = if needs_other {
        Some(other_layout::build(&setup::ensure()?)?)
    } else {
        None
    };
    let environment = other.as_deref().map(|path| (other_layout::VARIABLE, path));
    demo::become_testbed_program_with("ringfence-chaos", arguments, environment)
}
