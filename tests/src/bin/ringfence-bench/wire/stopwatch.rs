//! Time spent by the thread that measures.
//!
//! Processor time excludes other tasks on this CPU. It is usable only where the kernel accounts
//! packet processing to the thread that sent the packet. A kernel that accounts interrupts
//! separately does not, and the wall clock is used there.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// The clock of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Processor time of the thread.
    Thread,
    /// The wall clock.
    Wall,
}

/// The least share of wall-clock time that must be accounted to a thread with a CPU of its own.
const WHOLE: f64 = 0.9;
/// How often that is tried, and how long a try must be for the thread to be undisturbed.
const TRIES: usize = 50;

impl Clock {
    /// The best clock for what `work` does.
    pub(crate) fn choose(mut work: impl FnMut() -> Result<()>) -> Result<Self> {
        for _ in 0..TRIES {
            let (thread, wall) = (Self::Thread.now()?, Self::Wall.now()?);
            work()?;
            let (wall, thread) = (Self::Wall.now()? - wall, Self::Thread.now()? - thread);
            if thread.as_secs_f64() >= WHOLE * wall.as_secs_f64() {
                return Ok(Self::Thread);
            }
        }
        Ok(Self::Wall)
    }

    /// The current time, from an arbitrary start.
    pub(crate) fn now(self) -> Result<Duration> {
        let clock = match self {
            Self::Thread => ClockId::CLOCK_THREAD_CPUTIME_ID,
            Self::Wall => ClockId::CLOCK_MONOTONIC,
        };
        Ok(clock_gettime(clock).context("reading a clock")?.into())
    }

    /// Its name, for output.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Thread => "processor time",
            Self::Wall => "time on the wall",
        }
    }
}
