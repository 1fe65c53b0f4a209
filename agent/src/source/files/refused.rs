//! Refused files: how many there are, what of them is in force, and which subjects they lock down.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use super::{FileSet, SourceError};
use crate::model::OverBudget;
use crate::source::last_good::{InForce, Refused};
use crate::source::objects::{Objects, SourceId};

/// How the message begins for a refused file of which no content is in force.
pub(super) const REFUSED: &str = "refused, and it";

impl FileSet {
    /// Counts the refused files, and delivers the subjects of those of which nothing is in force, with
    /// an error for each of these.
    pub(super) fn find_refused(
        &self,
        objects: &mut Objects,
        now: Instant,
        errors: &mut Vec<SourceError>,
    ) -> Refused {
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
        objects.set_refused(SourceId::FILES, locked);
        refused
    }

    /// The files with a policy that is not in force because its namespace has no budget for it.
    pub(super) fn beyond_budget(objects: &Objects) -> BTreeSet<PathBuf> {
        let is_own = |it: &&OverBudget| objects.has_policy(SourceId::FILES, &it.policy.id());
        let own = objects.over_budget().filter(is_own);
        let origins = own.map(|over| &over.policy.origin);
        origins.map(|origin| PathBuf::from(&*origin.file)).collect()
    }
}
