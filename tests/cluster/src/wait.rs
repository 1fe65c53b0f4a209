//! Waiting for a condition: poll with a deadline, and say what did not happen.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Calls `poll` until it returns a value, at least once more after the deadline. An error from
/// `poll` ends the wait at once.
pub(crate) fn eventually<T>(
    deadline: Duration,
    pause: Duration,
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
        std::thread::sleep(pause);
    }
}
