//! The periodic conntrack sweep. Runs on its own thread, because a walk over full maps takes a good
//! part of a second.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, TryLockError},
    time::Duration,
};

use ringfence_common::ids::EndpointNumber;
use tracing::{debug, warn};

use super::shared_state::SharedState;
use crate::datapath::Conntrack;

/// The interval between sweeps: an expired entry takes up room for at most this long.
pub(super) const INTERVAL: Duration = Duration::from_secs(15);

/// Starts sweeps, one at a time.
pub(super) struct Sweeper {
    conntrack: Arc<Mutex<Conntrack>>,
}

impl Sweeper {
    pub(super) fn new(conntrack: Conntrack) -> Self {
        Self {
            conntrack: Arc::new(Mutex::new(conntrack)),
        }
    }

    /// Starts a sweep, unless the previous one is still running. `now` is the kernel's tick clock.
    pub(super) fn start(
        &self,
        now: u64,
        endpoints: BTreeMap<u32, EndpointNumber>,
        shared: Arc<SharedState>,
    ) {
        let conntrack = Arc::clone(&self.conntrack);
        tokio::task::spawn_blocking(move || {
            let mut conntrack = match conntrack.try_lock() {
                Ok(conntrack) => conntrack,
                // It holds only map handles, so a panic cannot leave it half changed.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            match conntrack.sweep(now, &endpoints) {
                Ok(sweep) => {
                    debug!(
                        "conntrack sweep: {} assured entries, {} removed",
                        sweep.assured, sweep.removed
                    );
                    shared.set_assured(sweep.assured);
                }
                Err(error) => warn!("conntrack sweep: {error}"),
            }
        });
    }
}
