//! State that the event loop writes and the servers read.
//!
//! Invariants: a lock is held for a copy, never for building a listing or across an await, so that no
//! client delays the event loop; a poisoned lock is still used, because every write stores a complete
//! value.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{modes::Modes, verifying::Repairs};
use crate::{
    config::Config,
    datapath::{AttachKind, Counters, Readings},
    model::{Inventory, Lockdown, NodeName, PolicySet},
    observe::{Directory, History, Metrics},
    reconcile::{Presences, Published},
    source::{SourceError, interfaces::Links},
};

/// The desired state, the state of its sources, and what of it is published.
#[derive(Clone)]
pub(super) struct Applied {
    pub(super) inventory: Arc<Inventory>,
    pub(super) policies: Arc<PolicySet>,
    pub(super) locked: Arc<Vec<Lockdown>>,
    pub(super) interfaces: Arc<Links>,
    pub(super) modes: Modes,
    pub(super) published: Option<Arc<Published>>,
    /// The workloads that name an interface of this node, as of the last pass.
    pub(super) presences: Presences,
    /// What was found changed behind the agent's back since its start, and put right.
    pub(super) repairs: Repairs,
    pub(super) revision: u64,
    pub(super) errors: Vec<SourceError>,
    pub(super) warnings: Vec<SourceError>,
    /// Why something is not stored for the next start.
    pub(super) unstored: Vec<String>,
    /// When what is in force was stored, in seconds since 1970, if an earlier agent stored it.
    pub(super) restored: Option<i64>,
    /// Why the last publish failed; `None` if it succeeded.
    pub(super) failure: Option<String>,
    /// Wall clock minus the kernel's tick clock, in nanoseconds.
    pub(super) wall_minus_ticks: i128,
}

/// The state that more than one task uses.
pub(super) struct SharedState {
    pub(super) node: Arc<str>,
    pub(super) config: Config,
    pub(super) attach: AttachKind,
    pub(super) started: Instant,
    pub(super) metrics_listen: Option<String>,
    pub(super) metrics: Metrics,
    pub(super) history: Arc<History>,
    applied: Mutex<Applied>,
    /// What the servers show: [`Self::applied`] as of the end of the last pass, so that no listing says
    /// of a policy that it is in force while it is being published.
    shown: Mutex<Arc<Applied>>,
    pub(super) readings: Readings,
    directory: Mutex<Arc<Directory>>,
    assured: AtomicU64,
    denies_lost: AtomicU64,
}

/// The path of the control socket.
pub(super) fn socket_path(config: &Config) -> PathBuf {
    config.run_dir.join("ringfence.sock")
}

/// The configured name of this node, else the inventory's, else the host name if it is one.
pub(super) fn node_name(config: &Config, inventory: &Inventory) -> NodeName {
    let in_cluster = config.kubernetes.as_ref();
    let in_cluster = in_cluster.and_then(|it| it.node_name.as_ref());
    let known = config.node.as_ref().or(in_cluster);
    let known = known.or_else(|| inventory.local_node().map(|node| &node.name));
    known.cloned().unwrap_or_else(|| {
        let host = nix::unistd::gethostname().unwrap_or_default();
        // As Kubernetes does.
        let host = host.to_string_lossy().to_ascii_lowercase();
        NodeName::new(&host).unwrap_or_else(|_| NodeName::this_node())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedState {
    pub(super) fn new(
        config: Config,
        node: Arc<str>,
        attach: AttachKind,
        readings: Readings,
        applied: Applied,
    ) -> Self {
        let history = Arc::new(History::new(config.flows.history as usize));
        Self {
            node,
            config,
            attach,
            started: Instant::now(),
            metrics_listen: None,
            metrics: Metrics::new(env!("CARGO_PKG_VERSION")),
            history,
            shown: Mutex::new(Arc::new(applied.clone())),
            applied: Mutex::new(applied),
            readings,
            directory: Mutex::new(Arc::new(Directory::default())),
            assured: AtomicU64::new(0),
            denies_lost: AtomicU64::new(0),
        }
    }

    pub(super) fn applied(&self) -> MutexGuard<'_, Applied> {
        lock(&self.applied)
    }

    /// Makes the present state the one that is shown.
    pub(super) fn show(&self) {
        let applied = Arc::new(self.applied().clone());
        *lock(&self.shown) = applied;
    }

    /// The state to show, for what takes longer than a moment.
    pub(super) fn shown(&self) -> Arc<Applied> {
        Arc::clone(&lock(&self.shown))
    }

    pub(super) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&lock(&self.directory))
    }

    pub(super) fn set_directory(&self, directory: Directory) {
        *lock(&self.directory) = Arc::new(directory);
    }

    /// The number of assured conntrack entries at the last sweep.
    pub(super) fn assured(&self) -> u64 {
        self.assured.load(Ordering::Relaxed)
    }

    pub(super) fn set_assured(&self, entries: u64) {
        self.assured.store(entries, Ordering::Relaxed);
    }

    /// The kernel's counters; empty if they cannot be read.
    pub(super) fn counters(&self) -> Counters {
        self.readings.counters().unwrap_or_default()
    }

    /// Denied packets that no flow record will report. The highest number seen so far, because the
    /// maps may give too low a number while packets are being denied.
    pub(super) fn denies_lost(&self) -> u64 {
        let seen = self.readings.denials().unwrap_or_default().lost;
        self.denies_lost
            .fetch_max(seen, Ordering::Relaxed)
            .max(seen)
    }
}
