//! Timer interrupts on the packets' CPU, so that programs are held up in every place.
//!
//! A program runs for a fraction of a microsecond, and between two of its loads nothing can happen
//! on another CPU unless something holds it up. On a busy machine interrupts do; here a thread on
//! the same CPU lets a high-resolution timer expire every few microseconds. A timer interrupt takes
//! longer than a write, so what a lookup found can be recycled before its value is read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_timerslack;

/// The kernel adds its own overhead of about ten microseconds.
const PERIOD: Duration = Duration::from_micros(5);

/// Causes interrupts on the calling thread's CPU while `running`.
pub(super) fn run(running: &AtomicBool) -> Result<()> {
    // By default the kernel may delay each timer by 50 microseconds.
    set_timerslack(1).context("setting the timer slack")?;
    while running.load(Ordering::SeqCst) {
        std::thread::sleep(PERIOD);
    }
    Ok(())
}
