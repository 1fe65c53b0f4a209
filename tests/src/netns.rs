//! An anonymous network namespace, referenced only by a file descriptor.
//!
//! No name appears under `/run/netns`, so there is nothing to leak: when the last handle, socket
//! and process is gone the kernel removes the namespace with its interfaces, even after SIGKILL.
//!
//! Code runs in the namespace on a separate thread ([`NetNs::run`]) or as a child process
//! ([`NetNs::command`]). The calling thread never changes its namespace. Children keep the mount
//! namespace too, unlike under `ip netns exec`, which would hide bpffs.

#![allow(
    unsafe_code,
    reason = "Command::pre_exec is the only way to start a child in another network namespace"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};

/// A handle on a network namespace. Clones refer to the same one.
#[derive(Clone, Debug)]
pub struct NetNs {
    file: Arc<File>,
}

impl NetNs {
    /// A new, empty namespace whose `lo` is up.
    pub fn new() -> Result<Self> {
        let file = on_thread(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET), are we root?")?;
            File::open("/proc/thread-self/ns/net").context("opening the new network namespace")
        })??;
        let ns = Self {
            file: Arc::new(file),
        };
        // Echo probes use ping sockets, which no group may open by default.
        ns.sysctls(&[("net.ipv4.ping_group_range", "0 2147483647")])?;
        ns.ip("link set lo up\n")?;
        Ok(ns)
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net").context("opening our own namespace")?;
        Ok(Self {
            file: Arc::new(file),
        })
    }

    /// A path that names this namespace to tools, for as long as this process holds the handle:
    /// `ip link set X netns PATH`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let (pid, fd) = (std::process::id(), self.file.as_raw_fd());
        PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
    }

    /// Runs `f` on a new thread inside the namespace. Sockets it opens stay in the namespace. A
    /// panic in `f` is resumed in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(f())
        })?
    }

    /// Like [`NetNs::run`], but returns without waiting for the thread.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let ns = self.clone();
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                ns.enter()?;
                Ok(f())
            })
            .context("starting a thread")
    }

    /// A command that will run inside the namespace. SIGTERM can end it even if this process
    /// blocks signals (see [`crate::interrupt`]).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        let enter = move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            SigSet::from(Signal::SIGTERM).thread_unblock()?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls, one on a descriptor
        // that it owns; it neither allocates nor locks.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `ip -batch` with these lines, each an `ip` command without the word `ip`.
    pub fn ip(&self, batch: &str) -> Result<()> {
        let mut child = self
            .command("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting ip (iproute2)")?;
        if let Some(mut input) = child.stdin.take() {
            // When `ip` stops at a bad line the pipe breaks; its error message is more helpful.
            let _ = input.write_all(batch.as_bytes());
        }
        let output = child.wait_with_output().context("waiting for ip")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "ip failed: {}\n{batch}",
            message.trim()
        );
        Ok(())
    }

    /// Sets one sysctl of the namespace, e.g. `net.ipv4.ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.sysctls(&[(key, value)])
    }

    /// Sets several sysctls in order.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        // `/proc/sys/net` shows the namespace of the thread that opens the file.
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
            })
        })?
    }

    fn enter(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).context("setns")
    }
}

fn on_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)
            .map_err(|error| anyhow!("starting a thread: {error}"))?;
        match handle.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
