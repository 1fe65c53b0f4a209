//! What of a cluster is on this machine: processes, namespaces, mounts, cgroups, files.
//!
//! It is found by scanning all processes, not by the ledger or the cgroup alone, so that what
//! escaped from them is seen as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::cgroup::Cgroup;
use crate::home::Folder;

/// By what a cluster's things are recognised.
pub(super) struct Identity {
    folder: PathBuf,
    cgroup_name: String,
    cgroup: Cgroup,
    /// By the links of `/proc/PID/ns`, such as `net:[4026532000]`. They are kept open, as another
    /// namespace may get the number of one that has ended.
    namespaces: BTreeMap<String, File>,
}

const KINDS: [&str; 3] = ["net", "mnt", "uts"];

impl Identity {
    /// That of a cluster some of whose processes run.
    pub(super) fn of(folder: &Folder) -> Result<Self> {
        let cgroup = Cgroup::named(&folder.cgroup())?;
        let mut namespaces = BTreeMap::new();
        for pid in cgroup.processes()? {
            for kind in KINDS {
                let link = |process: &str| format!("/proc/{process}/ns/{kind}");
                let path = link(&pid.to_string());
                // The process may end meanwhile.
                if let (Some(name), Ok(file)) = (link_text(&path), File::open(&path))
                    && link_text(&link("self")).as_ref() != Some(&name)
                {
                    namespaces.insert(name, file);
                }
            }
        }
        Ok(Self {
            folder: folder.path().to_owned(),
            cgroup_name: folder.cgroup(),
            cgroup,
            namespaces,
        })
    }
}

/// What was found.
pub(super) struct Traces {
    processes: Vec<String>,
    namespaces: BTreeSet<String>,
    mounts: BTreeSet<String>,
    cgroups: Vec<PathBuf>,
    files: bool,
}

impl Traces {
    /// Searches.
    pub(super) fn of(identity: &Identity) -> Result<Self> {
        let mut traces = Self {
            processes: Vec::new(),
            namespaces: BTreeSet::new(),
            mounts: BTreeSet::new(),
            cgroups: identity.cgroup.existing(),
            files: identity.folder.exists(),
        };
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid.bytes().all(|byte| byte.is_ascii_digit()) && !is_left_to_init(&pid) {
                traces.add_process(identity, &pid);
                traces.add_mounts(identity, &pid, &mut seen);
            }
        }
        Ok(traces)
    }

    /// How many processes were found.
    pub(super) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Whether there is something of every kind, as there must be of a running cluster.
    pub(super) fn has_every_kind(&self) -> bool {
        // Control plane and two nodes, without pods.
        self.processes.len() >= 13
            && self.namespaces.len() >= 7
            && self.mounts.len() >= 10
            && !self.cgroups.is_empty()
            && self.files
    }

    pub(super) fn must_be_gone(&self) -> Result<()> {
        let nothing = self.processes.is_empty()
            && self.namespaces.is_empty()
            && self.mounts.is_empty()
            && self.cgroups.is_empty()
            && !self.files;
        ensure!(nothing, "left over: {self:#}");
        Ok(())
    }

    fn add_process(&mut self, identity: &Identity, pid: &str) {
        let read = |file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let mut links: BTreeSet<String> = KINDS
            .iter()
            .filter_map(|kind| link_text(&format!("/proc/{pid}/ns/{kind}")))
            .collect();
        // A namespace also lives as long as it is open somewhere.
        if pid != std::process::id().to_string() {
            let open = fs::read_dir(format!("/proc/{pid}/fd"));
            let open = open.into_iter().flatten().flatten();
            links.extend(open.filter_map(|entry| link_text(&entry.path().display().to_string())));
        }
        links.retain(|link| identity.namespaces.contains_key(link));
        let of_cluster = links;
        let command = read("cmdline");
        let folder = identity.folder.display().to_string();
        if !of_cluster.is_empty()
            || command.contains(&folder)
            || read("cgroup").contains(&identity.cgroup_name)
        {
            let short: String = command.chars().take(80).collect();
            self.processes.push(format!("{pid} {short}"));
        }
        self.namespaces.extend(of_cluster);
    }

    fn add_mounts(&mut self, identity: &Identity, pid: &str, seen: &mut BTreeSet<String>) {
        let Some(namespace) = link_text(&format!("/proc/{pid}/ns/mnt")) else {
            return;
        };
        if !seen.insert(namespace.clone()) {
            return;
        }
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let folder = identity.folder.display().to_string();
        for mount in mounts.lines() {
            let of_namespace = |name: &String| mount.contains(name.as_str());
            if mount.contains(&folder) || identity.namespaces.keys().any(of_namespace) {
                let point = mount.split(' ').nth(4).unwrap_or("?");
                self.mounts.insert(format!("{namespace} {point}"));
            }
        }
    }
}

impl fmt::Display for Traces {
    /// Counts; with `#`, everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, {} namespaces, {} mounts, {} cgroups, files: {}",
            self.processes.len(),
            self.namespaces.len(),
            self.mounts.len(),
            self.cgroups.len(),
            self.files
        )?;
        if f.alternate() {
            write!(f, "; {:?}", self.processes)?;
            write!(
                f,
                " {:?} {:?} {:?}",
                self.namespaces, self.mounts, self.cgroups
            )?;
        }
        Ok(())
    }
}

/// Whether a process has ended and only its parent, which is not this process, does not know it.
fn is_left_to_init(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return true;
    };
    let mut fields = fields.split(' ');
    let state = fields.next();
    let parent = fields.next();
    state == Some("Z") && parent != Some(std::process::id().to_string().as_str())
}

fn link_text(path: &str) -> Option<String> {
    Some(fs::read_link(path).ok()?.display().to_string())
}
