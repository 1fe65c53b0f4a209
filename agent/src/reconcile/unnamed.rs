//! What stays in the kernel although the desired state does not know it, while not every source has named all
//! of its objects.
//!
//! Pure. Invariants: the fence of an interface that is there stays, with its endpoint, which is locked down where it is
//! enforced; an address that
//! had an owner is `unknown`, because without an entry it would be `world`, and whose it is now is not known;
//! what the state does know is as it says.

use ringfence_common::{endpoint::Endpoint, ids::IdentityId, mode::Mode};

use crate::{plan::State, source::interfaces::Links};

/// Whether the fence of an interface stays although no workload has it.
pub(super) fn stays(ifindex: u32, interfaces: &Links) -> bool {
    interfaces.get(ifindex).is_some()
}

/// Adds what stays of the actual state to a desired one.
pub(super) fn keep(actual: &State, desired: &mut State, interfaces: &Links) {
    for (ifindex, endpoint) in &actual.endpoints {
        if desired.endpoints.contains_key(ifindex) || !stays(*ifindex, interfaces) {
            continue;
        }
        let kept = locked_down(*endpoint, [desired, actual]);
        desired.endpoints.insert(*ifindex, kept);
        if let Some(rows) = actual.tables.get(&endpoint.table) {
            let kept = desired.tables.entry(endpoint.table);
            kept.or_insert_with(|| rows.clone());
        }
    }
    let mut unknown = Vec::new();
    desired.addresses.since(&actual.addresses, |change| {
        if change.new.is_none() {
            unknown.push(*change.key);
        }
    });
    for address in unknown {
        desired.addresses.insert(address, IdentityId::UNKNOWN);
    }
}

/// The endpoint, locked down where it is enforced: its policy needs classes and prefixes that the present policies may
/// not name, and without them it could allow what it denies.
fn locked_down(endpoint: Endpoint, states: [&State; 2]) -> Endpoint {
    let slot = endpoint.namespace();
    let mut modes = states.iter().filter_map(|state| state.modes.get(&slot));
    // One without a mode is locked down anyway.
    let mode = modes.next().copied().unwrap_or(Mode::Lockdown);
    match Mode::effective(endpoint.mode_override, mode as u8) {
        Mode::Enforce => Endpoint {
            mode_override: Mode::Lockdown as u8,
            ..endpoint
        },
        Mode::Observe | Mode::Lockdown => endpoint,
    }
}

#[cfg(test)]
mod tests;
