//! Ending a cluster whole, whatever state it is in.
//!
//! What there is to end follows from the folder alone: the cgroup by its name, further processes by
//! the ledger. The folder goes last, so a `down` that was killed can be repeated. Namespaces, and
//! the mounts and interfaces in them, end with their processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::home::{Folder, Home};
use crate::ledger::{Ledger, ProcessId, boot_id};
use crate::wait::eventually;

/// Ends the cluster of `folder`; nothing happens if there is none.
pub fn down(folder: &Folder) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let lock = folder.lock()?;
    let cgroup = Cgroup::named(&folder.cgroup())?;
    cgroup.kill()?;
    let listed = processes_of_this_boot(folder)?;
    end(&listed)?;
    cgroup.remove()?;
    unmount_below(folder.path())?;
    fs::remove_dir_all(folder.path())
        .with_context(|| format!("removing {}", folder.path().display()))?;
    drop(lock);
    Ok(())
}

/// Ends all clusters of `home`: the outcome for each, by name.
pub fn down_all(home: &Home) -> Result<Vec<(String, Result<()>)>> {
    let end = |folder: Folder| (folder.name().to_owned(), down(&folder));
    Ok(home.folders()?.into_iter().map(end).collect())
}

/// Ends the clusters whose owner has ended.
pub(crate) fn end_abandoned(home: &Home) -> Result<()> {
    for folder in home.folders()? {
        let owner = folder.description().ok().and_then(|d| d.owner);
        if owner.is_some_and(|owner| !owner.lives()) && folder.lock().is_ok() {
            down(&folder)?;
        }
    }
    Ok(())
}

/// The ledger's processes, unless they are of another boot.
fn processes_of_this_boot(folder: &Folder) -> Result<Vec<ProcessId>> {
    let boot = folder
        .description()
        .ok()
        .map(|description| description.boot);
    if boot.is_some_and(|boot| boot_id().is_ok_and(|now| now != boot)) {
        return Ok(Vec::new());
    }
    let entries = Ledger::at(folder.ledger()).all()?;
    Ok(entries.iter().map(|entry| entry.process).collect())
}

fn end(processes: &[ProcessId]) -> Result<()> {
    let (deadline, pause) = (Duration::from_secs(10), Duration::from_millis(5));
    eventually(deadline, pause, "the end of the listed processes", || {
        let mut ended = true;
        for process in processes {
            let pid = Pid::from_raw(process.pid);
            if process.lives() {
                ended = false;
                // It may end by itself at this moment.
                let _ = kill(pid, Signal::SIGKILL);
            } else {
                // Only a child of this process is waited for; all others are init's.
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            }
        }
        Ok(ended.then_some(()))
    })
}

/// Nothing of a cluster is mounted in the host's namespace; if a person did, their mounts would be
/// removed with the folder's contents.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<&str> = paths
        .filter(|path| Path::new(path).starts_with(folder))
        .collect();
    below.reverse();
    for path in below {
        umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {path}"))?;
    }
    Ok(())
}
