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
/// The client of the Kubernetes API.
const CLIENT: &str = "kube_client";

/// Starts logging.
pub(super) fn init() -> Result<()> {
    let directives = std::env::var(VARIABLE).unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(filter(&directives)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow!("cannot start logging: {error}"))
}

/// The filter of these directives: by default `info`. The default holds only as long as nothing else is parsed, so
/// what is added to it is added afterwards.
fn filter(directives: &str) -> Result<EnvFilter> {
    let invalid = |error: String| InvalidInput(format!("{VARIABLE}: {error}"));
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse(directives)
        .map_err(|error| invalid(error.to_string()))?;
    if directives.contains(CLIENT) {
        return Ok(filter);
    }
    let quiet = format!("{CLIENT}=off").parse();
    Ok(filter.add_directive(quiet.map_err(|error| {
        let error: tracing_subscriber::filter::ParseError = error;
        invalid(error.to_string())
    })?))
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn the_client_is_quiet_and_all_else_as_asked_for() {
        for (directives, expected) in [
            ("", "kube_client=off,info"),
            ("debug", "kube_client=off,debug"),
            ("kube_client=debug,warn", "kube_client=debug,warn"),
        ] {
            assert_eq!(filter(directives).unwrap().to_string(), expected);
        }
    }
}
