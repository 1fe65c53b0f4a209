//! The first file system of a guest: enough to mount this machine's root file system.
//!
//! The init script loads the modules that booting needs, mounts the shared root file system read-only
//! under an overlay in memory, mounts what a running system has mounted (`/proc`, `/sys` with bpffs
//! and cgroups, `/run`), puts the kernel's own modules at `/lib/modules`, so that the kernel loads
//! further ones by itself, and continues with the [session](super::session).
//!
//! Nothing that the guest writes reaches this machine.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use super::kernel::Kernel;
use super::session::quoted;
use crate::child;

/// The name under which the root file system is shared.
pub(super) const ROOT_TAG: &str = "root";
/// A shell and tools without libraries.
const BUSYBOX: &str = "/bin/busybox";
const MODULES: [&str; 5] = [
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_console",
];

const INIT: &str = r#"#!/bin/busybox sh
fail() { echo "guest: cannot $1"; busybox poweroff -f; }
for applet in mount mkdir ln insmod cp; do eval "$applet() { busybox $applet \"\$@\" || fail \"$applet \$*\"; }"; done
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /host
mount -t tmpfs -o size=75% writable /writable
mkdir /writable/upper /writable/work
mount -t overlay -o lowerdir=/host,upperdir=/writable/upper,workdir=/writable/work root /root
for directory in proc sys dev; do mount --move /$directory /root/$directory; done
mount -t tmpfs run /root/run
mkdir -p /root/run/netns /root/run/lock /root/dev/pts /root/dev/shm /root/lib/modules
ln -s /proc/self/fd /root/dev/fd
ln -s /proc/self/fd/0 /root/dev/stdin
ln -s /proc/self/fd/1 /root/dev/stdout
ln -s /proc/self/fd/2 /root/dev/stderr
mount -t devpts devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t cgroup2 cgroup /root/sys/fs/cgroup
mount -t bpf bpf /root/sys/fs/bpf
mount -t securityfs security /root/sys/kernel/security
mount -o bind /root"$KERNEL_MODULES" /root/lib/modules
cp /session /root/run/session
exec busybox switch_root /root /bin/sh /run/session
"#;

/// The archive for a kernel, with the script that runs as the guest's first process.
pub(super) fn archive(kernel: &Kernel, session: &str) -> Result<Vec<u8>> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("cannot read {BUSYBOX}"))?;
    let mut archive = Archive::default();
    for directory in [
        "bin", "modules", "proc", "sys", "dev", "host", "writable", "root",
    ] {
        archive.directory(directory);
    }
    archive.program("bin/busybox", &busybox);
    for (index, file) in kernel.module_files(&MODULES)?.iter().enumerate() {
        // The order of names is the order of loading.
        archive.program(&format!("modules/{index:02}"), &module(file)?);
    }
    let modules = quoted(kernel.modules.as_os_str());
    let init = INIT.replacen('\n', &format!("\nKERNEL_MODULES={modules}\n"), 1);
    archive.program("init", init.as_bytes());
    archive.program("session", session.as_bytes());
    Ok(archive.finish())
}

/// A module as the kernel takes it, without compression.
fn module(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(OsStr::to_str) {
        Some("ko") => {
            return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        }
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{} is compressed in an unknown way", file.display()),
    };
    let mut decompress = child::command(program);
    decompress.args(["--decompress", "--stdout"]).arg(file);
    child::bytes_of(&mut decompress)
}
