//! What would be in force with the pending content of files, and what would contradict what.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FileSet;
use crate::model::{
    Change, Inventory, InventoryChanges, InventoryError, InventoryFault, NamespaceName, Policy,
    PolicyId, PolicySet, check_namespaces,
};
use crate::source::document::SourceError;
use crate::source::file_diff;
use crate::source::inventory_errors::{Contested, location, source_error};
use crate::source::inventory_toml::InventoryFragment;
use crate::source::objects::{ObjectChanges, Objects, SourceId};
use crate::source::selection::{Selection, proposed};
use crate::source::tracked_files::{Fragment, TrackedFiles};

/// What would be in force.
pub(super) struct Proposal {
    pub(super) objects: Objects,
    /// What would be wrong with entries of files.
    pub(super) contested: Contested,
}

/// Why a selection cannot be put into force, and which files are involved.
#[derive(Debug, Default)]
pub(super) struct Conflict {
    pub(super) errors: Vec<SourceError>,
    pub(super) involved: Selection,
}

impl FileSet {
    /// What would be in force with this selection.
    pub(super) fn propose(
        &self,
        objects: &Objects,
        selection: &Selection,
    ) -> Result<Proposal, Conflict> {
        let mut conflict = Conflict::default();
        let inventory = self.inventory_changes(objects, &selection.inventory, &mut conflict);
        let policies = self.policy_changes(objects, &selection.policies, &mut conflict);
        let (Some(inventory), Some(policies)) = (inventory, policies) else {
            return Err(conflict);
        };
        let changes = ObjectChanges {
            inventory,
            policies,
        };
        let mut next = objects.clone();
        let parts: Vec<(&Path, &InventoryFragment)> =
            proposed(&self.inventory_files, &selection.inventory).collect();
        if let Err(faults) = next.apply(SourceId::FILES, changes) {
            self.contradictions(&parts, &mut conflict);
            if conflict.errors.is_empty() {
                contradict_others(&parts, selection, faults, &mut conflict);
            }
            return Err(conflict);
        }
        let before = (&self.contested, &self.contested_in);
        let contested = Contested::after(before, &selection.inventory, &parts, next.store());
        if self.is_strict && !contested.errors.is_empty() {
            self.contradictions(&parts, &mut conflict);
            return Err(conflict);
        }
        if self.is_strict && !self.inventory_files.roots().is_empty() {
            self.check_strictly(&next)?;
        }
        Ok(Proposal {
            objects: next,
            contested,
        })
    }

    /// Checks that every policy's namespace is declared.
    fn check_strictly(&self, objects: &Objects) -> Result<(), Conflict> {
        let mut conflict = Conflict::default();
        let unknown = check_namespaces(objects.policies(), objects.inventory());
        for error in unknown.err().iter().flatten() {
            let path = PathBuf::from(&*error.origin.file);
            conflict.involved.policies.insert(path);
            self.involve_declaring_files(&error.namespace, &mut conflict.involved);
            conflict.errors.push(SourceError::at_line(
                &error.origin.file,
                error.origin.line,
                error,
            ));
        }
        match conflict.errors.is_empty() {
            true => Ok(()),
            false => Err(conflict),
        }
    }

    /// What the pending content of these files changes in the inventory; `None` if two entries have one
    /// name.
    fn inventory_changes(
        &self,
        objects: &Objects,
        selection: &BTreeSet<PathBuf>,
        conflict: &mut Conflict,
    ) -> Option<InventoryChanges> {
        let files = pending(&self.inventory_files, selection);
        let changes = file_diff::inventory_changes(files, objects);
        if changes.is_none() {
            let parts: Vec<(&Path, &InventoryFragment)> =
                proposed(&self.inventory_files, selection).collect();
            self.contradictions(&parts, conflict);
        }
        changes
    }

    /// What the pending content of these files changes among the policies; `None` if two have one name.
    fn policy_changes(
        &self,
        objects: &Objects,
        selection: &BTreeSet<PathBuf>,
        conflict: &mut Conflict,
    ) -> Option<Vec<Change<PolicyId, Arc<Policy>>>> {
        let files = pending(&self.policy_files, selection);
        let changes = file_diff::policy_changes(files, objects);
        if changes.is_some() {
            return changes;
        }
        let parts = proposed(&self.policy_files, selection);
        let duplicates =
            PolicySet::build(parts.flat_map(|(_, part)| part.policies.iter().cloned()));
        for error in duplicates.err().iter().flatten() {
            for origin in [&error.first, &error.second] {
                let path = PathBuf::from(&*origin.file);
                conflict.involved.policies.insert(path);
            }
            let second = &error.second;
            let error = SourceError::at_line(&second.file, second.line, error);
            conflict.errors.push(error);
        }
        None
    }

    /// Adds what contradicts what in these contents.
    fn contradictions(&self, parts: &[(&Path, &InventoryFragment)], conflict: &mut Conflict) {
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
        for error in &errors.unwrap_or_default() {
            self.involve(parts, error, &mut conflict.involved);
            conflict.errors.extend(source_error(parts, error));
        }
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
}

/// The content in force of these files, and what it is to be.
fn pending<'a, F: Fragment>(
    files: &'a TrackedFiles<F>,
    selection: &'a BTreeSet<PathBuf>,
) -> impl Iterator<Item = file_diff::FileChange<'a, F>> {
    let entries = selection.iter().filter_map(|path| files.files.get(path));
    entries.map(|entry| {
        let (old, new) = (entry.in_force(), entry.proposed());
        (old.map(Arc::as_ref), new.map(Arc::as_ref))
    })
}

/// Adds contradictions of files with objects of other sources, which stay as they are.
fn contradict_others(
    parts: &[(&Path, &InventoryFragment)],
    selection: &Selection,
    faults: Vec<InventoryFault>,
    conflict: &mut Conflict,
) {
    let selected = parts
        .iter()
        .filter(|(path, _)| selection.inventory.contains(*path));
    for fault in faults {
        let is_concerned = |part: &InventoryFragment| match &fault {
            InventoryFault::InterfaceClaimedTwice { interface, .. } => {
                let mut workloads = part.workloads.iter();
                workloads.any(|it| it.item.interface.as_ref() == Some(interface))
            }
            _ => part.nodes.iter().any(|it| it.item.local),
        };
        for (path, _) in selected.clone().filter(|(_, part)| is_concerned(part)) {
            let error = SourceError::whole_file(&path.to_string_lossy(), &fault);
            conflict.errors.push(error);
            conflict.involved.inventory.insert((*path).to_owned());
        }
    }
}
