//! The ledger of a cluster's processes: one JSON line for each that was started.
//!
//! A process is known by its id *and* its start time, so a process that got a used id later is
//! never taken for one of ours. A line is appended right after the start; a last line that is cut
//! off is ignored. The ledger says what should run; that nothing else is left over is the cgroup's
//! business.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, as in `/proc/PID/stat`.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this id now; `None` if there is none or it is a zombie.
    #[must_use]
    pub fn now(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started = living_since(&stat)?;
        Some(Self { pid, started })
    }

    /// This process.
    pub fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id())?;
        Self::now(pid).context("reading /proc/self/stat")
    }

    /// Whether it still runs.
    #[must_use]
    pub fn lives(self) -> bool {
        Self::now(self.pid) == Some(self)
    }
}

/// One started component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// For example `kubelet`.
    pub component: String,
    /// `cp` for the control plane, else the node.
    pub place: String,
    /// Its process.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Program and arguments, with which it can be started again.
    pub command: Vec<String>,
}

/// The file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// A ledger at `path`, which need not exist.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Appends one entry.
    pub fn append(&self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        file.write_all(&line)
            .with_context(|| format!("writing {}", self.path.display()))
    }

    /// The last entry of each component, in the order of their first start.
    pub fn latest(&self) -> Result<Vec<Entry>> {
        let mut latest: Vec<Entry> = Vec::new();
        for entry in self.all()? {
            let same =
                |old: &&mut Entry| old.component == entry.component && old.place == entry.place;
            match latest.iter_mut().find(same) {
                Some(old) => *old = entry,
                None => latest.push(entry),
            }
        }
        Ok(latest)
    }

    /// All entries.
    pub fn all(&self) -> Result<Vec<Entry>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => parse(&text, &self.path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path.display())),
        }
    }
}

fn parse(text: &str, path: &Path) -> Result<Vec<Entry>> {
    let whole = text
        .rfind('\n')
        .map_or("", |end| text.get(..end).unwrap_or(""));
    whole
        .lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))
        })
        .collect()
}

/// Identifies the boot of this machine.
pub fn boot_id() -> Result<String> {
    let id =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
    Ok(id.trim().to_owned())
}

/// The start time in the content of `/proc/PID/stat`, unless the process has ended. It has not as
/// long as it is only its first thread that is a zombie: the others still have its files and ports.
fn living_since(stat: &str) -> Option<u64> {
    // The name of the program may contain blanks and brackets.
    let (_, fields) = stat.rsplit_once(") ")?;
    // The state is field 3, the number of threads field 20, the start time field 22.
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    if matches!(state, "Z" | "X") && threads <= 1 {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn entry(component: &str, pid: i32) -> Entry {
        Entry {
            component: component.to_owned(),
            place: "n1".to_owned(),
            process: ProcessId { pid, started: 5 },
            command: vec!["/bin/x y".to_owned()],
        }
    }

    #[test]
    fn start_times_are_found_behind_hostile_names() {
        let rest = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 2 3";
        assert_eq!(living_since(&format!("12 (a) Z 9) S {rest}")), Some(777));
        assert_eq!(living_since(&format!("12 (sleep) Z {rest}")), None);
        assert_eq!(living_since("12 (sleep"), None);
    }

    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        let stat = |state: &str, threads: u32| {
            format!("12 (etcd) {state} 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 777 1")
        };
        assert_eq!(living_since(&stat("Z", 2)), Some(777));
        assert_eq!(living_since(&stat("Z", 1)), None);
        assert_eq!(living_since(&stat("S", 1)), Some(777));
    }

    #[test]
    fn a_process_is_more_than_its_id() -> Result<()> {
        let own = ProcessId::own()?;
        assert!(own.lives());
        let later = ProcessId {
            started: own.started + 1,
            ..own
        };
        assert!(!later.lives());
        Ok(())
    }

    #[test]
    fn an_ended_process_does_not_live_even_as_a_zombie() -> Result<()> {
        let mut child = Command::new("sleep").arg("600").spawn()?;
        let id = ProcessId::now(i32::try_from(child.id())?).context("just started")?;
        assert!(id.lives());
        child.kill()?;
        // Not waited for yet: it becomes a zombie.
        crate::wait::eventually(
            std::time::Duration::from_secs(10),
            std::time::Duration::from_millis(2),
            "the end of a killed process",
            || Ok((!id.lives()).then_some(())),
        )?;
        child.wait()?;
        Ok(())
    }

    #[test]
    fn the_latest_entry_of_each_component_counts() -> Result<()> {
        let place = tempfile::tempdir()?;
        let ledger = Ledger::at(place.path().join("processes.jsonl"));
        assert!(ledger.latest()?.is_empty());
        for (component, pid) in [("kubelet", 1), ("containerd", 2), ("kubelet", 3)] {
            ledger.append(&entry(component, pid))?;
        }
        assert_eq!(
            ledger.latest()?,
            [entry("kubelet", 3), entry("containerd", 2)]
        );
        assert_eq!(ledger.all()?.len(), 3);
        Ok(())
    }

    #[test]
    fn a_line_that_was_cut_off_is_ignored_and_a_wrong_one_is_an_error() -> Result<()> {
        let line = serde_json::to_string(&entry("etcd", 1))?;
        let half = line.get(..20).context("long enough")?;
        let path = Path::new("x");
        assert_eq!(parse(&format!("{line}\n{half}"), path)?.len(), 1);
        assert_eq!(parse(half, path)?.len(), 0);
        assert!(parse(&format!("{half}\n"), path).is_err());
        Ok(())
    }
}
