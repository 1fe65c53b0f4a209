//! Rows that nothing refers to any more, held back for a grace period before their removal.
//!
//! A packet in flight may still be evaluated with the table that its endpoint had a moment ago.
//! Invariants: a row becomes due only if it was unreferenced in every pass of the grace period; if
//! passes are more frequent than the grace period, the removal of the rows they leave is delayed by
//! at most one more grace period, so a busy agent does not fill the map with old rows. Times are
//! nanoseconds of any one clock.

use std::collections::HashSet;

use super::{Action, State, state::Row};

/// How long a row must have been unreferenced before it is removed. A packet is in flight for
/// microseconds; the rest is a margin for a stalled machine.
pub const GRACE: u64 = 500_000_000;

/// The rows waiting to be removed.
#[derive(Debug, Default)]
pub struct RetireQueue {
    /// Rows that have been unreferenced since `aging_since` or longer.
    aging: Vec<Row>,
    aging_since: u64,
    /// Every row that was unreferenced after the last pass, and when that pass ended.
    unreferenced: Vec<Row>,
    last_pass: u64,
}

impl RetireQueue {
    /// Takes out rows that a pass is about to refer to again, whether or not the pass succeeds.
    pub fn keep_referenced(&mut self, desired: &State) {
        let unwanted = |row: &Row| {
            let table = desired.tables.get(&row.key.table);
            !table.is_some_and(|rows| rows.contains_key(&(row.bits, row.key)))
        };
        self.aging.retain(unwanted);
        self.unreferenced.retain(unwanted);
    }

    /// Records the rows that are unreferenced after a pass that ended at `now`.
    pub fn record_pass(&mut self, now: u64, removals: &[Action]) {
        self.unreferenced = removals.iter().filter_map(row).collect();
        self.last_pass = now;
        let still: HashSet<&Row> = self.unreferenced.iter().collect();
        self.aging.retain(|row| still.contains(row));
        if self.aging.is_empty() {
            self.aging.clone_from(&self.unreferenced);
            self.aging_since = now;
        }
    }

    /// Takes the rows that may be removed at `now`; the other rows start aging from the last pass.
    pub fn take_due(&mut self, now: u64) -> Vec<Action> {
        if now.saturating_sub(self.aging_since) < GRACE {
            return Vec::new();
        }
        let due = std::mem::take(&mut self.aging);
        let gone: HashSet<&Row> = due.iter().collect();
        self.unreferenced.retain(|row| !gone.contains(row));
        self.aging.clone_from(&self.unreferenced);
        self.aging_since = self.last_pass;
        due.into_iter().map(Action::DeleteRow).collect()
    }

    /// When the next rows are due; `None` if no rows wait.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        (!self.aging.is_empty()).then(|| self.aging_since.saturating_add(GRACE))
    }
}

fn row(action: &Action) -> Option<Row> {
    match action {
        Action::DeleteRow(row) => Some(*row),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
