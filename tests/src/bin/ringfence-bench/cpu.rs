//! Pinning threads to CPUs. Threads and children of a pinned thread inherit the pinning, so agents
//! are started by an unpinned thread.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs that this process may use.
pub(crate) fn all() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("getting the CPU affinity")?;
    let cpus = 0..CpuSet::count();
    Ok(cpus
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Pins the calling thread to one CPU, so that what it measures has the others.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pinning to CPU {cpu}"))
}

/// Pins the calling thread to the last CPU and returns its number.
pub(crate) fn pin_to_last() -> Result<usize> {
    let cpu = *all()?.last().context("no CPU to run on")?;
    pin(cpu)?;
    Ok(cpu)
}

/// Keeps the calling thread off the last one, if there are others.
pub(crate) fn leave_last() -> Result<()> {
    let mut set = CpuSet::new();
    let cpus = all()?;
    let others = cpus.len().saturating_sub(1).max(1);
    cpus.into_iter()
        .take(others)
        .try_for_each(|cpu| set.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set).context("leaving a CPU to the measurement")
}
