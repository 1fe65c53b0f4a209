//! What a node sees of the file system: the host's, with everything that it writes going to the
//! cluster's folder.
//!
//! `/etc`, `/var` and `/opt` are overlays on the host's, `/run` is empty, bpffs is its own, and
//! sysctls outside of `net` (which is per network namespace) are read-only. So two nodes may use
//! the usual paths (`/var/lib/kubelet`, `/run/containerd`, `/etc/cni/net.d`) and the host keeps
//! none of it. All of these mounts are in the node's mount namespace and end with it.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use crate::home::Folder;

/// Folders on which the node gets an overlay.
const OVERLAID: [&str; 3] = ["/etc", "/var", "/opt"];
/// Folders that cannot be on an overlay, because containerd makes overlays in them or kubelet
/// measures them: name in the node's folder, and path in the node.
const OWN: [(&str, &str); 2] = [
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
];
/// Sysctls that kubelet sets, below `/proc/sys`.
pub(crate) const KUBELET_SYSCTLS: [&str; 6] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];
/// Where container runtimes expect CNI plugins.
pub(crate) const CNI_PLUGINS: &str = "/opt/cni/bin";

/// Makes the mounts of `node` in the calling thread's mount namespace, which must be new.
/// `plugins` is the folder of CNI plugins; others can be added to it in the node.
pub(crate) fn make(folder: &Folder, node: &str, plugins: &Path) -> Result<()> {
    let own = folder.node(node);
    // Mounts and unmounts of the host continue to arrive; ours do not leave.
    propagation(MsFlags::MS_SLAVE)?;
    fs::create_dir_all(&own)?;
    // The cluster's folder may be below one of the paths that get other contents.
    let cluster = File::open(folder.path())?;
    for path in OVERLAID {
        overlay(&own, Path::new(path), Path::new(path))?;
    }
    tmpfs("/run")?;
    for path in ["/run/netns", "/run/lock"] {
        fs::create_dir(path).with_context(|| format!("creating {path}"))?;
    }
    fs::create_dir_all(folder.path())?;
    let source = format!("/proc/thread-self/fd/{}", cluster.as_raw_fd());
    bind(Path::new(&source), folder.path())?;
    for (name, path) in OWN {
        fs::create_dir_all(path).with_context(|| format!("creating {path}"))?;
        fs::create_dir_all(own.join(name))?;
        bind(&own.join(name), Path::new(path))?;
    }
    fs::create_dir_all(CNI_PLUGINS).with_context(|| format!("creating {CNI_PLUGINS}"))?;
    overlay(&own, plugins, Path::new(CNI_PLUGINS))?;
    let bpf = Path::new("/sys/fs/bpf");
    mount(
        Some("bpf"),
        bpf,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mounting bpffs on /sys/fs/bpf")?;
    protect_sysctls(&own)?;
    // Volumes of pods may ask for mounts to propagate.
    propagation(MsFlags::MS_SHARED)
}

/// Kubelet sets some sysctls of the host and fails if it cannot: the node has files in their place.
fn protect_sysctls(own: &Path) -> Result<()> {
    let (all, net) = (Path::new("/proc/sys"), Path::new("/proc/sys/net"));
    bind(net, net)?;
    bind(all, all)?;
    let files = own.join("sysctl");
    fs::create_dir_all(&files)?;
    for sysctl in KUBELET_SYSCTLS {
        let (path, file) = (all.join(sysctl), files.join(sysctl.replace('/', ".")));
        let value = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        fs::write(&file, value)?;
        bind(&file, &path)?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, all, None::<&str>, flags, None::<&str>)
        .context("making /proc/sys read-only")
}

fn propagation(kind: MsFlags) -> Result<()> {
    let flags = MsFlags::MS_REC | kind;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .context("setting the propagation of mounts")
}

fn overlay(own: &Path, lower: &Path, place: &Path) -> Result<()> {
    let name = place.to_string_lossy().trim_matches('/').replace('/', "-");
    let files = own.join("overlay").join(name);
    let (upper, work) = (files.join("upper"), files.join("work"));
    for folder in [&upper, &work] {
        fs::create_dir_all(folder)?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let (flags, options) = (MsFlags::empty(), Some(options.as_str()));
    mount(Some("overlay"), place, Some("overlay"), flags, options)
        .with_context(|| format!("mounting an overlay on {}", place.display()))
}

fn tmpfs(place: &str) -> Result<()> {
    let (flags, options) = (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"));
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, options)
        .with_context(|| format!("mounting a tmpfs on {place}"))
}

fn bind(source: &Path, place: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), place, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("mounting {} on {}", source.display(), place.display()))
}
