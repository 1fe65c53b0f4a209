//! The agent from start to exit. Connects sources, reconcile, telemetry and servers.
//!
//! Startup order: read the configuration, preflight checks, lock the directories, load the programs
//! and adopt pinned state, drop privileges, then start the runtime with the event loop. SIGTERM and
//! SIGINT end the process and leave enforcement running; only `cleanup` removes it.

#[cfg(feature = "kubernetes")]
mod await_cleanup;
mod conntrack_sweep;
mod degraded_alarm;
mod directory_lock;
mod durable_write;
mod event_loop;
mod explain;
mod flow_names;
mod last_good_store;
mod last_good_writer;
mod mode_decision;
mod mode_labels;
mod modes;
mod not_in_force;
mod number_freeing;
mod object_store;
mod policies_in_force;
mod serving;
mod shared_state;
mod state_sizes;
mod status_view;
mod surroundings;
mod takeover;
mod unfenced_alarm;
mod verifying;
mod views;

use std::{fs, io, path::Path};

use nix::{
    errno::Errno,
    sys::signal::{SigSet, Signal},
};

use crate::{
    config::Config,
    datapath::{
        self, Conntrack, DatapathError, KernelDatapath, KernelLog, LoadOptions, PreflightError,
        Telemetry, drop_privileges,
    },
    reconcile::{Ledger, ReconcileError, Reconciler},
    server::ListenError,
    source::SourceError,
};
#[cfg(feature = "kubernetes")]
pub use await_cleanup::{Awaited, await_cleanup};
use directory_lock::DirectoryLock;
pub use directory_lock::{Held, LockError};
use ringfence_common::maps;
use takeover::Taken;

/// Why the agent cannot run, or could not clean up.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Configuration, inventory or policies are invalid.
    #[error("{}", lines(.0))]
    Invalid(Vec<SourceError>),
    /// A preflight check failed.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// An operation on the kernel's programs or maps failed.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The reconciler failed.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// Another agent uses the same pins or the same state.
    #[error(
        "{0}: end that agent first, or start this one with --wait-for-lock to take over when it ends"
    )]
    InUse(Held),
    /// An agent still uses what is to be removed.
    #[error("cannot clean up: {0}: end that agent first")]
    CleanupInUse(Held),
    /// A directory cannot be locked.
    #[error(transparent)]
    Lock(LockError),
    /// Another process uses the control socket, or it cannot be created.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Nodes of a cluster may still have fences.
    #[error("{0}: see why their pods `ringfence-cleanup` are not ready")]
    NotCleanedUp(String),
    /// A system call failed.
    #[error("cannot {what}: {error}")]
    Io {
        /// The operation that failed.
        what: String,
        /// The system's error.
        error: io::Error,
    },
}

impl AppError {
    /// 2 for invalid input and for what another agent uses, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Invalid(_) | Self::InUse(_) | Self::CleanupInUse(_) => 2,
            _ => 1,
        }
    }

    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            what: what.into(),
            error,
        }
    }
}

impl From<LockError> for AppError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(held) => Self::InUse(held),
            error @ LockError::Io { .. } => Self::Lock(error),
        }
    }
}

fn lines(errors: &[SourceError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Runs the agent until it receives SIGTERM or SIGINT. If another agent uses the same pins or the
/// same state, `wait_for_lock` makes this one wait until that one ends.
///
/// # Errors
/// When it cannot start, or a watch that it depends on fails.
pub fn run(config: &Path, wait_for_lock: bool) -> Result<(), AppError> {
    let path = config;
    let mut config = Config::load(path).map_err(AppError::Invalid)?;
    config.complete(path).map_err(AppError::Invalid)?;
    // Read first, so that a bad file ends the start before anything is changed.
    let mut sources = event_loop::Sources::load(&config)?;
    datapath::preflight(&config.bpffs)?;
    // Held until the end: then the servers have stopped, and nothing writes any more.
    let Some(Taken {
        locks: _locks,
        health,
    }) = takeover::take_over(&config, wait_for_lock)?
    else {
        return Ok(());
    };
    if health.is_some() {
        // The agent that was waited for may have stored other content.
        sources = event_loop::Sources::load(&config)?;
    }
    let what = format!("create the directory {}", config.run_dir.display());
    fs::create_dir_all(&config.run_dir).map_err(AppError::io(what))?;
    let loaded = load(&config)?;
    drop_privileges()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AppError::io("start the runtime"))?;
    runtime.block_on(event_loop::run(config, sources, loaded, health))
}

/// Mounts bpffs where it is missing. Returns a line to print.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_bpffs() -> Result<String, AppError> {
    let place = datapath::MOUNT_POINT;
    Ok(if datapath::mount_bpffs()? {
        format!("mounted bpffs on {place}")
    } else {
        format!("bpffs is on {place} already")
    })
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When the system refuses.
pub fn hold() -> Result<(), AppError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    let failed = |errno: Errno| AppError::io("wait for signals")(errno.into());
    signals.thread_block().map_err(failed)?;
    signals.wait().map_err(failed)?;
    Ok(())
}

