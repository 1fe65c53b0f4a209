//! Threads that stay on one CPU. Threads and children of such a thread stay there too, so agents are
//! started by another one.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs that there are for us.
pub(crate) fn all() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking for CPUs")?;
    let cpus = 0..CpuSet::count();
    Ok(cpus
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Keeps the calling thread on one CPU, so that whoever it measures has the others.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on CPU {cpu}"))
}

/// Keeps it on the last one; returns which that is.
pub(crate) fn pin_to_last() -> Result<usize> {
    let cpu = *all()?.last().context("no CPU to run on")?;
    pin(cpu)?;
    Ok(cpu)
}
