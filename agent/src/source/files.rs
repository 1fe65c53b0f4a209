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

mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::document::SourceError;
use super::file_read::FileId;
use super::inventory_diff;
use super::inventory_errors::{Contested, location, source_error};
use super::inventory_toml::InventoryFragment;
use super::last_good::{Change, Stored};
use super::policy_file::PolicyFragment;
use super::selection::{Selection, pending, proposed};
use super::tracked_files::TrackedFiles;
use crate::model::{
    DEFAULT_BUDGET, Inventory, InventoryError, InventoryFault, InventoryStore, Lockdown,
    NamespaceName, Needs, Origin, OverBudget, PolicySet, check_namespaces, within_budget,
};
use refused::REFUSED;
pub use refused::Refused;

/// The result of rereading the files.
#[derive(Debug, Clone)]
pub struct Reload {
    /// True if the inventory, the policies or the locked-down subjects have changed.
    pub changed: bool,
    /// The inventory in force.
    pub inventory: Arc<Inventory>,
    /// The policies in force.
    pub policies: Arc<PolicySet>,
    /// The subjects of refused policies of which no content was ever in force.
    pub locked: Arc<Vec<Lockdown>>,
    /// All current errors of the files, including those reported before.
    pub errors: Vec<SourceError>,
    /// The warnings about the content in force.
    pub warnings: Vec<SourceError>,
    /// How many files are refused.
    pub refused: Refused,
    /// What is to be remembered of the files otherwise than before.
    pub changes: Vec<Change>,
    /// When to reread the files although nothing has changed: content is removed then, or an error
    /// reported.
    pub next_change: Option<Instant>,
}

/// The inventory and policy files under the configured paths.
#[derive(Debug)]
pub struct FileSet {
    inventory_files: TrackedFiles<InventoryFragment>,
    policy_files: TrackedFiles<PolicyFragment>,
    /// The inventory in force.
    store: InventoryStore,
    policies: Arc<PolicySet>,
    locked: Arc<Vec<Lockdown>>,
    /// Whether everything has to be consistent, entry by entry.
    is_strict: bool,
    /// What each namespace's policies may need.
    budget: Needs,
    /// What is wrong with entries of the inventory in force.
    contested: Contested,
    /// Policies that their namespace has no budget for.
    over_budget: Vec<OverBudget>,
}

/// What would be in force.
struct Proposal {
    store: InventoryStore,
    policies: Arc<PolicySet>,
    contested: Contested,
    over_budget: Vec<OverBudget>,
}

