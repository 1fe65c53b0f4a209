//! The sizes of the applied state that metrics show, counted when they are read.

use std::collections::BTreeMap;

use super::{modes::kernel_mode, shared_state::Applied};
use crate::{model::NamespaceName, observe::State};

/// Counts; none before the first publish.
pub(super) fn sizes(applied: &Applied) -> State {
    let Some(published) = &applied.published else {
        return State::default();
    };
    let (inventory, compiled) = (&applied.inventory, &published.compiled);
    let mut counts: BTreeMap<&NamespaceName, u64> = BTreeMap::new();
    for endpoint in compiled.endpoints.values() {
        *counts.entry(&endpoint.workload.id.namespace).or_default() += 1;
    }
    let endpoints = inventory.namespaces.keys().map(|name| {
        let mode = kernel_mode(applied.modes.of(name).0);
        let count = counts.get(name).copied().unwrap_or_default();
        (name.clone(), mode, count)
    });
    let disputed = inventory.disputed.values();
    let unknown = disputed.filter(|dispute| dispute.owner().is_none());
    State {
        endpoints: endpoints.collect(),
        identities: compiled.identities.len() as u64,
        policies: published.policies.len() as u64,
        policies_without_room: published.without_room.len() as u64,
        services_without_room: published.services_without_room.len() as u64,
        unknown_addresses: unknown.count() as u64,
        policy_rows: compiled.state.rows() as u64,
        revision: applied.revision,
    }
}
