//! The difference between two states, as writes in an order that keeps every packet's verdict
//! right.
//!
//! Publish: rows, modes, classes, prefixes and addresses, epochs, endpoints. Retire, after packets
//! in flight are done: rows that no lookup uses any more. Invariants: no write of a plan makes an
//! endpoint see a mixture of two policies; nothing is removed that an endpoint in force refers to.

use std::{net::IpAddr, sync::Arc};

use ringfence_common::ids::TableId;

use super::{
    action::Action,
    state::{Row, State, TableRows},
};

/// Ordered writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Writes to make now.
    pub publish: Vec<Action>,
    /// Removals to make once no packet can still be reading what `publish` replaced.
    pub retire: Vec<Action>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.retire.is_empty()
    }
}

/// Plans the writes from one state to another.
#[must_use]
pub fn plan(actual: &State, desired: &State) -> Plan {
    let mut plan = Plan::default();
    rows(actual, desired, &mut plan);
    let publish = &mut plan.publish;
    // Modes and classes that are no longer used stay: arrays do not shrink.
    desired.modes.since(&actual.modes, |change| {
        publish.extend(change.new.map(|mode| Action::SetMode(*change.key, *mode)));
    });
    // Written even for `ClassId::ANY`: the slot may hold the class of a former identity.
    desired.classes.since(&actual.classes, |change| {
        publish.extend(
            change
                .new
                .map(|class| Action::SetClass(*change.key, *class)),
        );
    });
    let prefixes = prefixes(actual, desired, publish);
    let addresses = addresses(actual, desired, publish);
    // Without an endpoint there is no flow to re-evaluate.
    if !actual.endpoints.is_empty() {
        epochs(prefixes, addresses, publish);
    }
    for (ifindex, endpoint) in &desired.endpoints {
        if actual.endpoints.get(ifindex) != Some(endpoint) {
            publish.push(Action::PutEndpoint(*ifindex, *endpoint));
        }
    }
    for ifindex in actual.endpoints.keys() {
        if !desired.endpoints.contains_key(ifindex) {
            publish.push(Action::DeleteEndpoint(*ifindex));
        }
    }
    plan
}

fn rows(actual: &State, desired: &State, plan: &mut Plan) {
    for (table, wanted) in &desired.tables {
        let held = actual.tables.get(table);
        if held.is_some_and(|held| Arc::ptr_eq(held, wanted)) {
            continue;
        }
        for ((bits, key), row) in wanted.iter() {
            if held.and_then(|held| held.get(&(*bits, *key))) != Some(row) {
                plan.publish.push(Action::PutRow(Row {
                    bits: *bits,
                    key: *key,
                    row: *row,
                }));
            }
        }
    }
    for (table, held) in &actual.tables {
        retire_rows(*table, held, desired, &mut plan.retire);
    }
}

fn retire_rows(table: TableId, held: &Arc<TableRows>, desired: &State, retire: &mut Vec<Action>) {
    let wanted = desired.tables.get(&table);
    if wanted.is_some_and(|wanted| Arc::ptr_eq(wanted, held)) {
        return;
    }
    for ((bits, key), row) in held.iter() {
        if !wanted.is_some_and(|wanted| wanted.contains_key(&(*bits, *key))) {
            retire.push(Action::DeleteRow(Row {
                bits: *bits,
                key: *key,
                row: *row,
            }));
        }
    }
}

/// Returns whether any prefix changed.
fn prefixes(actual: &State, desired: &State, publish: &mut Vec<Action>) -> bool {
    let before = publish.len();
    desired.prefixes.since(&actual.prefixes, |change| {
        publish.push(match change.new {
            Some(identity) => Action::PutPrefix(*change.key, *identity),
            None => Action::DeletePrefix(*change.key),
        });
    });
    publish.len() > before
}

/// Returns the addresses that changed.
fn addresses(actual: &State, desired: &State, publish: &mut Vec<Action>) -> Vec<IpAddr> {
    let mut changed = Vec::new();
    desired.addresses.since(&actual.addresses, |change| {
        publish.push(match change.new {
            Some(identity) => Action::PutAddress(*change.key, *identity),
            None => Action::DeleteAddress(*change.key),
        });
        changed.push(*change.key);
    });
    // Before the epochs: a packet that is evaluated with a new epoch sees the new owner.
    for address in &changed {
        let owners = [&actual.owners, &desired.owners].map(|owners| owners.get(address));
        let is_new = match owners {
            [Some(before), Some(now)] => before != now,
            [None, Some(_)] => actual.addresses.get(address).is_none(),
            [_, None] => false,
        };
        if is_new {
            publish.push(Action::NewOwner(*address));
        }
    }
    changed
}

/// Beyond this many changed addresses, all epochs are bumped at once.
const MANY: usize = 1024;

fn epochs(prefixes: bool, addresses: Vec<IpAddr>, publish: &mut Vec<Action>) {
    if prefixes || addresses.len() > MANY {
        publish.push(Action::BumpAllEpochs);
    } else {
        publish.extend(addresses.into_iter().map(Action::BumpEpoch));
    }
}

#[cfg(test)]
mod tests;
