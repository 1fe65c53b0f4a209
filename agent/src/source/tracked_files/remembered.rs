//! What is remembered of the files: restoring it at a start, and which of it has changed since.
//!
//! Invariants: restored content is pending like content that was just read, so that what contradicts
//! other files is not put into force. A start puts no more and no less into force than the run before it:
//! content of which a part is not in force replaces no record, and without one the file is remembered as
//! locked down.

use super::{
    BTreeMap, BTreeSet, Change, Fragment, InForce, Instant, Path, PathBuf, Pending, Record, Stored,
    TrackedFile, TrackedFiles,
};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::source::document::decode;

/// What the store has of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    Good,
    NeverGood,
    LockedDown,
}

impl From<&Record> for Recorded {
    fn from(record: &Record) -> Self {
        match record {
            Record::Good(_) => Self::Good,
            Record::NeverGood => Self::NeverGood,
            Record::LockedDown => Self::LockedDown,
        }
    }
}

impl<F: Fragment> TrackedFiles<F> {
    /// Makes the last good content of earlier runs pending.
    pub(in crate::source) fn restore(&mut self, stored: &Stored) {
        let of_kind = stored
            .records
            .iter()
            .filter(|((kind, _), _)| *kind == F::KIND);
        for ((_, path), record) in of_kind {
            self.recorded.insert(path.clone(), record.into());
            if let Record::Good(text) = record
                && self.roots.iter().any(|root| path.starts_with(root))
                && let Some(fragment) = parse::<F>(path, text)
            {
                let mut entry = TrackedFile::new(stored.past(F::KIND, path));
                entry.digest = Some(Sha256::digest(text).into());
                entry.pending = Pending::Content(Arc::new(fragment));
                self.files.insert(path.clone(), entry);
            }
        }
        self.stored = stored.clone();
        for record in self.stored.records.values_mut() {
            if let Record::Good(text) = record {
                *text = Vec::new();
            }
        }
    }

    /// Says that the first reading is done: files that appear from now on were not there before.
    pub(in crate::source) fn begin_run(&mut self) {
        let records = &mut self.stored.records;
        records.retain(|_, record| *record == Record::LockedDown);
        self.stored.is_complete = true;
    }

    /// What is to be remembered otherwise than before. Content of these files is not remembered as good,
    /// because not all of it is in force.
    pub(in crate::source) fn changes(
        &mut self,
        now: Instant,
        partly_in_force: &BTreeSet<PathBuf>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut refused: BTreeMap<PathBuf, Recorded> = self
            .refused(now)
            .filter_map(|(path, in_force, _)| {
                let recorded = match in_force {
                    InForce::Nothing => Recorded::NeverGood,
                    InForce::LockedDown => Recorded::LockedDown,
                    InForce::Present | InForce::LastGood => return None,
                };
                Some((path.to_owned(), recorded))
            })
            .collect();
        for path in partly_in_force {
            if self.recorded.get(path) != Some(&Recorded::Good) {
                refused.insert(path.clone(), Recorded::LockedDown);
            }
        }
        for (path, recorded) in refused {
            if self.recorded.insert(path.clone(), recorded) != Some(recorded) {
                let record = match recorded {
                    Recorded::LockedDown => Record::LockedDown,
                    Recorded::Good | Recorded::NeverGood => Record::NeverGood,
                };
                changes.push(((F::KIND, path), Some(record)));
            }
        }
        let files = self.files.iter_mut();
        for (path, entry) in files.filter(|(path, _)| !partly_in_force.contains(*path)) {
            if let Some(text) = entry.unstored.take() {
                self.recorded.insert(path.clone(), Recorded::Good);
                changes.push(((F::KIND, path.clone()), Some(Record::Good(text))));
            }
        }
        let unreadable: Vec<PathBuf> = self.missing_or_unreadable().map(Path::to_owned).collect();
        let missing = self.missing_roots.keys().chain(&unreadable);
        let kept: Vec<&PathBuf> = missing.collect();
        let gone = |path: &Path| {
            !self.files.contains_key(path) && !kept.iter().any(|root| path.starts_with(root))
        };
        let forgotten: Vec<PathBuf> = self
            .recorded
            .keys()
            .filter(|path| gone(path))
            .cloned()
            .collect();
        for path in forgotten {
            self.recorded.remove(&path);
            let key = (F::KIND, path);
            self.stored.records.remove(&key);
            changes.push((key, None));
        }
        changes
    }
}

fn parse<F: Fragment>(path: &Path, text: &[u8]) -> Option<F> {
    let name = path.to_string_lossy();
    let text = decode(&name, text, F::max_size(&name)).ok()?;
    F::parse(&name, text).ok()
}
