//! Drops the capabilities that are not needed once the programs are loaded.
//!
//! Invariant: capabilities belong to threads; this must run while there is no other thread, because
//! only threads started later inherit the reduced set.

use caps::{CapSet, Capability, CapsHashSet};

use super::DatapathError;

/// What the agent still needs: to write maps, to attach programs, and to load a program again.
const KEPT: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// Permanently drops every capability but those three.
///
/// # Errors
/// When the kernel refuses.
pub fn drop_privileges() -> Result<(), DatapathError> {
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|cap| held.contains(cap)).collect();
    if kept.len() < KEPT.len() {
        // An older setup grants CAP_SYS_ADMIN instead of these; it cannot be dropped then.
        return Ok(());
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(failed)?;
    }
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}

#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
fn failed(error: caps::errors::CapsError) -> DatapathError {
    DatapathError::Privileges(error.to_string())
}
