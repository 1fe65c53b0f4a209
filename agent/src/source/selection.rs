//! A set of inventory and policy files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tracked_files::{Fragment, TrackedFile, TrackedFiles};

/// Files whose pending content is to be put into force together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) inventory: BTreeSet<PathBuf>,
    pub(super) policies: BTreeSet<PathBuf>,
}

impl Selection {
    pub(super) fn is_empty(&self) -> bool {
        self.inventory.is_empty() && self.policies.is_empty()
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self {
            inventory: &self.inventory & &other.inventory,
            policies: &self.policies & &other.policies,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.inventory.extend(other.inventory.iter().cloned());
        self.policies.extend(other.policies.iter().cloned());
    }

    pub(super) fn remove(&mut self, other: &Self) {
        self.inventory = &self.inventory - &other.inventory;
        self.policies = &self.policies - &other.policies;
    }
}

/// The files with pending content that are chosen.
pub(super) fn pending<F: Fragment>(
    files: &TrackedFiles<F>,
    chosen: impl Fn(&TrackedFile<F>) -> bool,
) -> BTreeSet<PathBuf> {
    let pending = files.files.iter();
    let pending = pending.filter(|(_, entry)| entry.is_pending() && chosen(entry));
    pending.map(|(path, _)| path.clone()).collect()
}

/// The content of all files, with the pending content of these.
pub(super) fn proposed<'a, F: Fragment>(
    files: &'a TrackedFiles<F>,
    selection: &'a BTreeSet<PathBuf>,
) -> impl Iterator<Item = (&'a Path, &'a F)> {
    files.files.iter().filter_map(|(path, entry)| {
        let chosen = if selection.contains(path) {
            TrackedFile::proposed
        } else {
            TrackedFile::in_force
        };
        chosen(entry).map(|fragment| (path.as_path(), &**fragment))
    })
}
