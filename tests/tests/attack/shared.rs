//! The networks, which all tests share; one test at a time uses them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Result;
use ringfence_testbed::attack::{Networks, Topology, wire};

/// Returns the networks; the last test that holds them removes them.
pub(crate) fn networks() -> Result<Arc<Mutex<Networks>>> {
    static SHARED: Mutex<Weak<Mutex<Networks>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(networks) = shared.upgrade() {
        return Ok(networks);
    }
    let networks = Arc::new(Mutex::new(Networks::new(Topology::Bridge)?));
    *shared = Arc::downgrade(&networks);
    Ok(networks)
}

/// Locks the networks for one test. A failed test leaves them usable.
pub(crate) fn lock(networks: &Mutex<Networks>) -> Result<MutexGuard<'_, Networks>> {
    let networks = networks.lock().unwrap_or_else(PoisonError::into_inner);
    wire::stay_on_one_cpu()?;
    Ok(networks)
}
