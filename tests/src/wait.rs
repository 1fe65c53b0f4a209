//! Waiting for a condition: poll with a deadline, and report what did not happen.
//!
//! Nothing in the test bed sleeps for a fixed time and assumes that something has happened. On a machine
//! that is slower than any real one, an emulated one, every deadline is longer by [`FACTOR`].

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const PAUSE: Duration = Duration::from_millis(2);
/// The environment variable with the factor by which every deadline is longer; without it, 1.
pub const FACTOR: &str = "RINGFENCE_DEADLINE_FACTOR";
/// Waits of less than a second are waits for silence. They stay shorter than the three seconds after
/// which a host gives up asking for a neighbour's hardware address, and the four after which it gives up
/// connecting if its own interface drops what it sends: both would look like a refusal.
const SILENCE: Duration = Duration::from_secs(2);

/// A deadline for this machine.
///
/// # Errors
/// When the factor is no number.
pub fn for_this_machine(deadline: Duration) -> Result<Duration> {
    longer(deadline, std::env::var(FACTOR).ok().as_deref())
}

fn longer(deadline: Duration, factor: Option<&str>) -> Result<Duration> {
    let Some(factor) = factor else {
        return Ok(deadline);
    };
    let number: u32 = factor
        .parse()
        .with_context(|| format!("{FACTOR}={factor} is not a number"))?;
    let longer = deadline * number.max(1);
    Ok(if deadline < Duration::from_secs(1) {
        longer.min(SILENCE)
    } else {
        longer
    })
}

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
    let deadline = for_this_machine(deadline)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_longer_only_by_a_factor() {
        let second = Duration::from_secs(1);
        assert_eq!(longer(second, None).unwrap(), second);
        assert_eq!(longer(second, Some("10")).unwrap(), 10 * second);
        let short = Duration::from_millis(250);
        assert_eq!(longer(short, Some("2")).unwrap(), 2 * short);
        assert_eq!(longer(short, Some("20")).unwrap(), SILENCE);
        // Never shorter.
        assert_eq!(longer(second, Some("0")).unwrap(), second);
        assert!(longer(second, Some("much")).is_err());
    }
}
