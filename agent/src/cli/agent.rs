//! `ringfence agent` and `ringfence cleanup`.
//!
//! Starts the log and prints; `app` does the work.

use std::path::PathBuf;
use std::process::ExitCode;
#[cfg(feature = "kubernetes")]
use std::time::Duration;

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
    /// Wait while an agent runs, and clean up when it has ended.
    #[arg(long)]
    wait_for_lock: bool,
    /// Afterwards, wait for SIGTERM or SIGINT, as a pod of a DaemonSet must.
    #[arg(long)]
    hold: bool,
}

#[cfg(feature = "kubernetes")]
#[derive(Debug, Args)]
pub(super) struct AwaitArguments {
    /// The namespace of the pods.
    #[arg(long)]
    namespace: crate::model::NamespaceName,
    /// Only nodes with this label; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    node_label: Vec<String>,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "4m")]
    timeout: super::duration::Duration,
}

/// Waits for the cleanup of every node.
#[cfg(feature = "kubernetes")]
pub(super) async fn await_cleanup(arguments: AwaitArguments) -> Result<ExitCode> {
    let awaited = app::Awaited {
        namespace: arguments.namespace.to_string(),
        node_labels: arguments.node_label,
        timeout: Duration::from_secs(arguments.timeout.seconds().into()),
    };
    let nodes = app::await_cleanup(&awaited).await?;
    output::print(&format!("no fences on {nodes} nodes\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn mount_bpffs() -> Result<ExitCode> {
    output::print(&format!("{}\n", app::mount_bpffs()?))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run(arguments: &AgentArguments) -> Result<ExitCode> {
    tracing_setup::init()?;
    app::run(&arguments.config, arguments.wait_for_lock)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn cleanup(arguments: &CleanupArguments) -> Result<ExitCode> {
    tracing_setup::init()?;
    for line in app::cleanup(&arguments.config, arguments.wait_for_lock)? {
        output::print(&format!("{}\n", escape(&line)))?;
    }
    if arguments.hold {
        app::hold()?;
        // An agent that was between two starts may have begun again, and has ended by now.
        app::cleanup(&arguments.config, false)?;
    }
    Ok(ExitCode::SUCCESS)
}
