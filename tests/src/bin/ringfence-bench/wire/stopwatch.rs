//! Time spent by the thread that measures.
//!
//! Its processor time is what is wanted: it leaves out whoever else the scheduler lets run on this CPU
//! in the meantime. But it only serves where the kernel books what it does for a packet on the way to
//! the other end to the thread that sent it; a kernel built to account for interrupts apart does not,
//! and there the clock on the wall has to do.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// A clock to measure with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Processor time of the thread.
    Thread,
    /// The clock on the wall.
    Wall,
}

/// The least part of the time on the wall that a thread which has its CPU for itself is booked for.
const WHOLE: f64 = 0.9;
/// How often that is tried, and how long a try should be enough for the thread to be undisturbed.
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

    /// The time now, from some beginning.
    pub(crate) fn now(self) -> Result<Duration> {
        let clock = match self {
            Self::Thread => ClockId::CLOCK_THREAD_CPUTIME_ID,
            Self::Wall => ClockId::CLOCK_MONOTONIC,
        };
        Ok(clock_gettime(clock).context("reading a clock")?.into())
    }

    /// What it counts, for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Thread => "processor time",
            Self::Wall => "time on the wall",
        }
    }
}
