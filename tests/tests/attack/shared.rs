//! The networks, shared by the tests that run at the same time, one of which plays in them at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Result;
use ringfence_testbed::attack::{Arenas, wire};

/// Arenas that go with the last test that holds them.
pub(crate) fn networks() -> Result<Arc<Mutex<Arenas>>> {
    static SHARED: Mutex<Weak<Mutex<Arenas>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(networks) = shared.upgrade() {
        return Ok(networks);
    }
    let networks = Arc::new(Mutex::new(Arenas::new()?));
    *shared = Arc::downgrade(&networks);
    Ok(networks)
}

/// One test's turn. A test that failed before leaves the networks as good as they were.
pub(crate) fn lock(networks: &Mutex<Arenas>) -> Result<MutexGuard<'_, Arenas>> {
    let networks = networks.lock().unwrap_or_else(PoisonError::into_inner);
    wire::stay_on_one_cpu()?;
    Ok(networks)
}
