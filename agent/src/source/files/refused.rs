//! Refused files: how many there are, what of them is in force, and which subjects they lock down.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::{FileSet, SourceError};
use crate::model::Lockdown;
use crate::source::last_good::InForce;

/// How the message begins for a refused file of which no content is in force.
pub(super) const REFUSED: &str = "refused, and it";

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
}

impl FileSet {
    /// Counts the refused files, and collects the subjects of those of which nothing is in force, with
    /// an error for each of these, and of policies beyond their budget of which no version is. True if
    /// the subjects have changed.
    pub(super) fn find_refused(
        &mut self,
        now: Instant,
        errors: &mut Vec<SourceError>,
    ) -> (Refused, bool) {
        let mut refused = Refused::default();
        let mut locked = Vec::new();
        // An inventory of which nothing is known ends a start, so that its subjects do not matter.
        let inventory = self.inventory_files.refused(now);
        let inventory = inventory.filter(|(_, in_force, _)| *in_force != InForce::LockedDown);
        for (path, in_force, subjects) in inventory.chain(self.policy_files.refused(now)) {
            let outcome = match in_force {
                InForce::Present | InForce::LastGood => {
                    refused.last_good += 1;
                    continue;
                }
                InForce::Nothing => {
                    refused.no_effect += 1;
                    "never was good: it changes nothing until it is fixed"
                }
                InForce::LockedDown if subjects.is_empty() => {
                    refused.locked_down += 1;
                    "has no earlier content: its subjects cannot be read, so no workload is locked down"
                }
                InForce::LockedDown => {
                    refused.locked_down += 1;
                    "has no earlier content: its subjects are locked down where the namespace is in \
                     enforce mode"
                }
            };
            let name = path.to_string_lossy();
            errors.push(SourceError::whole_file(
                &name,
                format!("{REFUSED} {outcome}"),
            ));
            if in_force == InForce::LockedDown {
                locked.extend(subjects);
            }
        }
        let without_earlier = self.over_budget.iter().filter(|over| !over.has_earlier);
        locked.extend(without_earlier.map(|over| Lockdown::of(&over.policy)));
        let changed = locked != *self.locked;
        if changed {
            self.locked = Arc::new(locked);
        }
        (refused, changed)
    }

    /// The files with a policy that is not in force because its namespace has no budget for it.
    pub(super) fn beyond_budget(&self) -> BTreeSet<PathBuf> {
        let origins = self.over_budget.iter().map(|over| &over.policy.origin);
        origins.map(|origin| PathBuf::from(&*origin.file)).collect()
    }
}
