//! What a cluster must not change on the host: sysctls, interfaces, mounts, and the folders that
//! container runtimes use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::mounts::KUBELET_SYSCTLS;

/// Folders that a node's components write to.
const FOLDERS: [&str; 10] = [
    "/etc/cni",
    "/etc/containerd",
    "/etc/kubernetes",
    "/opt/cni",
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];
/// Places where a node mounts something.
const MOUNT_POINTS: [&str; 8] = [
    "/",
    "/etc",
    "/opt",
    "/proc/sys",
    "/proc/sys/net",
    "/run",
    "/sys/fs/bpf",
    "/var",
];

/// The state of the host, as text by subject.
pub(super) struct HostState(BTreeMap<String, String>);

impl HostState {
    pub(super) fn now() -> Result<Self> {
        let mut state = BTreeMap::new();
        for sysctl in KUBELET_SYSCTLS.into_iter().chain(["kernel/hostname"]) {
            let value = fs::read_to_string(format!("/proc/sys/{sysctl}")).unwrap_or_default();
            state.insert(format!("sysctl {sysctl}"), value);
        }
        for folder in FOLDERS {
            let names = names_below(Path::new(folder)).join(" ");
            state.insert(format!("folder {folder}"), names);
        }
        state.insert("interfaces".to_owned(), interfaces()?);
        // Other namespaces on this machine have names that are not CNI's.
        let sandboxes = names_below(Path::new("/run/netns"));
        let sandboxes: Vec<_> = sandboxes
            .into_iter()
            .filter(|n| n.contains("cni-"))
            .collect();
        state.insert("folder /run/netns".to_owned(), sandboxes.join(" "));
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        for point in MOUNT_POINTS {
            let at = |line: &&str| line.split(' ').nth(4) == Some(point);
            let lines: Vec<&str> = mounts.lines().filter(at).collect();
            state.insert(format!("mounts on {point}"), lines.join("\n"));
        }
        Ok(Self(state))
    }

    pub(super) fn must_equal(&self, before: &Self) -> Result<()> {
        for (subject, now) in &self.0 {
            let before = before.0.get(subject).map_or("", String::as_str);
            if now != before {
                bail!("the host changed: {subject}: {before:?} before, {now:?} now");
            }
        }
        Ok(())
    }
}

/// Interfaces of the kinds that a cluster makes.
fn interfaces() -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/class/net").context("reading the interfaces")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Tests of other processes may have interfaces here for a moment.
        let ours = ["br0", "cni0", "vxlan0", "v1", "v2", "eth0", "kube-ipvs0"];
        if ours.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.join(" "))
}

fn names_below(folder: &Path) -> Vec<String> {
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    let mut names = Vec::new();
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            names.push(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    names.sort();
    names
}
