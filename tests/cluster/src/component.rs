//! Starting one component: its environment, its log, and its line in the ledger.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::binaries::Programs;
use crate::cgroup::Cgroup;
use crate::home::{Description, Folder};
use crate::ledger::{Entry, Ledger, ProcessId};

/// Keeps the namespaces of a place.
pub(crate) const HOLDER: &str = "holder";
/// The place of the control plane.
pub(crate) const CONTROL_PLANE: &str = "cp";

/// What every component needs to know of its cluster.
pub(crate) struct Site<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) description: &'a Description,
    pub(crate) cgroup: &'a Cgroup,
}

impl Site<'_> {
    pub(crate) fn programs(&self) -> &Programs {
        &self.description.programs
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::at(self.folder.ledger())
    }

    /// Starts a program in the namespaces of the calling thread.
    pub(crate) fn start(
        &self,
        component: &str,
        place: &str,
        program: &Path,
        arguments: Vec<String>,
    ) -> Result<ProcessId> {
        let mut command = vec![program.display().to_string()];
        command.extend(arguments);
        self.start_again(component, place, command)
    }

    /// Starts a program from its entry in the ledger.
    pub(crate) fn start_again(
        &self,
        component: &str,
        place: &str,
        command: Vec<String>,
    ) -> Result<ProcessId> {
        self.cgroup.join()?;
        let path = self.folder.log(component, place);
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let (program, arguments) = command.split_first().context("no program")?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", self.search_path()?)
            .env("HOME", "/root")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let process = ProcessId::now(i32::try_from(child.id())?);
        let process = process
            .with_context(|| format!("{component} ended at once:\n{}", tail(&path, TAIL)))?;
        self.ledger().append(&Entry {
            component: component.to_owned(),
            place: place.to_owned(),
            process,
            command,
        })?;
        Ok(process)
    }

    /// Starts the process that keeps the namespaces of the calling thread.
    pub(crate) fn hold(&self, place: &str) -> Result<ProcessId> {
        self.start(
            HOLDER,
            place,
            Path::new("sleep"),
            vec!["infinity".to_owned()],
        )
    }

    /// Ours first, then the host's, which has `runc`, `iptables`, `nft` and `mount`.
    fn search_path(&self) -> Result<OsString> {
        let programs = self.programs();
        let mut path: Vec<PathBuf> = vec![programs.kubernetes.clone(), programs.containerd.clone()];
        if let Some(given) = std::env::var_os("PATH") {
            path.extend(std::env::split_paths(&given));
        }
        path.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
        Ok(std::env::join_paths(path)?)
    }

    /// The last lines of the logs of components that have ended, for an error.
    pub(crate) fn ended(&self) -> String {
        let entries = self.ledger().latest().unwrap_or_default();
        let ended = entries.iter().filter(|entry| !entry.process.lives());
        let describe = |entry: &Entry| {
            let log = self.folder.log(&entry.component, &entry.place);
            let (component, place) = (&entry.component, &entry.place);
            format!("{component} of {place} has ended:\n{}", tail(&log, TAIL))
        };
        ended.map(describe).collect::<Vec<_>>().join("\n")
    }
}

/// Lines of a log that go into an error.
const TAIL: usize = 12;

/// The last lines of a file, empty if it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or(&[])
        .join("\n")
}
