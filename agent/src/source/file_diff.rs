//! What changes when files get other content: object by object.
//!
//! Pure. Invariant: only entries between the first and the last that differ are compared by name, so a
//! changed entry among many costs little more than looking at the others.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::inventory_toml::{Declared, InventoryFragment};
use super::objects::{Objects, SourceId};
use super::policy_file::PolicyFragment;
use crate::model::{Change, InventoryChanges, Namespace, Policy, PolicyId};

/// The content of a file in force, and what it is to be. `None`: the file is new, or gone.
pub(super) type FileChange<'a, F> = (Option<&'a F>, Option<&'a F>);

const FILES: SourceId = SourceId::FILES;

/// The changes of the inventory that files make; `None` if two entries have the same name.
pub(super) fn inventory_changes<'a>(
    files: impl IntoIterator<Item = FileChange<'a, InventoryFragment>>,
    objects: &Objects,
) -> Option<InventoryChanges> {
    let (mut namespaces, mut workloads, mut nodes) =
        (Entries::new(), Entries::new(), Entries::new());
    for (old, new) in files {
        let of = |file: &'a InventoryFragment| file.namespaces.as_slice();
        namespaces.compare(part(old, of), part(new, of), Namespace::name)?;
        let of = |file: &'a InventoryFragment| file.workloads.as_slice();
        workloads.compare(part(old, of), part(new, of), |it| &it.id)?;
        let of = |file: &'a InventoryFragment| file.nodes.as_slice();
        nodes.compare(part(old, of), part(new, of), |it| &it.name)?;
    }
    Some(InventoryChanges {
        namespaces: namespaces.finish(
            |name| objects.declares(FILES, name),
            |name, namespace| ((*name).clone(), namespace.cloned()),
        )?,
        workloads: workloads.finish(
            |id| objects.has_workload(FILES, id),
            |id, workload| ((*id).clone(), workload.cloned()),
        )?,
        nodes: nodes.finish(
            |name| objects.has_node(FILES, name),
            |name, node| ((*name).clone(), node.cloned().map(Arc::new)),
        )?,
    })
}

/// The changes of policies that files make; `None` if two of a name are of the same language.
pub(super) fn policy_changes<'a>(
    files: impl IntoIterator<Item = FileChange<'a, PolicyFragment>>,
    objects: &Objects,
) -> Option<Vec<Change<PolicyId, Arc<Policy>>>> {
    let mut policies = Entries::new();
    for (old, new) in files {
        let of = |file: &'a PolicyFragment| file.policies.as_slice();
        policies.compare(part(old, of), part(new, of), |it| it.id())?;
    }
    policies.finish(
        |id| objects.has_policy(FILES, id),
        |id, policy| (id.clone(), policy.cloned()),
    )
}

fn part<'a, F, E>(file: Option<&'a F>, part: impl Fn(&'a F) -> &'a [E]) -> &'a [E] {
    file.map_or(&[], part)
}

/// An entry of a file.
trait Entry {
    type Item: PartialEq;

    fn item(&self) -> &Self::Item;
}

impl<T: PartialEq> Entry for Declared<T> {
    type Item = T;

    fn item(&self) -> &T {
        &self.item
    }
}

impl Entry for Arc<Policy> {
    type Item = Self;

    fn item(&self) -> &Self {
        self
    }
}

/// The entries of one kind that differ.
struct Entries<'a, K, T> {
    gone: HashSet<K>,
    /// The names of those that their file had not before.
    came: HashSet<K>,
    /// Those that came or changed, in the order of the files.
    present: Vec<(K, &'a T)>,
}

impl<'a, K: Hash + Ord + Clone, T: PartialEq> Entries<'a, K, T> {
    fn new() -> Self {
        let (gone, came, present) = (HashSet::new(), HashSet::new(), Vec::new());
        Self {
            gone,
            came,
            present,
        }
    }

    /// Adds the difference of one file; `None` if two new entries have the same name.
    fn compare<E: Entry<Item = T>>(
        &mut self,
        old: &'a [E],
        new: &'a [E],
        name: impl Fn(&'a T) -> K,
    ) -> Option<()> {
        let (old, new) = differing(old, new);
        let mut before: HashMap<K, &T> = HashMap::with_capacity(old.len());
        before.extend(old.iter().map(|entry| (name(entry.item()), entry.item())));
        let mut here = HashSet::with_capacity(new.len());
        for item in new.iter().map(Entry::item) {
            let id = name(item);
            if !here.insert(id.clone()) {
                return None;
            }
            let before = before.remove(&id);
            if before.is_none() && !self.came.insert(id.clone()) {
                return None;
            }
            if before != Some(item) {
                self.present.push((id, item));
            }
        }
        self.gone.extend(before.into_keys());
        Some(())
    }

    /// The changes; `None` if a new entry has the name of one that stays.
    fn finish<C>(
        mut self,
        is_held: impl Fn(&K) -> bool,
        change: impl Fn(&K, Option<&'a T>) -> C,
    ) -> Option<Vec<C>> {
        let stays = |name: &K| is_held(name) && !self.gone.contains(name);
        if self.came.iter().any(stays) {
            return None;
        }
        self.gone.retain(|name| !self.came.contains(name));
        let present = self.present.iter();
        let present = present.map(|(name, item)| change(name, Some(item)));
        Some(
            present
                .chain(self.gone.iter().map(|name| change(name, None)))
                .collect(),
        )
    }
}

/// The entries without those at the beginning and at the end that are equal.
fn differing<'a, E: Entry>(old: &'a [E], new: &'a [E]) -> (&'a [E], &'a [E]) {
    let equal = |(old, new): &(&E, &E)| old.item() == new.item();
    let first = old.iter().zip(new).take_while(equal).count();
    let (old, new) = (
        old.get(first..).unwrap_or_default(),
        new.get(first..).unwrap_or_default(),
    );
    let last = old.iter().rev().zip(new.iter().rev());
    let last = last.take_while(equal).count();
    let until = |all: &'a [E]| all.get(..all.len() - last).unwrap_or_default();
    (until(old), until(new))
}
