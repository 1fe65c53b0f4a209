//! The mark of table numbers: no table number from the mark on was ever given out.
//!
//! A verdict in conntrack is compared by its table's number, and lives longer than the table, so
//! such a number must never stand for a second content while the conntrack maps live. The mark is
//! kept twice: in the ledger, and in a map that is pinned next to conntrack. Invariants: both are
//! written before a number from the old mark on is used; the ledger first. If one is missing or
//! they differ, neither the ledger nor any stored verdict is trusted: the ledger may be of another
//! life of the maps. Marks rise in steps, so that a new table seldom costs a write.

use super::State;

/// Numbers that one step of the mark covers.
const STEP: u32 = 1024;

/// The marks found at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundMarks {
    pub(super) ledger: Option<u32>,
    pub(super) kernel: Option<u32>,
}

impl FoundMarks {
    /// The mark, if both places and the kernel's maps agree on it.
    pub(super) fn agreed(self, actual: &State) -> Option<u32> {
        let same = self.ledger.filter(|mark| self.kernel == Some(*mark));
        same.filter(|mark| above_tables(actual) <= *mark)
    }

    /// A number above every table number that any of them knows of.
    pub(super) fn highest(self, actual: &State) -> u32 {
        let marks = self.ledger.max(self.kernel).unwrap_or_default();
        marks.max(above_tables(actual))
    }
}

fn above_tables(actual: &State) -> u32 {
    let of_rows = actual.tables.keys().copied();
    let in_force = actual.endpoints.values().map(|endpoint| endpoint.table);
    let highest = of_rows.chain(in_force).max().unwrap_or_default();
    highest.0.saturating_add(1)
}

/// The mark to write before numbers below `next` are used; `None` if the written one covers them.
pub(super) fn to_write(written: Option<u32>, next: u32) -> Option<u32> {
    let covers = written.is_some_and(|mark| next <= mark);
    (!covers).then(|| next.saturating_add(STEP))
}

#[cfg(test)]
mod tests {
    use ringfence_common::{endpoint::Endpoint, ids::TableId};

    use super::*;

    fn marks(ledger: Option<u32>, kernel: Option<u32>) -> FoundMarks {
        FoundMarks { ledger, kernel }
    }

    #[test]
    fn marks_agree_only_if_both_exist_are_equal_and_above_every_table() {
        let mut state = State::default();
        assert_eq!(marks(Some(9), Some(9)).agreed(&state), Some(9));
        for (ledger, kernel) in [
            (None, None),
            (Some(9), None),
            (None, Some(9)),
            (Some(9), Some(10)),
            (Some(10), Some(9)),
        ] {
            assert_eq!(marks(ledger, kernel).agreed(&state), None);
        }
        state.tables.insert(TableId(8), std::sync::Arc::default());
        assert_eq!(marks(Some(9), Some(9)).agreed(&state), Some(9));
        let endpoint = Endpoint {
            table: TableId(9),
            ..Endpoint::default()
        };
        state.endpoints.insert(1, endpoint);
        assert_eq!(marks(Some(9), Some(9)).agreed(&state), None);
    }

    #[test]
    fn the_highest_number_known_counts() {
        let mut state = State::default();
        assert_eq!(marks(None, None).highest(&state), 1);
        state.tables.insert(TableId(8), std::sync::Arc::default());
        assert_eq!(marks(None, Some(3)).highest(&state), 9);
        assert_eq!(marks(Some(20), Some(3)).highest(&state), 20);
        assert_eq!(marks(Some(20), Some(30)).highest(&state), 30);
    }

    #[test]
    fn a_mark_is_written_before_it_is_passed() {
        assert_eq!(to_write(None, 1), Some(1 + STEP));
        assert_eq!(to_write(Some(100), 100), None);
        assert_eq!(to_write(Some(100), 101), Some(101 + STEP));
        assert_eq!(to_write(Some(u32::MAX), u32::MAX), None);
    }
}
