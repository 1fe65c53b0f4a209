//! Ctrl-C as a flag, so that an interrupted command cleans up like a completed one.
//!
//! The signals are blocked in every thread and received by one, which only sets the flag. Code that
//! waits checks the flag. Processes started afterwards inherit the blocked signals.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WATCHED: OnceLock<()> = OnceLock::new();

/// Blocks the signals and starts the thread that receives them, once. No other thread of this
/// process may be running.
pub(crate) fn watch() -> Result<()> {
    if WATCHED.set(()).is_err() {
        return Ok(());
    }
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().context("cannot block signals")?;
    let wait = move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Release);
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .context("cannot start a thread")?;
    Ok(())
}

/// An error once a signal has been received.
pub(crate) fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Acquire), "interrupted");
    Ok(())
}
