//! The set of inventory and policy files, and the content that is in force.
//!
//! Invariants: the content in force is always consistent as a whole. If a file is bad, or its new
//! content conflicts with other files, its last good content stays in force, the error is reported
//! at every reload until it is fixed, and other files are not affected. For an agent, an address that
//! several workloads claim and a namespace that is not declared are no conflicts of files: what else the
//! files say is taken, so that an inventory never stands still for one entry of it. The content of a deleted
//! file is removed after a moment, unless other files still depend on it; at once if another file now
//! has the same names. Unchanged files are not read again. If the inventory has not changed, it keeps
//! its `Arc`; the same holds for the policies.

mod propose;
mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::document::SourceError;
use super::file_read::FileId;
use super::inventory_errors::Contested;
use super::inventory_toml::InventoryFragment;
use super::last_good::Stored;
use super::object_sources::{Reload, Report};
use super::objects::Objects;
use super::policy_file::PolicyFragment;
use super::selection::{Selection, pending, proposed};
use super::tracked_files::TrackedFiles;
use crate::model::{
    DEFAULT_BUDGET, InventoryStore, NamespaceName, Needs, Origin, check_namespaces,
};
use crate::ordmap::Map;
use propose::Proposal;
use refused::REFUSED;

/// The inventory and policy files under the configured paths.
#[derive(Debug)]
pub struct FileSet {
    inventory_files: TrackedFiles<InventoryFragment>,
    policy_files: TrackedFiles<PolicyFragment>,
    /// Whether everything has to be consistent, entry by entry.
    is_strict: bool,
    /// What is wrong with entries of the files in force, and the objects it was found in.
    contested: Contested,
    contested_in: InventoryStore,
}

impl FileSet {
    /// Reads all files for the first time, for commands that need all of them to be valid. Without
    /// inventory paths, the namespaces of policies are not checked.
    ///
    /// # Errors
    /// All errors of the files; a single one refuses all files.
    pub fn load_strict(
        inventory: Vec<PathBuf>,
        policies: Vec<PathBuf>,
    ) -> Result<(Self, Reload), Vec<SourceError>> {
        let (stored, mut objects) = (Stored::default(), Objects::new(DEFAULT_BUDGET));
        let (set, mut reload) = Self::load(inventory, policies, &mut objects, &stored, true);
        if reload.errors.is_empty() {
            return Ok((set, reload));
        }
        // The callers enforce nothing, so that the errors about lockdown do not apply.
        let about_lockdown =
            |error: &SourceError| error.line == 0 && error.message.starts_with(REFUSED);
        reload.errors.retain(|error| !about_lockdown(error));
        Err(reload.errors)
    }

    /// Reads all files for the first time, for an agent that starts, with what it knows of earlier runs:
    /// bad files, and policies beyond the budget of their namespace, are reported, and the others are put
    /// into force.
    ///
    /// # Errors
    /// All errors of the files, if an inventory file or a configured path is bad and no last good content
    /// of it is known.
    pub fn load_lenient(
        inventory: Vec<PathBuf>,
        policies: Vec<PathBuf>,
        budget: Needs,
        stored: &Stored,
    ) -> Result<(Self, Objects, Reload), Vec<SourceError>> {
        let now = Instant::now();
        let mut objects = Objects::new(budget);
        let (mut set, reload) = Self::load(inventory, policies, &mut objects, stored, false);
        if !set.inventory_files.can_start(now) || !set.policy_files.has_all_roots() {
            return Err(reload.errors);
        }
        set.inventory_files.begin_run();
        set.policy_files.begin_run();
        Ok((set, objects, reload))
    }

    fn load(
        inventory: Vec<PathBuf>,
        policies: Vec<PathBuf>,
        objects: &mut Objects,
        stored: &Stored,
        is_strict: bool,
    ) -> (Self, Reload) {
        let mut set = Self {
            inventory_files: TrackedFiles::new(inventory),
            policy_files: TrackedFiles::new(policies),
            is_strict,
            contested: Contested::default(),
            contested_in: InventoryStore::default(),
        };
        let now = Instant::now();
        set.inventory_files.restore(stored);
        set.policy_files.restore(stored);
        // Content that contradicts other content waits, as at run time; the next delivery says so.
        let _conflicts = set.commit_pending(objects, now);
        let reload = set.reload(objects, now, BTreeSet::new);
        (set, reload)
    }

