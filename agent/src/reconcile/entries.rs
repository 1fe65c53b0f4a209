//! Which entries of the control maps to look at next, and how one that is not as written is put right.
//!
//! Pure. Invariants: a round visits every entry that there is throughout it; an entry is put right
//! together with the epochs that make verdicts stale which packets got from it.

use std::net::IpAddr;

use ipnet::IpNet;
use ringfence_common::ids::{IdentityId, TableId};

use crate::plan::{Action, Row, State};

/// A round over the entries takes less than ten minutes of these steps, one a second.
const STEPS: usize = 550;
/// The least entries of a step.
const LEAST: usize = 16;

/// Where a round is: each with the next key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    Address(Option<IpAddr>),
    Prefix(Option<IpNet>),
    Class(Option<IdentityId>),
    /// A table and how many of its rows were visited.
    Row(Option<TableId>, usize),
    Pickup(Option<u32>),
}

/// An endless round over the entries that the maps should have.
#[derive(Debug)]
pub(super) struct EntryRound(Next);

impl Default for EntryRound {
    fn default() -> Self {
        Self(Next::Address(None))
    }
}

/// The entries of a step.
pub(super) fn step_size(state: &State) -> usize {
    let entries = state.addresses.len()
        + state.prefixes.len()
        + state.classes.len()
        + state.rows()
        + state.pickups.len();
    LEAST + entries.div_ceil(STEPS)
}

impl EntryRound {
    /// The next entries as the writes that make them.
    pub(super) fn next(&mut self, state: &State, most: usize) -> Vec<Action> {
        let mut writes = Vec::new();
        self.0 = match self.0 {
            Next::Address(from) => {
                let mut left = match &from {
                    Some(from) => state.addresses.from(from),
                    None => state.addresses.iter(),
                };
                for (address, identity) in left.by_ref().take(most) {
                    writes.push(Action::PutAddress(*address, *identity));
                    writes.push(Action::BumpEpoch(*address));
                }
                match left.next() {
                    Some((next, _)) => Next::Address(Some(*next)),
                    None => Next::Prefix(None),
                }
            }
            Next::Prefix(from) => {
                let mut left = match &from {
                    Some(from) => state.prefixes.from(from),
                    None => state.prefixes.iter(),
                };
                let some = left.by_ref().take(most);
                writes.extend(some.map(|(net, identity)| Action::PutPrefix(*net, *identity)));
                match left.next() {
                    Some((next, _)) => Next::Prefix(Some(*next)),
                    None => Next::Class(None),
                }
            }
            Next::Class(from) => {
                let mut left = match &from {
                    Some(from) => state.classes.from(from),
                    None => state.classes.iter(),
                };
                let some = left.by_ref().take(most);
                writes.extend(some.map(|(identity, class)| Action::SetClass(*identity, *class)));
                match left.next() {
                    Some((next, _)) => Next::Class(Some(*next)),
                    None => Next::Row(None, 0),
                }
            }
            Next::Row(from, visited) => rows(state, from, visited, most, &mut writes),
            Next::Pickup(from) => {
                let mut left = state.pickups.range(from.unwrap_or_default()..);
                let some = left.by_ref().take(most);
                writes.extend(some.map(|(ifindex, end)| Action::SetPickup(*ifindex, *end)));
                match left.next() {
                    Some((next, _)) => Next::Pickup(Some(*next)),
                    None => Next::Address(None),
                }
            }
        };
        writes
    }
}

/// The next rows of a table, the first from this one on.
fn rows(
    state: &State,
    from: Option<TableId>,
    visited: usize,
    most: usize,
    writes: &mut Vec<Action>,
) -> Next {
    let mut tables = state.tables.range(from.unwrap_or_default()..);
    let Some((table, rows)) = tables.next() else {
        return Next::Pickup(None);
    };
    // Another table, if the one of before is gone.
    let visited = if from == Some(*table) { visited } else { 0 };
    let some = rows.iter().skip(visited).take(most);
    writes.extend(some.map(|((bits, key), row)| {
        Action::PutRow(Row {
            bits: *bits,
            key: *key,
            row: *row,
        })
    }));
    if visited + most < rows.len() {
        return Next::Row(Some(*table), visited + most);
    }
    match tables.next() {
        Some((next, _)) => Next::Row(Some(*next), 0),
        None => Next::Pickup(None),
    }
}

/// The records of endpoints and the modes, which are few and compared each time, as writes.
pub(super) fn records(state: &State) -> Vec<Action> {
    let endpoints = state.endpoints.iter();
    let endpoints = endpoints.map(|(ifindex, record)| Action::PutEndpoint(*ifindex, *record));
    let modes = state.modes.iter();
    endpoints
        .chain(modes.map(|(slot, mode)| Action::SetMode(*slot, *mode)))
        .collect()
}

/// The writes that put an entry right that is not as written.
pub(super) fn put_right(write: Action) -> Vec<Action> {
    match write {
        Action::PutAddress(address, _) => vec![write, Action::BumpEpoch(address)],
        Action::PutPrefix(..)
        | Action::SetClass(..)
        | Action::PutRow(_)
        | Action::PutEndpoint(..) => vec![write, Action::BumpAllEpochs],
        _ => vec![write],
    }
}

/// The writes that remove an entry that was found and should not be there; `None` if it should.
pub(super) fn removal(state: &State, found: &Action) -> Option<Vec<Action>> {
    match *found {
        Action::PutAddress(address, _) if !state.addresses.contains_key(&address) => Some(vec![
            Action::DeleteAddress(address),
            Action::BumpEpoch(address),
        ]),
        Action::PutPrefix(net, _) if !state.prefixes.contains_key(&net) => {
            Some(vec![Action::DeletePrefix(net), Action::BumpAllEpochs])
        }
        Action::PutRow(row) => {
            let rows = state.tables.get(&row.key.table);
            let is_known = rows.is_some_and(|rows| rows.contains_key(&(row.bits, row.key)));
            (!is_known).then(|| vec![Action::DeleteRow(row), Action::BumpAllEpochs])
        }
        _ => None,
    }
}

/// What an entry is, for the log.
pub(super) fn described(write: &Action) -> String {
    match write {
        Action::PutAddress(address, _) => format!("the identity of {address}"),
        Action::PutPrefix(net, _) => format!("the identity of {net}"),
        Action::SetClass(identity, _) => format!("the class of identity {}", identity.0),
        Action::PutRow(row) => format!("a row of policy table {}", row.key.table.0),
        Action::BumpEpoch(address) => format!("the epoch of {address}"),
        Action::SetPickup(ifindex, _) => format!("the pick-up window of interface index {ifindex}"),
        Action::PutEndpoint(ifindex, _) => format!("the record of interface index {ifindex}"),
        Action::SetMode(slot, _) => format!("the mode of namespace slot {}", slot.0),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests;
