//! Threads that stay on one CPU.

use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// How many CPUs there are for us.
pub(crate) fn count() -> Result<usize> {
    Ok(thread::available_parallelism()?.get())
}

/// Keeps the calling thread on one CPU, so that whoever it measures has the others. Its children
/// would stay there too.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on CPU {cpu}"))
}
