//! A cluster's cgroup: one of the same name in every hierarchy.
//!
//! `NAME/system` has the components and `NAME/nK` the pods of a node. In the freezer hierarchy
//! every process of the cluster is in it: the thread that starts a component joins first. Frozen,
//! the list of processes cannot change, so [`Cgroup::kill`] ends exactly the cluster's processes
//! whatever they fork.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::eventually;

const SYSTEM: &str = "system";
const PAUSE: Duration = Duration::from_millis(5);

/// A cluster's cgroup, which need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    /// Its folder in the freezer hierarchy.
    freezer: PathBuf,
    /// Its folders in all hierarchies.
    all: Vec<PathBuf>,
}

impl Cgroup {
    /// The cgroup `name` below the root of each hierarchy that is mounted.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let hierarchies = hierarchies(&mounts);
        let freezer = hierarchies
            .iter()
            .find(|hierarchy| hierarchy.options.split(',').any(|o| o == "freezer"))
            .context("no freezer hierarchy of cgroup v1 is mounted, which clusters need")?;
        Ok(Self {
            freezer: freezer.path.join(name),
            all: hierarchies.iter().map(|h| h.path.join(name)).collect(),
        })
    }

    /// Creates it, with a group for each of `nodes`.
    pub(crate) fn create(&self, nodes: &[String]) -> Result<()> {
        for folder in &self.all {
            let inner = nodes.iter().map(String::as_str).chain([SYSTEM]);
            for group in [folder.clone()]
                .into_iter()
                .chain(inner.map(|n| folder.join(n)))
            {
                fs::create_dir(&group).with_context(|| format!("creating {}", group.display()))?;
                inherit_cpuset(&group)?;
            }
        }
        Ok(())
    }

    /// Moves the calling thread in; what it starts is in it from the beginning.
    pub(crate) fn join(&self) -> Result<()> {
        let tasks = self.freezer.join(SYSTEM).join("tasks");
        fs::write(&tasks, "0").with_context(|| format!("writing {}", tasks.display()))
    }

    /// The processes in it, whatever started them.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let mut processes = Vec::new();
        for group in groups(&self.freezer)? {
            let text = match fs::read_to_string(group.join("cgroup.procs")) {
                Ok(text) => text,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error).context("reading cgroup.procs"),
            };
            processes.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        Ok(processes)
    }

    /// Ends every process in it and waits until they are gone.
    pub(crate) fn kill(&self) -> Result<()> {
        eventually(
            Duration::from_secs(30),
            PAUSE,
            "the end of all processes of the cluster",
            || {
                let processes = self.processes()?;
                if processes.is_empty() {
                    return Ok(Some(()));
                }
                self.kill_once()?;
                Ok(None)
            },
        )
    }

    fn kill_once(&self) -> Result<()> {
        self.set_state("FROZEN")?;
        // A process in an uninterruptible sleep freezes late: kill what there is, and come again.
        let frozen = || {
            let state = fs::read_to_string(self.freezer.join("freezer.state")).unwrap_or_default();
            Ok((state.trim() != "FREEZING").then_some(()))
        };
        let in_time = eventually(Duration::from_secs(2), PAUSE, "frozen", frozen);
        let own = Pid::this().as_raw();
        for process in self.processes()?.into_iter().filter(|pid| *pid != own) {
            // It cannot have ended, or does not matter.
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        // A group frozen by itself, for example a paused container, stays so otherwise.
        for group in groups(&self.freezer)? {
            let _ = fs::write(group.join("freezer.state"), "THAWED");
        }
        self.set_state("THAWED")?;
        drop(in_time);
        Ok(())
    }

    fn set_state(&self, state: &str) -> Result<()> {
        match fs::write(self.freezer.join("freezer.state"), state) {
            Err(error) if !is_gone(&error) => Err(error).context("writing freezer.state"),
            _ => Ok(()),
        }
    }

    /// Removes it; there must be no process in it.
    pub(crate) fn remove(&self) -> Result<()> {
        for folder in &self.all {
            let what = format!("the removal of {}", folder.display());
            eventually(Duration::from_secs(10), PAUSE, &what, || {
                for group in groups(folder)?.iter().rev() {
                    // The kernel refuses for a moment after the last process has gone.
                    let _ = fs::remove_dir(group);
                }
                Ok((!folder.exists()).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Those of its folders that exist.
    pub(crate) fn existing(&self) -> Vec<PathBuf> {
        let existing = self.all.iter().filter(|folder| folder.exists());
        existing.cloned().collect()
    }
}

/// A group and those in it, parents first; none if there is no such group.
fn groups(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(group) = open.pop() {
        let entries = match fs::read_dir(&group) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error).context("reading a cgroup"),
        };
        found.push(group);
        let folders = entries.flatten().map(|entry| entry.path());
        open.extend(folders.filter(|path| path.is_dir()));
    }
    Ok(found)
}

/// A cpuset accepts no process before it has CPUs and memory nodes.
fn inherit_cpuset(group: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Some(parent) = group.parent().map(|parent| parent.join(file)) else {
            continue;
        };
        let own = group.join(file);
        // Only version 1 needs it; in version 2 an empty value means the parent's.
        if own.exists() && !group.join("cgroup.controllers").exists() {
            fs::write(&own, fs::read(&parent)?)
                .with_context(|| format!("writing {}", own.display()))?;
        }
    }
    Ok(())
}

struct Hierarchy {
    path: PathBuf,
    options: String,
}

/// The cgroup file systems in the content of a mountinfo file.
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        let kind = file_system.next()?;
        let path = mount.split(' ').nth(4)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| Hierarchy {
            path: PathBuf::from(path),
            options: file_system.nth(1).unwrap_or("").to_owned(),
        })
    };
    mounts.lines().filter_map(parse).collect()
}

fn is_gone(error: &std::io::Error) -> bool {
    // ENODEV: the group was removed while the file was open.
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(19)
}

/// An error if clusters cannot have cgroups here.
pub(crate) fn check() -> Result<()> {
    let root = Cgroup::named("")?;
    ensure!(
        root.all
            .iter()
            .any(|folder| folder.join("cpuset.cpus").exists()),
        "no cpuset hierarchy of cgroup v1 is mounted, which clusters need"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_mounts() {
        let mounts = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
broken line";
        let found = hierarchies(mounts);
        let paths: Vec<_> = found.iter().map(|h| h.path.display().to_string()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified"]);
        assert_eq!(
            found.first().map(|h| h.options.as_str()),
            Some("rw,freezer")
        );
    }
}
