//! Errors about the inventory as a whole, with the files and lines of its items.
//!
//! Pure. Does not decide what is an error.

use std::path::Path;
use std::sync::Arc;

use super::document::SourceError;
use super::inventory_toml::InventoryFragment;
use crate::model::{InventoryError, Item};

/// The most errors about entries that are listed one by one.
const MOST: usize = 100;

/// Errors about entries of the inventory in force; of many, the first ones.
pub(super) fn source_errors(
    parts: &[(&Path, &InventoryFragment)],
    errors: &[InventoryError],
) -> Vec<SourceError> {
    let listed = errors.iter().take(MOST);
    let mut listed: Vec<_> = listed
        .filter_map(|error| source_error(parts, error))
        .collect();
    let left_out = errors.len().saturating_sub(MOST);
    if left_out > 0
        && let Some(last) = listed.last_mut()
    {
        last.message = format!("{} (and {left_out} more such errors)", last.message);
    }
    listed
}

/// An error about the inventory, with the file and line of its item.
pub(super) fn source_error(
    parts: &[(&Path, &InventoryFragment)],
    error: &InventoryError,
) -> Option<SourceError> {
    let (path, line) = location(parts, error.item)?;
    let mut message = error.to_string();
    if let Some((other, other_line)) = error.other.and_then(|item| location(parts, item)) {
        message = format!(
            "{message} (the other is at {}:{other_line})",
            other.display()
        );
    }
    let file = Arc::from(&*path.to_string_lossy());
    Some(SourceError::at_line(&file, line, message))
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
