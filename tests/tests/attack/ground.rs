//! The arenas, shared by the tests that run at the same time, one of which plays in them at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Result;
use ringfence_testbed::attack::{Arenas, wire};

/// Arenas that go with the last test that holds them.
pub(crate) fn shared() -> Result<Arc<Mutex<Arenas>>> {
    static SHARED: Mutex<Weak<Mutex<Arenas>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arenas) = shared.upgrade() {
        return Ok(arenas);
    }
    let arenas = Arc::new(Mutex::new(Arenas::new()?));
    *shared = Arc::downgrade(&arenas);
    Ok(arenas)
}

/// One test's turn. A test that failed before leaves the arenas as good as they were.
pub(crate) fn turn(arenas: &Mutex<Arenas>) -> Result<MutexGuard<'_, Arenas>> {
    let arenas = arenas.lock().unwrap_or_else(PoisonError::into_inner);
    wire::stay_on_one_cpu()?;
    Ok(arenas)
}
