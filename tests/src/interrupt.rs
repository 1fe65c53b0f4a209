//! Ctrl-C as an ordinary error, so that an interrupted run cleans up like a completed one.
//!
//! The signals are blocked in every thread and received by one, which only sets a flag. Code that
//! waits checks the flag. Children inherit the blocked signals: Ctrl-C on a terminal reaches the
//! whole process group, and must not end the agent or a command while it is still in use.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Blocks the signals and starts the thread that receives them.
pub fn watch() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().context("blocking signals")?;
    let wait = move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Release);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .context("starting a thread")?;
    Ok(())
}

/// Returns an error once a signal has been received.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Acquire), "interrupted");
    Ok(())
}
