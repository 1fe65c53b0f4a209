//! `cargo xtask conformance`: a directory of conformance cases, on a release build of the agent.
//!
//! Arguments are passed on unchanged; the runner replaces this process, so the exit status is its
//! own. The test bed reads and runs the cases. Root is needed on the wire, not offline.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, test};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let unprivileged = ["--offline", "--help", "-h"];
    if !arguments
        .iter()
        .any(|argument| unprivileged.iter().any(|word| argument == word))
    {
        test::require_root("conformance cases on the wire")?;
    }
    demo::become_testbed_program("ringfence-conformance", &absolute(arguments))
}

/// Makes paths absolute: the runner starts in the root of the checkout, not in the current
/// directory.
fn absolute(arguments: &[OsString]) -> Vec<OsString> {
    let absolute = |argument: &OsString| match std::path::absolute(argument) {
        Ok(path) if path.exists() => path.into_os_string(),
        _ => argument.clone(),
    };
    arguments.iter().map(absolute).collect()
}
