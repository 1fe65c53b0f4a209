//! Ctrl-C as an ordinary error, so that leaving early cleans up as leaving does.
//!
//! The signals are blocked everywhere and taken by one thread, which only sets a flag. Whoever
//! waits asks for it. Children inherit the blocked signals: Ctrl-C on a terminal reaches the whole
//! process group, and must not take the agent or a command away in the middle of something.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts to watch for signals.
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

/// An error once a signal has come.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Acquire), "interrupted");
    Ok(())
}
