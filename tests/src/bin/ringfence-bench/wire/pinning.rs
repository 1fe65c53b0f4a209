//! One CPU for both ends, and as little as possible of anybody else on it.
//!
//! The thread that measures stays on the machine's last CPU with the best priority that ordinary
//! scheduling has; real-time scheduling would be throttled in the middle of a sample. Threads and
//! children of that thread inherit both, so agents are started by another one.

#![allow(unsafe_code, reason = "no safe wrapper sets the priority of a thread")]

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Pins the calling thread; returns its CPU.
pub(crate) fn pin() -> Result<usize> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("asking for CPUs")?;
    let allowed: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    let cpu = *allowed.last().context("no CPU to run on")?;
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(this, &only).context("pinning the thread")?;
    // SAFETY: takes three numbers and touches no memory of ours. What it changes on Linux is the
    // calling thread alone. Failing leaves the priority as it was, which costs precision only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    Ok(cpu)
}
