//! What is known of each file from earlier runs, and what that means when the file is bad.
//!
//! Invariants: a file that never was good changes nothing, at a start as at run time; its subjects are
//! locked down only where it cannot be known that it never was good. Pure: the store of these records is
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The kinds of source files.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Inventory files.
    Inventory,
    /// Policy files.
    Policies,
}

/// A source file: its kind and its path, as it was opened.
pub type FileKey = (Kind, PathBuf);

/// What is remembered of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The text of its last good content.
    Good(Vec<u8>),
    /// It was seen and never was good; it changes nothing.
    NeverGood,
    /// It was bad at a start that knew nothing of it: its subjects are locked down until it is fixed.
    LockedDown,
}

/// Everything that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Whether a file without a record was never seen. False before the first run, and if writing a
    /// record failed.
    pub is_complete: bool,
    /// The records.
    pub records: BTreeMap<FileKey, Record>,
    /// The names of records that exist and cannot be used.
    pub lost: BTreeSet<String>,
}

/// A change of what is remembered of a file; `None` forgets it.
pub type Change = (FileKey, Option<Record>);

/// The name of a file's record: it is valid as a file name, whatever the path.
#[must_use]
pub fn record_name(kind: Kind, path: &Path) -> String {
    let word = match kind {
        Kind::Inventory => "inventory",
        Kind::Policies => "policies",
    };
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let mut name = format!("{word}-");
    for byte in digest.iter().take(16) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// What is known of a file of which no content is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// It never was good.
    NeverGood,
    /// Perhaps it was good.
    Unknown,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It has content that was good.
    Good,
    /// It has none.
    Past(Past),
}

/// What a file says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Something valid that contradicts no other file.
    Good,
    /// Something else, or it cannot be read.
    Bad,
    /// It does not exist.
    Gone,
}

/// What of a file is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InForce {
    /// What it says now.
    Present,
    /// Its last good content.
    LastGood,
    /// Nothing.
    Nothing,
    /// Nothing, and its subjects are locked down.
    LockedDown,
}

/// What of a file is in force, by what is known of it and what it says now.
#[must_use]
pub const fn in_force(known: Known, read: Read) -> InForce {
    match (read, known) {
        (Read::Good, _) => InForce::Present,
        (Read::Gone, _) | (Read::Bad, Known::Past(Past::NeverGood)) => InForce::Nothing,
        (Read::Bad, Known::Good) => InForce::LastGood,
        (Read::Bad, Known::Past(Past::Unknown)) => InForce::LockedDown,
    }
}

/// How many files are refused, by what of them is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Their last good content.
    pub last_good: u64,
    /// Nothing: they never were good.
    pub no_effect: u64,
    /// Nothing, and their subjects are locked down.
    pub locked_down: u64,
}

impl Refused {
    /// The numbers with a name for each, for metrics.
    #[must_use]
    pub const fn by_name(self) -> [(&'static str, u64); 3] {
        [
            ("last-good", self.last_good),
            ("nothing", self.no_effect),
            ("lockdown", self.locked_down),
        ]
    }

    /// Those of two sources.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            last_good: self.last_good + other.last_good,
            no_effect: self.no_effect + other.no_effect,
            locked_down: self.locked_down + other.locked_down,
        }
    }
}

impl Stored {
    /// What is known of a file, apart from content that was good.
    #[must_use]
    pub fn past(&self, kind: Kind, path: &Path) -> Past {
        let never_was_good = match self.records.get(&(kind, path.to_owned())) {
            Some(Record::NeverGood) => true,
            // Good content that could not be used is lost.
            Some(Record::LockedDown | Record::Good(_)) => false,
            None => self.is_complete && !self.lost.contains(&record_name(kind, path)),
        };
        if never_was_good {
            Past::NeverGood
        } else {
            Past::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bad_file_of_which_nothing_is_known_locks_down() {
        let pasts = [Past::NeverGood, Past::Unknown];
        let known = [Known::Good, Known::Past(pasts[0]), Known::Past(pasts[1])];
        let table = known
            .map(|known| [Read::Good, Read::Bad, Read::Gone].map(|read| in_force(known, read)));
        let good = [InForce::Present, InForce::LastGood, InForce::Nothing];
        let never = [InForce::Present, InForce::Nothing, InForce::Nothing];
        let unknown = [InForce::Present, InForce::LockedDown, InForce::Nothing];
        assert_eq!(table, [good, never, unknown]);
    }

    #[test]
    fn the_past_of_a_file() {
        let path = |name: &str| PathBuf::from(format!("/etc/p/{name}"));
        let records = [
            ("never", Record::NeverGood),
            ("locked", Record::LockedDown),
            ("good", Record::Good(Vec::new())),
        ];
        let mut stored = Stored {
            is_complete: true,
            records: records
                .map(|(name, record)| ((Kind::Policies, path(name)), record))
                .into(),
            lost: [record_name(Kind::Policies, &path("lost"))].into(),
        };
        let past = |stored: &Stored, name: &str| stored.past(Kind::Policies, &path(name));
        let all = |stored: &Stored| {
            ["never", "locked", "good", "lost", "new"].map(|name| past(stored, name))
        };
        let (never, unknown) = (Past::NeverGood, Past::Unknown);
        assert_eq!(all(&stored), [never, unknown, unknown, unknown, never]);
        stored.is_complete = false;
        assert_eq!(all(&stored), [never, unknown, unknown, unknown, unknown]);
        assert_eq!(Stored::default().past(Kind::Inventory, &path("a")), unknown);
        // Kinds do not mix.
        assert_eq!(stored.past(Kind::Inventory, &path("never")), unknown);
    }
}
