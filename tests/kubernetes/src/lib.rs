//! Agents on the nodes of a real cluster, and pods that ask each other, for tests.
//!
//! An agent runs as a process in the namespaces of its node, with a service account that may do what an agent
//! must and nothing else. Requests between pods are started from the client's node, whose processes every
//! workload accepts, so that they need no API server.

mod agent;
mod connection;
mod pods;
pub mod release;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use agent::{Agent, Credentials};
pub use connection::Connection;
pub use pods::{Pod, create_namespace, manifest, request, request_to, server_policy};

/// How long something may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls `poll` until it is true. The error says what it was about, and the last error.
pub fn eventually(what: &str, mut poll: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    loop {
        let is_last = Instant::now() >= end;
        match poll() {
            Ok(true) => return Ok(()),
            Err(error) if is_last => return Err(error.context(format!("waiting for: {what}"))),
            Ok(false) if is_last => bail!("timed out waiting for: {what}"),
            Ok(false) | Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// `RINGFENCE_BIN`: an agent that was built with `cargo xtask build --kubernetes`.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("RINGFENCE_BIN");
    let path = path.context("set RINGFENCE_BIN to what `cargo xtask build --kubernetes` prints")?;
    Ok(PathBuf::from(path).canonicalize()?)
}
