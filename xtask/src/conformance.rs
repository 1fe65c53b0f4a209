//! `cargo xtask conformance`: a folder of conformance cases, on a release build of the agent.
//!
//! Arguments go to the runner as they are; it takes this process's place, so the exit status is
//! its own. What a case says and how it is judged lives in the test bed. Root is needed on the
//! wire, not offline.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{demo, test};

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let harmless = ["--offline", "--help", "-h"];
    if !arguments
        .iter()
        .any(|argument| harmless.iter().any(|word| argument == word))
    {
        test::require_root("conformance cases on the wire")?;
    }
    demo::become_testbed_program("ringfence-conformance", &absolute(arguments))
}

/// The runner starts in the checkout's root, which need not be where its folder was named from.
fn absolute(arguments: &[OsString]) -> Vec<OsString> {
    let absolute = |argument: &OsString| match std::path::absolute(argument) {
        Ok(path) if path.exists() => path.into_os_string(),
        _ => argument.clone(),
    };
    arguments.iter().map(absolute).collect()
}