/// The loaded programs, with the adopted state.
struct Loaded {
    reconciler: Reconciler<KernelDatapath>,
    telemetry: Telemetry,
    log: Option<KernelLog>,
    conntrack: Conntrack,
}

fn load(config: &Config) -> Result<Loaded, AppError> {
    let options = LoadOptions {
        capacities: capacities(config),
        force_clsact: config.force_clsact,
        no_bridge: !config.attach_bridge,
        debug: config.debug_kernel_log,
        timeouts: config.timeouts.clone(),
    };
    let (mut kernel, telemetry) = KernelDatapath::load(&config.bpffs, &options)?;
    let log = if options.debug {
        Some(kernel.take_log()?)
    } else {
        None
    };
    let conntrack = kernel.take_conntrack()?;
    let reconciler = Reconciler::adopt(kernel, Ledger::in_dir(&config.state_dir))?;
    Ok(Loaded {
        reconciler,
        telemetry,
        log,
        conntrack,
    })
}

fn capacities(config: &Config) -> Vec<(&'static str, u32)> {
    let set = &config.maps;
    [
        (maps::ENDPOINTS, set.endpoints),
        (maps::IPCACHE4, set.ipcache),
        (maps::IPCACHE6, set.ipcache),
        (maps::CIDR4, set.cidr),
        (maps::CIDR6, set.cidr),
        (maps::POLICY, set.policy),
        (maps::CT4, set.conntrack),
        (maps::CT6, set.conntrack),
        (maps::FRAG4, set.fragments),
        (maps::FRAG6, set.fragments),
        (maps::DENIES, set.denies),
    ]
    .into_iter()
    .filter_map(|(map, capacity)| Some((map, capacity?)))
    .collect()
}

/// Detaches every fence and removes every pin and the agent's state. If an agent uses them, `wait_for_lock`
/// makes it wait until that one ends. Returns lines to print.
///
/// # Errors
/// When something cannot be removed.
pub fn cleanup(config: &Path, wait_for_lock: bool) -> Result<Vec<String>, AppError> {
    let config = Config::load(config).map_err(AppError::Invalid)?;
    let socket = shared_state::socket_path(&config);
    let locks = takeover::lock_for_removal(&config, wait_for_lock)?;
    // The pin directory goes, if nothing is in it.
    locks.iter().for_each(DirectoryLock::erase);
    let removed = datapath::remove_all(&config.bpffs)?;
    let mut lines = vec![format!(
        "removed {} pins below {}",
        removed.len(),
        config.bpffs.display()
    )];
    let store = last_good_store::directory(&config.state_dir);
    if last_good_store::remove(&store)
        .map_err(AppError::io(format!("remove {}", store.display())))?
    {
        lines.push(format!("removed {}", store.display()));
    }
    for file in [
        config.state_dir.join("numbers"),
        modes::file(&config),
        mode_labels::file(&config),
        object_store::file(&config.state_dir),
        socket,
    ] {
        match fs::remove_file(&file) {
            Ok(()) => lines.push(format!("removed {}", file.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(AppError::Io {
                    what: format!("remove {}", file.display()),
                    error,
                });
            }
        }
    }
    Ok(lines)
}
