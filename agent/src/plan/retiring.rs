//! Rows that nobody refers to any more, until they have been so for a grace period.
//!
//! A packet that is under way may still be judged by the table that its endpoint had a moment ago.
//! Invariants: a row is given out for removal only if every pass of the grace period left it
//! unreferred to; passes that follow each other more quickly than the grace period delay the removal
//! of what they leave behind by one more of them, and no longer, so a busy agent does not fill the map
//! with the past. Times are nanoseconds of any one clock.

use std::collections::HashSet;

use super::{Action, State, state::Row};

/// How long nobody may have referred to a row before it is removed. Packets are under way for
/// microseconds; the rest is for a machine that stands still.
pub const GRACE: u64 = 500_000_000;

/// What waits to be removed.
#[derive(Debug, Default)]
pub struct Retiring {
    /// Since `since`, or longer.
    aging: Vec<Row>,
    since: u64,
    /// Everything that the last pass left, when it was.
    left: Vec<Row>,
    passed: u64,
}

impl Retiring {
    /// Keeps what a pass is about to refer to again, whether it comes to its end or not.
    pub fn spare(&mut self, desired: &State) {
        let unwanted = |row: &Row| {
            let table = desired.tables.get(&row.key.table);
            !table.is_some_and(|rows| rows.contains_key(&(row.bits, row.key)))
        };
        self.aging.retain(unwanted);
        self.left.retain(unwanted);
    }

    /// Takes in what a pass that ended `now` left unreferred to.
    pub fn left_by_pass(&mut self, now: u64, removals: &[Action]) {
        self.left = removals.iter().filter_map(row).collect();
        self.passed = now;
        let still: HashSet<&Row> = self.left.iter().collect();
        self.aging.retain(|row| still.contains(row));
        if self.aging.is_empty() {
            self.aging.clone_from(&self.left);
            self.since = now;
        }
    }

    /// What may be removed `now`; what is left begins to age from the pass that left it.
    pub fn take_ripe(&mut self, now: u64) -> Vec<Action> {
        if now.saturating_sub(self.since) < GRACE {
            return Vec::new();
        }
        let ripe = std::mem::take(&mut self.aging);
        let gone: HashSet<&Row> = ripe.iter().collect();
        self.left.retain(|row| !gone.contains(row));
        self.aging.clone_from(&self.left);
        self.since = self.passed;
        ripe.into_iter().map(Action::DeleteRow).collect()
    }

    /// When the next rows will be ripe.
    #[must_use]
    pub fn ripens(&self) -> Option<u64> {
        (!self.aging.is_empty()).then(|| self.since.saturating_add(GRACE))
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
