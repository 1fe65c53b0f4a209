//! What changes in the inventory when files get other content: object by object.
//!
//! Pure. Invariant: only entries between the first and the last that differ are compared by name, so a
//! changed entry among many costs little more than looking at the others.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::inventory_toml::{Declared, InventoryFragment};
use crate::model::{Change, InventoryChanges, InventoryStore};

/// The content of a file in force, and what it is to be. `None`: the file is new, or gone.
pub(super) type FileChange<'a> = (Option<&'a InventoryFragment>, Option<&'a InventoryFragment>);

/// The changes of a store that files make; `None` if two entries have the same name.
pub(super) fn changes<'a>(
    files: impl IntoIterator<Item = FileChange<'a>>,
    store: &InventoryStore,
) -> Option<InventoryChanges> {
    let (mut namespaces, mut workloads, mut nodes) =
        (Entries::new(), Entries::new(), Entries::new());
    for (old, new) in files {
        fn part<'a, T>(
            file: Option<&'a InventoryFragment>,
            part: impl Fn(&'a InventoryFragment) -> &'a [Declared<T>],
        ) -> &'a [Declared<T>] {
            file.map_or(&[], part)
        }
        let of = |file: &'a InventoryFragment| file.namespaces.as_slice();
        namespaces.compare(part(old, of), part(new, of), |it| it.name())?;
        let of = |file: &'a InventoryFragment| file.workloads.as_slice();
        workloads.compare(part(old, of), part(new, of), |it| &it.id)?;
        let of = |file: &'a InventoryFragment| file.nodes.as_slice();
        nodes.compare(part(old, of), part(new, of), |it| &it.name)?;
    }
    let held = store.inventory();
    Some(InventoryChanges {
        namespaces: namespaces.finish(|name| store.declares(name), Clone::clone)?,
        workloads: workloads.finish(|id| held.workloads.contains_key(id), Arc::clone)?,
        nodes: nodes.finish(
            |name| held.nodes.contains_key(name),
            |node| Arc::new(node.clone()),
        )?,
    })
}

/// The entries of one kind that differ.
struct Entries<'a, K, T> {
    gone: HashSet<&'a K>,
    /// The names of those that their file had not before.
    came: HashSet<&'a K>,
    /// Those that came or changed, in the order of the files.
    present: Vec<(&'a K, &'a T)>,
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
    fn compare(
        &mut self,
        old: &'a [Declared<T>],
        new: &'a [Declared<T>],
        name: impl Fn(&'a T) -> &'a K,
    ) -> Option<()> {
        let (old, new) = differing(old, new);
        let mut before: HashMap<&K, &T> = HashMap::with_capacity(old.len());
        before.extend(old.iter().map(|entry| (name(&entry.item), &entry.item)));
        let mut here = HashSet::with_capacity(new.len());
        for Declared { item, .. } in new {
            let id = name(item);
            if !here.insert(id) {
                return None;
            }
            let before = before.remove(id);
            if before.is_none() && !self.came.insert(id) {
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
        shared: impl Fn(&T) -> C,
    ) -> Option<Vec<Change<K, C>>> {
        let stays = |name: &K| is_held(name) && !self.gone.contains(name);
        if self.came.iter().any(|name| stays(name)) {
            return None;
        }
        self.gone.retain(|name| !self.came.contains(name));
        let present = self.present.into_iter();
        let present = present.map(|(name, item)| (name.clone(), Some(shared(item))));
        let gone = self.gone.into_iter().map(|name| (name.clone(), None));
        Some(present.chain(gone).collect())
    }
}

/// The entries without those at the beginning and at the end that are equal.
fn differing<'a, T: PartialEq>(
    old: &'a [Declared<T>],
    new: &'a [Declared<T>],
) -> (&'a [Declared<T>], &'a [Declared<T>]) {
    let equal = |(old, new): &(&Declared<T>, &Declared<T>)| old.item == new.item;
    let first = old.iter().zip(new).take_while(equal).count();
    let (old, new) = (
        old.get(first..).unwrap_or_default(),
        new.get(first..).unwrap_or_default(),
    );
    let last = old.iter().rev().zip(new.iter().rev());
    let last = last.take_while(equal).count();
    let until = |all: &'a [Declared<T>]| all.get(..all.len() - last).unwrap_or_default();
    (until(old), until(new))
}
