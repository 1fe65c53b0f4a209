//! When conntrack is swept: now and then, on a thread of its own, because a walk over full maps
//! takes a good part of a second.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, TryLockError},
    time::Duration,
};

use tracing::{debug, warn};

use super::shared::Shared;
use crate::datapath::Conntrack;

/// How often. Entries that died of silence take room for so long, and no more than that.
pub(super) const PERIOD: Duration = Duration::from_secs(15);

/// What sweeps.
pub(super) struct Sweeper {
    conntrack: Arc<Mutex<Conntrack>>,
}

impl Sweeper {
    pub(super) fn new(conntrack: Conntrack) -> Self {
        Self {
            conntrack: Arc::new(Mutex::new(conntrack)),
        }
    }

    /// Begins a sweep, unless the last one still goes on. `now` is the kernel's tick clock.
    pub(super) fn begin(&self, now: u64, endpoints: BTreeSet<u32>, shared: Arc<Shared>) {
        let conntrack = Arc::clone(&self.conntrack);
        tokio::task::spawn_blocking(move || {
            let mut conntrack = match conntrack.try_lock() {
                Ok(conntrack) => conntrack,
                // It holds handles of maps and nothing that could be half done.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            match conntrack.sweep(now, &endpoints) {
                Ok(sweep) => {
                    debug!(
                        "conntrack: {} proven, {} swept",
                        sweep.assured, sweep.removed
                    );
                    shared.set_assured(sweep.assured);
                }
                Err(error) => warn!("sweeping conntrack: {error}"),
            }
        });
    }
}
