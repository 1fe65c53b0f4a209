//! The copy of the tree that holds all seeded bugs at once.
//!
//! Invariants: the checkout is only read; a file of the copy is written only if its content changes,
//! so that cargo rebuilds only what changed; what is no longer in the checkout is removed from
//! the copy. Build products and version control are not copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::check::{Places, Sources};
use super::rewrite;

/// The root module of the crate that both sides share, and where the switch goes.
const SHARED_ROOT: &str = "common/src/lib.rs";
const SWITCH: &str = "common/src/mutant.rs";
const SWITCH_TEXT: &str = include_str!("switch.rs");
/// What the switch needs of the toolchain that builds the kernel programs.
const FEATURES: &str = "#![cfg_attr(target_arch = \"bpf\", feature(asm_experimental_arch))]\n";

/// Directories that hold nothing of the tree, and the file that cargo leaves in others of that kind.
const SKIPPED: [&str; 2] = [".git", "target"];
const CACHE: &str = "CACHEDIR.TAG";

/// Brings the copy up to date; returns how many files changed.
pub(super) fn refresh(
    root: &Path,
    copy: &Path,
    sources: &Sources,
    places: &Places,
) -> Result<usize> {
    let mut wanted = rewritten(sources, places);
    let shared = root.join(SHARED_ROOT);
    let mut text = match wanted.remove(SHARED_ROOT) {
        Some(text) => text,
        None => fs::read_to_string(&shared)
            .with_context(|| format!("cannot read {}", shared.display()))?,
    };
    ensure!(
        !root.join(SWITCH).exists(),
        "{SWITCH} is in the tree: the copy needs that place for the switch; rename the module"
    );
    text.insert_str(0, FEATURES);
    text.push_str("\npub mod mutant;\n");
    wanted.insert(SHARED_ROOT.to_owned(), text);
    wanted.insert(SWITCH.to_owned(), SWITCH_TEXT.to_owned());
    synchronise(root, copy, &wanted)
}

fn rewritten(sources: &Sources, places: &Places) -> BTreeMap<String, String> {
    let with_places = sources.iter().filter_map(|(path, text)| {
        let switched = rewrite::switched(path, text, places.get(path)?);
        Some((path.clone(), switched))
    });
    with_places.collect()
}

/// Makes `copy` the tree below `root` with the `wanted` files as given.
pub(crate) fn synchronise(
    root: &Path,
    copy: &Path,
    wanted: &BTreeMap<String, String>,
) -> Result<usize> {
    let mut files = BTreeSet::new();
    collect(root, Path::new(""), &mut files)?;
    files.extend(wanted.keys().map(PathBuf::from));
    let mut changed = 0;
    for file in &files {
        let content = match file.to_str().and_then(|name| wanted.get(name)) {
            Some(text) => text.clone().into_bytes(),
            None => {
                let path = root.join(file);
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?
            }
        };
        changed += usize::from(write_if_changed(&copy.join(file), &content)?);
    }
    let mut present = BTreeSet::new();
    collect(copy, Path::new(""), &mut present)?;
    for stale in present.difference(&files) {
        let path = copy.join(stale);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        changed += 1;
    }
    Ok(changed)
}

/// Every regular file below `root` and `below`, relative to `root`.
fn collect(root: &Path, below: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let directory = root.join(below);
    let unreadable = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(&directory).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().with_context(unreadable)?;
        if kind.is_file() {
            files.insert(path);
        } else if kind.is_dir() && !is_skipped(&entry.path()) {
            collect(root, &path, files)?;
        }
    }
    Ok(())
}

fn is_skipped(directory: &Path) -> bool {
    let named = |name: &&str| directory.file_name().is_some_and(|own| own == *name);
    SKIPPED.iter().any(named) || directory.join(CACHE).exists()
}

fn write_if_changed(path: &Path, content: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    let unwritable = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(unwritable)?;
    }
    fs::write(path, content).with_context(unwritable)?;
    Ok(true)
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
