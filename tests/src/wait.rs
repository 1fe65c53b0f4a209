//! Waiting for a condition: poll with a deadline, and report what did not happen.
//!
//! Nothing in the test bed sleeps for a fixed time and assumes that something has happened.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(2);

/// Calls `poll` until it returns a value. An error from `poll` ends the wait at once; running past
/// the deadline is an error that names `what`.
///
/// `poll` always runs at least once more after the deadline, so that a machine that stalled
/// between two polls does not fail a condition that holds.
pub fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let last = Instant::now() >= end;
        if let Some(value) = poll()? {
            return Ok(value);
        }
        if last {
            bail!("timed out after {deadline:?} waiting for: {what}");
        }
        std::thread::sleep(PAUSE);
    }
}
