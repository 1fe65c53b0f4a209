//! Errors about the inventory as a whole, with the files and lines of its items.
//!
//! Pure. Does not decide what is an error. Invariant: errors about entries in force are looked for only
//! when they may have changed.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::SourceError;
use super::inventory_toml::{Declared, InventoryFragment};
use crate::model::{Claimant, InventoryError, InventoryFault, InventoryStore, Item};

/// The most errors about entries that are listed one by one.
const MOST: usize = 100;

/// What is wrong with entries of the inventory in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Contested {
    /// The first ones.
    pub(super) errors: Vec<SourceError>,
    /// The files with entries that any of them names.
    files: BTreeSet<PathBuf>,
}

/// An entry that lists an address that several claim.
struct Claim<'a> {
    place: (&'a Path, u32),
    claimant: Claimant,
}

impl Contested {
    /// What is wrong now. Nothing is looked for if neither what is wrong nor a file that it names has
    /// changed since `before`.
    pub(super) fn after(
        before: (&Self, &InventoryStore),
        changed: &BTreeSet<PathBuf>,
        parts: &[(&Path, &InventoryFragment)],
        store: &InventoryStore,
    ) -> Self {
        let (known, old) = before;
        let (disputed, undeclared) = (&store.inventory().disputed, store.undeclared());
        let mut found = Self::default();
        if disputed.is_empty() && undeclared.is_empty() {
            return found;
        }
        let is_stray = |part: &InventoryFragment| {
            let mut workloads = part.workloads.iter();
            workloads.any(|it| undeclared.contains_key(&it.item.id.namespace))
        };
        let mut differing = parts.iter().filter(|(path, _)| changed.contains(*path));
        let has_strays = !undeclared.is_empty() && differing.any(|(_, part)| is_stray(part));
        let is_same = *disputed == old.inventory().disputed && undeclared == old.undeclared();
        if is_same && !has_strays && known.files.is_disjoint(changed) {
            return known.clone();
        }
        let (mut first, mut left_out) = (HashMap::new(), 0);
        for (path, part) in parts {
            for Declared { item, line } in &part.workloads {
                if undeclared.contains_key(&item.id.namespace) {
                    let workload = item.id.clone();
                    let fault = InventoryFault::UnknownNamespace { workload };
                    left_out += found.add((path, *line), None, &fault);
                }
                let claimant = || Claimant::Workload(item.id.clone());
                let entry = ((*path, *line), item.addresses.as_slice());
                left_out += found.claims(entry, claimant, store, &mut first);
            }
        }
        for (path, part) in parts {
            for Declared { item, line } in &part.nodes {
                let claimant = || Claimant::Node(item.name.clone());
                let entry = ((*path, *line), item.addresses.as_slice());
                left_out += found.claims(entry, claimant, store, &mut first);
            }
        }
        if left_out > 0
            && let Some(last) = found.errors.last_mut()
        {
            last.message = format!("{} (and {left_out} more such errors)", last.message);
        }
        found
    }

    /// Adds the errors about one entry's addresses; returns how many of them are left out.
    fn claims<'a>(
        &mut self,
        (place, addresses): ((&'a Path, u32), &[IpAddr]),
        claimant: impl Fn() -> Claimant,
        store: &InventoryStore,
        first: &mut HashMap<IpAddr, Claim<'a>>,
    ) -> usize {
        let disputed = &store.inventory().disputed;
        let mut left_out = 0;
        for address in addresses.iter().filter(|it| disputed.contains_key(*it)) {
            let claimant = claimant();
            let Some(other) = first.get(address) else {
                first.insert(*address, Claim { place, claimant });
                continue;
            };
            let fault = InventoryFault::AddressClaimedTwice {
                address: *address,
                claimant,
                other: other.claimant.clone(),
            };
            left_out += self.add(place, Some(other.place), &fault);
        }
        left_out
    }

    /// Adds an error; returns how many are left out.
    fn add(
        &mut self,
        (path, line): (&Path, u32),
        other: Option<(&Path, u32)>,
        fault: &InventoryFault,
    ) -> usize {
        let paths = std::iter::once(path).chain(other.map(|(path, _)| path));
        for path in paths {
            if !self.files.contains(path) {
                self.files.insert(path.to_owned());
            }
        }
        let is_listed = self.errors.len() < MOST;
        if is_listed {
            self.errors.push(at(path, line, other, fault));
        }
        usize::from(!is_listed)
    }
}

fn at(path: &Path, line: u32, other: Option<(&Path, u32)>, fault: &InventoryFault) -> SourceError {
    let mut message = fault.to_string();
    if let Some((other, line)) = other {
        message = format!("{message} (the other is at {}:{line})", other.display());
    }
    let file = Arc::from(&*path.to_string_lossy());
    SourceError::at_line(&file, line, message)
}

/// An error about the inventory, with the file and line of its item.
pub(super) fn source_error(
    parts: &[(&Path, &InventoryFragment)],
    error: &InventoryError,
) -> Option<SourceError> {
    let (path, line) = location(parts, error.item)?;
    let other = error.other.and_then(|item| location(parts, item));
    Some(at(path, line, other, &error.fault))
}

/// The file and line of an item, given by its index in the concatenated fragments.
pub(super) fn location<'a>(
    parts: &[(&'a Path, &InventoryFragment)],
    item: Item,
) -> Option<(&'a Path, u32)> {
    let (Item::Namespace(mut index) | Item::Workload(mut index) | Item::Node(mut index)) = item;
    for (path, part) in parts {
        let lines: Vec<u32> = match item {
            Item::Namespace(_) => part
                .namespaces
                .iter()
                .map(|declared| declared.line)
                .collect(),
            Item::Workload(_) => part
                .workloads
                .iter()
                .map(|declared| declared.line)
                .collect(),
            Item::Node(_) => part.nodes.iter().map(|declared| declared.line).collect(),
        };
        match lines.get(index) {
            Some(&line) => return Some((path, line)),
            None => index -= lines.len(),
        }
    }
    None
}
