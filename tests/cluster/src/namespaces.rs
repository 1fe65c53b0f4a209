//! Namespaces of a cluster, entered on threads.
//!
//! A thread creates or enters them, and what it starts inherits them, so no process ever runs in a
//! wrong one. They have no names: a process that the ledger lists keeps each of them, and they
//! end with the last process in them. The calling thread never changes its namespaces, except in
//! [`Namespaces::enter`].

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// Handles on some namespaces of a process.
pub struct Namespaces {
    network: File,
    /// Mount and UTS namespace, if not the host's.
    node: Option<(File, File)>,
}

impl Namespaces {
    /// The network namespace of process `pid`.
    pub fn network_of(pid: i32) -> Result<Self> {
        Ok(Self {
            network: open(pid, "net")?,
            node: None,
        })
    }

    /// The network, mount and UTS namespaces of process `pid`.
    pub fn node_of(pid: i32) -> Result<Self> {
        Ok(Self {
            network: open(pid, "net")?,
            node: Some((open(pid, "mnt")?, open(pid, "uts")?)),
        })
    }

    /// Runs `f` on a new thread inside. A panic in `f` is resumed in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            self.enter()?;
            f()
        })
    }

    /// Moves the calling thread inside for good.
    pub fn enter(&self) -> Result<()> {
        if let Some((mount, uts)) = &self.node {
            unshare(CloneFlags::CLONE_FS).context("unshare(CLONE_FS)")?;
            setns(mount.as_fd(), CloneFlags::CLONE_NEWNS).context("entering a mount namespace")?;
            setns(uts.as_fd(), CloneFlags::CLONE_NEWUTS).context("entering a UTS namespace")?;
        }
        setns(self.network.as_fd(), CloneFlags::CLONE_NEWNET)
            .context("entering a network namespace")
    }
}

/// Runs `f` on a new thread in a new network namespace.
pub(crate) fn in_new_network<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_new(CloneFlags::CLONE_NEWNET, f)
}

/// Runs `f` on a new thread in new network, mount and UTS namespaces.
pub(crate) fn in_new_node<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let node = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    in_new(node | CloneFlags::CLONE_FS, f)
}

fn in_new<T: Send>(flags: CloneFlags, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_thread(|| {
        unshare(flags).context("creating namespaces, which needs root")?;
        f()
    })
}

/// Runs `f` on a new thread, whose namespaces and cgroups it may change.
pub(crate) fn on_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespaces".to_owned());
        let handle = thread
            .spawn_scoped(scope, f)
            .map_err(|error| anyhow!("starting a thread: {error}"))?;
        match handle.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs `ip -batch` or `bridge -batch` with these lines, in the namespaces of the calling thread.
pub(crate) fn batch(program: &str, lines: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program} (package iproute2)"))?;
    if let Some(mut input) = child.stdin.take() {
        // When it stops at a bad line the pipe breaks; its own message is more helpful.
        let _ = input.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} failed: {}\n{lines}",
        message.trim()
    );
    Ok(())
}

/// Sets sysctls of the calling thread's network namespace.
pub(crate) fn set_sysctls(settings: &[(&str, &str)]) -> Result<()> {
    settings.iter().try_for_each(|(key, value)| {
        let path = format!("/proc/sys/{key}");
        std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
    })
}

fn open(pid: i32, kind: &str) -> Result<File> {
    let path = format!("/proc/{pid}/ns/{kind}");
    File::open(&path).with_context(|| format!("opening {path}"))
}