    /// The configured paths, for [`super::watch::Watcher`].
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        [self.inventory_files.roots(), self.policy_files.roots()].concat()
    }

    /// Where the namespaces in force are declared.
    #[must_use]
    pub fn declared_namespaces(&self) -> BTreeMap<NamespaceName, Origin> {
        let parts = self.inventory_files.files.iter();
        let parts = parts.filter_map(|(path, entry)| Some((path, entry.in_force()?)));
        let declared = parts.flat_map(|(path, part)| {
            let file: Arc<str> = Arc::from(&*path.to_string_lossy());
            part.namespaces.iter().map(move |declared| {
                let (file, line) = (file.clone(), declared.line);
                (declared.item.name().clone(), Origin { file, line })
            })
        });
        declared.collect()
    }

    /// Rereads the files that changed. `being_written` is asked after they were read, and answers which
    /// files processes are writing then.
    pub(super) fn read(&mut self, now: Instant, being_written: impl FnOnce() -> BTreeSet<FileId>) {
        let inventory = self.inventory_files.scan(now);
        let policies = self.policy_files.scan(now);
        let being_written = being_written();
        self.inventory_files.take(inventory, &being_written, now);
        self.policy_files.take(policies, &being_written, now);
    }

    /// Rereads the files that changed, as the only source of these objects.
    fn reload(
        &mut self,
        objects: &mut Objects,
        now: Instant,
        being_written: impl FnOnce() -> BTreeSet<FileId>,
    ) -> Reload {
        let before = objects.clone();
        self.read(now, being_written);
        let report = self.deliver(objects, now);
        Reload::new(&before, objects, vec![report])
    }

    /// Puts the valid content of what was read into force.
    pub(super) fn deliver(&mut self, objects: &mut Objects, now: Instant) -> Report {
        let mut errors = self.commit_pending(objects, now);
        self.look_at_entries(objects);
        errors.extend(self.inventory_files.errors().cloned());
        errors.extend(self.policy_files.errors().cloned());
        errors.extend(self.contested.errors.iter().cloned());
        let refused = self.find_refused(objects, now, &mut errors);
        let mut changes = self.inventory_files.changes(now, &BTreeSet::new());
        let beyond_budget = Self::beyond_budget(objects);
        changes.append(&mut self.policy_files.changes(now, &beyond_budget));
        let mut warnings: Vec<_> = self.inventory_files.warnings().cloned().collect();
        warnings.extend(self.policy_files.warnings().cloned());
        if !self.is_strict {
            warnings.extend(self.without_subjects(objects));
        }
        let times = [
            self.inventory_files.next_change(now),
            self.policy_files.next_change(now),
        ];
        Report {
            restored: None,
            errors,
            warnings,
            refused,
            services: Map::new(),
            cluster_ranges: BTreeSet::new(),
            changes,
            next_change: times.into_iter().flatten().min(),
        }
    }

    /// Looks at what is wrong with entries in force again, if other sources changed something about them.
    fn look_at_entries(&mut self, objects: &Objects) {
        let before = (&self.contested, &self.contested_in);
        let nothing = BTreeSet::new();
        let parts: Vec<_> = proposed(&self.inventory_files, &nothing).collect();
        let contested = Contested::after(before, &nothing, &parts, objects.store());
        self.contested_in = objects.store().clone();
        self.contested = contested;
    }

    /// Puts the pending files into force that are consistent with each other. Files involved in a
    /// conflict are held back and the others are tried again without them. But if the content of an
    /// involved file only waits to be removed, another file has its names now, and it is removed at
    /// once.
    fn commit_pending(&mut self, objects: &mut Objects, now: Instant) -> Vec<SourceError> {
        let mut selection = Selection {
            inventory: pending(&self.inventory_files, |entry| entry.is_settled(now)),
            policies: pending(&self.policy_files, |entry| entry.is_settled(now)),
        };
        let mut waiting = Selection {
            inventory: pending(&self.inventory_files, |entry| !entry.is_settled(now)),
            policies: pending(&self.policy_files, |entry| !entry.is_settled(now)),
        };
        let mut errors = Vec::new();
        while !selection.is_empty() {
            match self.propose(objects, &selection) {
                Ok(mut proposal) => {
                    self.drop_former_claims(objects, &mut selection, &waiting, &mut proposal);
                    self.inventory_files.commit(&selection.inventory);
                    self.policy_files.commit(&selection.policies);
                    self.contested = proposal.contested;
                    self.contested_in = proposal.objects.store().clone();
                    *objects = proposal.objects;
                    break;
                }
                Err(conflict) => {
                    let replaced = waiting.intersection(&conflict.involved);
                    if !replaced.is_empty() {
                        waiting.remove(&replaced);
                        selection.add(&replaced);
                        continue;
                    }
                    errors.extend(conflict.errors);
                    let involved = selection.intersection(&conflict.involved);
                    let held_back = if involved.is_empty() {
                        selection.clone()
                    } else {
                        involved
                    };
                    selection.remove(&held_back);
                }
            }
        }
        errors
    }

    /// Adds the files to a selection that are gone and of which an entry contradicts what another file
    /// says now: it has taken their place.
    fn drop_former_claims(
        &self,
        objects: &Objects,
        selection: &mut Selection,
        waiting: &Selection,
        proposal: &mut Proposal,
    ) {
        for path in &waiting.inventory {
            // What was contradictory before has nothing to do with a new file.
            if proposal.contested.errors.len() <= self.contested.errors.len() {
                return;
            }
            let mut more = selection.clone();
            more.inventory.insert(path.clone());
            if let Ok(without) = self.propose(objects, &more)
                && without.contested.errors.len() < proposal.contested.errors.len()
            {
                (*selection, *proposal) = (more, without);
            }
        }
    }

    /// A warning about each policy whose namespace the inventory does not have: it has no subjects.
    fn without_subjects(&self, objects: &Objects) -> impl Iterator<Item = SourceError> {
        let is_checked = !self.inventory_files.roots().is_empty();
        let unknown = is_checked
            .then(|| check_namespaces(objects.policies(), objects.inventory()).err())
            .flatten()
            .unwrap_or_default();
        unknown.into_iter().map(|error| {
            let message = format!("{error}; until then it has no subjects");
            SourceError::at_line(&error.origin.file, error.origin.line, message)
        })
    }
}

#[cfg(test)]
mod tests;