/// Why a selection cannot be put into force, and which files are involved.
#[derive(Debug, Default)]
struct Conflict {
    errors: Vec<SourceError>,
    involved: Selection,
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
        let stored = Stored::default();
        let (set, mut reload) = Self::load(inventory, policies, DEFAULT_BUDGET, &stored, true);
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
    ) -> Result<(Self, Reload), Vec<SourceError>> {
        let now = Instant::now();
        let (mut set, reload) = Self::load(inventory, policies, budget, stored, false);
        if !set.inventory_files.can_start(now) || !set.policy_files.has_all_roots() {
            return Err(reload.errors);
        }
        set.inventory_files.begin_run();
        set.policy_files.begin_run();
        Ok((set, reload))
    }

    fn load(
        inventory: Vec<PathBuf>,
        policies: Vec<PathBuf>,
        budget: Needs,
        stored: &Stored,
        is_strict: bool,
    ) -> (Self, Reload) {
        let mut set = Self {
            inventory_files: TrackedFiles::new(inventory),
            policy_files: TrackedFiles::new(policies),
            store: InventoryStore::default(),
            policies: Arc::default(),
            locked: Arc::default(),
            is_strict,
            budget,
            contested: Contested::default(),
            over_budget: Vec::new(),
        };
        let now = Instant::now();
        set.inventory_files.restore(stored);
        set.policy_files.restore(stored);
        // Content that contradicts other content waits, as at run time; the next reload says so.
        let _conflicts = set.commit_pending(now);
        let reload = set.reload(now, BTreeSet::new);
        (set, reload)
    }

    /// The configured paths, for [`super::watch::Watcher`].
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        [self.inventory_files.roots(), self.policy_files.roots()].concat()
    }

    /// The inventory in force.
    #[must_use]
    pub fn inventory(&self) -> &Arc<Inventory> {
        self.store.inventory()
    }

    /// The policies in force.
    #[must_use]
    pub fn policies(&self) -> &Arc<PolicySet> {
        &self.policies
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

    /// Rereads the files that changed and puts their valid content into force. `being_written` is
    /// asked after they were read, and answers which files processes are writing then.
    pub fn reload(
        &mut self,
        now: Instant,
        being_written: impl FnOnce() -> BTreeSet<FileId>,
    ) -> Reload {
        let inventory = self.inventory_files.scan(now);
        let policies = self.policy_files.scan(now);
        let being_written = being_written();
        self.inventory_files.take(inventory, &being_written, now);
        self.policy_files.take(policies, &being_written, now);
        let (before_inventory, before_policies) = (self.inventory().clone(), self.policies.clone());
        let mut conflicts = self.commit_pending(now);
        let mut errors: Vec<_> = self.inventory_files.errors().cloned().collect();
        errors.extend(self.policy_files.errors().cloned());
        errors.append(&mut conflicts);
        errors.extend(self.contested.errors.iter().cloned());
        errors.extend(self.over_budget.iter().map(|over| {
            let Origin { file, line } = &over.policy.origin;
            SourceError::at_line(file, *line, over)
        }));
        let (refused, relocked) = self.find_refused(now, &mut errors);
        errors.sort();
        errors.dedup();
        let mut changes = self.inventory_files.changes(now, &BTreeSet::new());
        let beyond_budget = self.beyond_budget();
        changes.append(&mut self.policy_files.changes(now, &beyond_budget));
        let mut warnings: Vec<_> = self.inventory_files.warnings().cloned().collect();
        warnings.extend(self.policy_files.warnings().cloned());
        if !self.is_strict {
            warnings.extend(self.without_subjects());
        }
        Reload {
            changed: relocked
                || !Arc::ptr_eq(&before_inventory, self.inventory())
                || !Arc::ptr_eq(&before_policies, &self.policies),
            inventory: self.inventory().clone(),
            policies: self.policies.clone(),
            locked: self.locked.clone(),
            errors,
            warnings,
            refused,
            changes,
            next_change: [
                self.inventory_files.next_change(now),
                self.policy_files.next_change(now),
            ]
            .into_iter()
            .flatten()
            .min(),
        }
    }

    /// Puts the pending files into force that are consistent with each other. Files involved in a
    /// conflict are held back and the others are tried again without them. But if the content of an
    /// involved file only waits to be removed, another file has its names now, and it is removed at
    /// once.
    fn commit_pending(&mut self, now: Instant) -> Vec<SourceError> {
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
            match self.propose(&selection) {
                Ok(mut proposal) => {
                    self.drop_former_claims(&mut selection, &waiting, &mut proposal);
                    self.inventory_files.commit(&selection.inventory);
                    self.policy_files.commit(&selection.policies);
                    self.store = proposal.store;
                    self.policies = proposal.policies;
                    self.contested = proposal.contested;
                    self.over_budget = proposal.over_budget;
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
            if let Ok(without) = self.propose(&more)
                && without.contested.errors.len() < proposal.contested.errors.len()
            {
                (*selection, *proposal) = (more, without);
            }
        }
    }

    /// A warning about each policy whose namespace the inventory does not have: it has no subjects.
    fn without_subjects(&self) -> impl Iterator<Item = SourceError> {
        let is_checked = !self.inventory_files.roots().is_empty();
        let unknown = is_checked
            .then(|| check_namespaces(&self.policies, self.inventory()).err())
            .flatten()
            .unwrap_or_default();
        unknown.into_iter().map(|error| {
            let message = format!("{error}; until then it has no subjects");
            SourceError::at_line(&error.origin.file, error.origin.line, message)
        })
    }

    /// What would be in force with this selection.
    fn propose(&self, selection: &Selection) -> Result<Proposal, Conflict> {
        let mut conflict = Conflict::default();
        let inventory = if selection.inventory.is_empty() {
            Some((self.store.clone(), self.contested.clone()))
        } else {
            self.propose_inventory(&selection.inventory, &mut conflict)
        };
        let policies = if selection.policies.is_empty() {
            Some((self.policies.clone(), self.over_budget.clone()))
        } else {
            self.propose_policies(&selection.policies, &mut conflict)
        };
        let (Some((store, contested)), Some((policies, over_budget))) = (inventory, policies)
        else {
            return Err(conflict);
        };
        if self.is_strict
            && !self.inventory_files.roots().is_empty()
            && let Err(unknown) = check_namespaces(&policies, store.inventory())
        {
            for error in &unknown {
                conflict
                    .involved
                    .policies
                    .insert(PathBuf::from(&*error.origin.file));
                self.involve_declaring_files(&error.namespace, &mut conflict.involved);
                conflict.errors.push(SourceError::at_line(
                    &error.origin.file,
                    error.origin.line,
                    error,
                ));
            }
            return Err(conflict);
        }
        Ok(Proposal {
            store,
            policies,
            contested,
            over_budget,
        })
    }

    /// The inventory, and what is wrong with entries of it.
    fn propose_inventory(
        &self,
        selection: &BTreeSet<PathBuf>,
        conflict: &mut Conflict,
    ) -> Option<(InventoryStore, Contested)> {
        let parts: Vec<(&Path, &InventoryFragment)> =
            proposed(&self.inventory_files, selection).collect();
        if let Some(store) = self.changed_store(selection) {
            let before = (&self.contested, &self.store);
            let contested = Contested::after(before, selection, &parts, &store);
            if !self.is_strict || contested.errors.is_empty() {
                return Some((store, contested));
            }
        }
        for error in &self.contradictions(&parts) {
            self.involve(&parts, error, &mut conflict.involved);
            conflict.errors.extend(source_error(&parts, error));
        }
        None
    }

    /// The inventory in force with the pending content of these files; `None` if there are
    /// contradictions.
    fn changed_store(&self, selection: &BTreeSet<PathBuf>) -> Option<InventoryStore> {
        let entries = selection.iter();
        let entries = entries.filter_map(|path| self.inventory_files.files.get(path));
        let files = entries.map(|entry| (entry.in_force(), entry.proposed()));
        let files = files.map(|(old, new)| (old.map(Arc::as_ref), new.map(Arc::as_ref)));
        let mut store = self.store.clone();
        let changes = inventory_diff::changes(files, &store)?;
        store.apply(changes).ok()?;
        Some(store)
    }

    /// What contradicts what in these contents.
    fn contradictions(&self, parts: &[(&Path, &InventoryFragment)]) -> Vec<InventoryError> {
        let namespaces = parts.iter().flat_map(|(_, part)| &part.namespaces);
        let workloads = parts.iter().flat_map(|(_, part)| &part.workloads);
        let nodes = parts.iter().flat_map(|(_, part)| &part.nodes);
        let namespaces = namespaces.map(|declared| declared.item.clone()).collect();
        let workloads = workloads.map(|declared| declared.item.clone()).collect();
        let nodes = nodes.map(|declared| declared.item.clone()).collect();
        let errors = if self.is_strict {
            Inventory::build(namespaces, workloads, nodes).err()
        } else {
            Inventory::build_contested(namespaces, workloads, nodes).err()
        };
        errors.unwrap_or_default()
    }

    /// Marks the files of an error about the inventory.
    fn involve(
        &self,
        parts: &[(&Path, &InventoryFragment)],
        error: &InventoryError,
        involved: &mut Selection,
    ) {
        let items = std::iter::once(error.item).chain(error.other);
        let paths = items.filter_map(|item| location(parts, item));
        involved
            .inventory
            .extend(paths.map(|(path, _)| path.to_owned()));
        if let InventoryFault::UnknownNamespace { workload } = &error.fault {
            self.involve_declaring_files(&workload.namespace, involved);
        }
    }

    /// Marks the files that declare a namespace now as involved: one of them is about to remove it.
    fn involve_declaring_files(&self, namespace: &NamespaceName, involved: &mut Selection) {
        for (path, entry) in &self.inventory_files.files {
            let mut declared = entry
                .in_force()
                .into_iter()
                .flat_map(|part| &part.namespaces);
            if declared.any(|declared| declared.item.name() == namespace) {
                involved.inventory.insert(path.clone());
            }
        }
    }

    /// The policies, and those that their namespace has no budget for.
    fn propose_policies(
        &self,
        selection: &BTreeSet<PathBuf>,
        conflict: &mut Conflict,
    ) -> Option<(Arc<PolicySet>, Vec<OverBudget>)> {
        let parts = proposed(&self.policy_files, selection);
        match PolicySet::build(parts.flat_map(|(_, part)| part.policies.iter().cloned())) {
            Ok(policies) => {
                let (policies, over) = within_budget(&policies, &self.policies, self.budget);
                let policies = match policies == *self.policies {
                    true => self.policies.clone(),
                    false => Arc::new(policies),
                };
                Some((policies, over))
            }
            Err(duplicates) => {
                for error in &duplicates {
                    for origin in [&error.first, &error.second] {
                        conflict
                            .involved
                            .policies
                            .insert(PathBuf::from(&*origin.file));
                    }
                    conflict.errors.push(SourceError::at_line(
                        &error.second.file,
                        error.second.line,
                        error,
                    ));
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
