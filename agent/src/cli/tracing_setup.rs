//! The daemon's log: stderr, filtered by `RINGFENCE_LOG`.
//!
//! Invariants: colours only on a terminal; an invalid filter is bad usage; what the client of the Kubernetes
//! API logs is only shown if it is asked for, because the source says each error once. Flow records are not
//! part of this log.

use std::io::{self, IsTerminal};

use anyhow::{Result, anyhow};
use tracing_subscriber::EnvFilter;

use super::InvalidInput;

const VARIABLE: &str = "RINGFENCE_LOG";
/// What comes before the filter, and can be replaced by it.
const QUIET: &str = "kube_client=off";

/// Starts logging.
pub(super) fn init() -> Result<()> {
    let directives = std::env::var(VARIABLE).unwrap_or_default();
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse(format!("{QUIET},{directives}"))
        .map_err(|error| InvalidInput(format!("{VARIABLE}: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow!("cannot start logging: {error}"))
}
