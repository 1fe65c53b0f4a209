//! The paths of pinned maps and links, and their removal.
//!
//! Layout: `<bpffs>/v<ABI>/maps/<MAP>` and `<bpffs>/v<ABI>/links/<ifindex>-<program>`. The ABI
//! version keeps incompatible agents apart. Invariant: nothing outside `<bpffs>` is touched.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use ringfence_common::ABI_VERSION;

use super::DatapathError;

/// The paths of the pins below the configured bpffs directory.
#[derive(Debug, Clone)]
pub struct Pins {
    base: PathBuf,
}

impl Pins {
    /// The pins of this ABI version below a directory on bpffs.
    #[must_use]
    pub fn below(bpffs: &Path) -> Self {
        Self {
            base: bpffs.join(format!("v{ABI_VERSION}")),
        }
    }

    /// Whether another ABI version has, or had, pins beside these.
    pub(super) fn has_other_versions(&self) -> bool {
        let beside = self.base.parent().and_then(|dir| entries(dir).ok());
        beside.unwrap_or_default().iter().any(|dir| {
            let name = dir.file_name().and_then(|name| name.to_str());
            let version = name.and_then(|name| name.strip_prefix('v'));
            *dir != self.base && version.is_some_and(|version| version.parse::<u32>().is_ok())
        })
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(&self) -> Result<(), DatapathError> {
        for dir in [self.maps(), self.links()] {
            fs::create_dir_all(&dir).map_err(|error| failed(&dir, "create", &error))?;
        }
        Ok(())
    }

    fn maps(&self) -> PathBuf {
        self.base.join("maps")
    }

    fn links(&self) -> PathBuf {
        self.base.join("links")
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The pin of a program's link on an interface.
    #[must_use]
    pub fn link(&self, ifindex: u32, program: &str) -> PathBuf {
        self.links().join(format!("{ifindex}-{program}"))
    }

    /// Interfaces that have a pinned link.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn linked(&self) -> Result<BTreeSet<u32>, DatapathError> {
        let dir = self.links();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(&dir, "list", &error)),
        };
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.split('-').next()?.parse().ok())
            .collect())
    }
}

/// Removes every pin of every ABI version below the directory, and the directory if it is empty
/// then. Returns the removed paths.
///
/// # Errors
/// When something cannot be removed; what was already removed stays removed.
pub(super) fn remove_all(bpffs: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let mut removed = Vec::new();
    for dir in entries(bpffs)? {
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name
            .strip_prefix('v')
            .is_some_and(|version| version.parse::<u32>().is_ok())
        {
            remove_below(&dir, &mut removed)?;
        }
    }
    // Fails if other pins are in it, or a file system is mounted on it.
    let _ = fs::remove_dir(bpffs);
    Ok(removed)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(dir, "list", &error)),
    }
}

/// Removes links first, so that no program runs while its maps are being removed.
fn remove_below(dir: &Path, removed: &mut Vec<PathBuf>) -> Result<(), DatapathError> {
    let mut paths = entries(dir)?;
    paths.sort_by_key(|path| (!path.ends_with("links"), path.clone()));
    for path in paths {
        if path.is_dir() {
            remove_below(&path, removed)?;
        } else {
            fs::remove_file(&path).map_err(|error| failed(&path, "remove", &error))?;
            removed.push(path);
        }
    }
    fs::remove_dir(dir).map_err(|error| failed(dir, "remove", &error))
}

pub(super) fn failed(path: &Path, operation: &'static str, error: &io::Error) -> DatapathError {
    DatapathError::Pin {
        path: path.to_owned(),
        operation,
        reason: error.to_string(),
    }
}
