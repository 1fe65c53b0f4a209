//! `ringfence agent` and `ringfence cleanup`.
//!
//! Starts the log and prints; `app` does the work.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::table::escape;
use super::{output, tracing_setup};
use crate::app;

#[derive(Debug, Args)]
pub(super) struct AgentArguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Wait while another agent uses the same bpffs or state-dir, and take over when it ends.
    ///
    /// Without it the start fails with exit code 2. While it waits, /readyz names the holder.
    #[arg(long)]
    wait_for_lock: bool,
}

#[derive(Debug, Args)]
pub(super) struct CleanupArguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: &AgentArguments) -> Result<ExitCode> {
    tracing_setup::init()?;
    app::run(&arguments.config, arguments.wait_for_lock)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn cleanup(arguments: &CleanupArguments) -> Result<ExitCode> {
    tracing_setup::init()?;
    for line in app::cleanup(&arguments.config)? {
        output::print(&format!("{}\n", escape(&line)))?;
    }
    Ok(ExitCode::SUCCESS)
}
