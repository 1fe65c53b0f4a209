//! What is wrong with objects by their relation to others.
//!
//! Pure. Invariant: as long as there are only files, what the inventory says is not visited.

use std::fmt::Display;

use super::{Objects, SourceId};
use crate::model::{Claimant, InventoryFault, Origin};
use crate::source::document::SourceError;

/// The most errors about entries that are listed one by one.
const MOST: usize = 100;

pub(super) fn errors(objects: &Objects) -> Vec<SourceError> {
    let mut errors: Vec<SourceError> = objects
        .over_budget()
        .map(|over| {
            let Origin { file, line } = &over.policy.origin;
            SourceError::at_line(file, *line, over)
        })
        .collect();
    let mut waits = |what: &str, name: &dyn Display, source: SourceId, owner: SourceId| {
        let message = format!(
            "{what} {name} is not in force, because {} has one of that name: expected one, remove or rename \
             one",
            owner.name
        );
        errors.push(SourceError::whole_file(source.name, message));
    };
    let names = objects.namespace_owners.waiting();
    names.for_each(|(name, source, owner)| waits("namespace", name, source, owner));
    let names = objects.workload_owners.waiting();
    names.for_each(|(name, source, owner)| waits("workload", name, source, owner));
    let names = objects.node_owners.waiting();
    names.for_each(|(name, source, owner)| waits("node", name, source, owner));
    let names = objects.policy_owners.waiting();
    names.for_each(|(name, source, owner)| waits("policy", name, source, owner));
    if !objects.workload_owners.is_of_files() || !objects.node_owners.is_of_files() {
        of_entries(objects, &mut errors);
    }
    errors
}

/// Errors about entries of sources other than files.
fn of_entries(objects: &Objects, errors: &mut Vec<SourceError>) {
    let found = undeclared(objects).chain(disputed(objects));
    let mut found = found.filter(|(source, _)| *source != SourceId::FILES);
    for (source, fault) in found.by_ref().take(MOST) {
        errors.push(SourceError::whole_file(source.name, fault));
    }
    let left_out = found.count();
    if left_out > 0
        && let Some(last) = errors.last_mut()
    {
        last.message = format!("{} (and {left_out} more such errors)", last.message);
    }
}

fn undeclared(objects: &Objects) -> impl Iterator<Item = (SourceId, InventoryFault)> {
    let undeclared = objects.store.undeclared().keys();
    let workloads = undeclared.flat_map(|name| objects.inventory().workloads_of(name));
    workloads.map(|workload| {
        let workload = workload.id.clone();
        let source = objects.workload_owners.owner(&workload);
        (source, InventoryFault::UnknownNamespace { workload })
    })
}

/// Each claimant of a disputed address, with another one, unless it went to the most recent of them.
fn disputed(objects: &Objects) -> impl Iterator<Item = (SourceId, InventoryFault)> {
    let owner = |claimant: &Claimant| match claimant {
        Claimant::Workload(id) => objects.workload_owners.owner(id),
        Claimant::Node(name) => objects.node_owners.owner(name),
    };
    let disputed = objects.inventory().disputed.iter();
    let disputed = disputed.filter(|(_, dispute)| !dispute.is_by_recency());
    disputed.flat_map(move |(address, dispute)| {
        let claimants = dispute.claimants();
        claimants.iter().filter_map(move |claimant| {
            // One of the first source if there is one, which has no error of its own then.
            let others = claimants.iter().filter(|other| *other != claimant);
            let other = others.min_by_key(|other| owner(other))?;
            let fault = InventoryFault::AddressClaimedTwice {
                address: *address,
                claimant: claimant.clone(),
                other: other.clone(),
            };
            Some((owner(claimant), fault))
        })
    })
}
