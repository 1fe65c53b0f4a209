//! The paths of pinned maps, programs and links, and their removal.
//!
//! Layout: `<bpffs>/v<ABI>/maps/<MAP>`, `<bpffs>/v<ABI>/programs/<program>` and
//! `<bpffs>/v<ABI>/links/<ifindex>-<program>`. The ABI version keeps incompatible agents apart. Invariant: nothing outside `<bpffs>` is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use ringfence_common::ABI_VERSION;

use super::DatapathError;

/// What the pins of [`Pins::bridge`] have in the place of a program's name.
pub(super) const BRIDGE: &str = "bridge";
/// The end of the names of [`Pins::next_link`].
const NEXT: &str = "-next";

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

    /// The pins of agents with another layout below the same directory, by ABI version.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn other_abis(&self) -> Result<BTreeMap<u32, Self>, DatapathError> {
        let Some(bpffs) = self.base.parent() else {
            return Ok(BTreeMap::new());
        };
        let mut abis = all_abis(bpffs)?;
        abis.remove(&ABI_VERSION);
        Ok(abis)
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(&self) -> Result<(), DatapathError> {
        for dir in [self.maps(), self.programs(), self.links()] {
            fs::create_dir_all(&dir).map_err(|error| failed(&dir, "create", &error))?;
        }
        Ok(())
    }

    fn maps(&self) -> PathBuf {
        self.base.join("maps")
    }

    fn programs(&self) -> PathBuf {
        self.base.join("programs")
    }

    fn links(&self) -> PathBuf {
        self.base.join("links")
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The pin of a program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// The pin of a program's link on an interface.
    #[must_use]
    pub fn link(&self, ifindex: u32, program: &str) -> PathBuf {
        self.links().join(format!("{ifindex}-{program}"))
    }

    /// The pin of a link that takes the place of [`Self::link`] in a moment.
    pub(super) fn next_link(&self, ifindex: u32, program: &str) -> PathBuf {
        self.links().join(format!("{ifindex}-{program}{NEXT}"))
    }

    /// The mark of an interface whose clsact qdisc is ours.
    pub(super) fn bridge(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{ifindex}-{BRIDGE}"))
    }

    /// Removes the pins of [`Self::next_link`] that a process left when it died.
    pub(super) fn remove_next_links(&self) -> Result<(), DatapathError> {
        let left = self.link_pins()?.into_iter();
        for pin in left.filter(|pin| pin.program.ends_with(NEXT)) {
            let removed = fs::remove_file(&pin.path);
            removed.map_err(|error| failed(&pin.path, "remove", &error))?;
        }
        Ok(())
    }

    /// Interfaces that have a pinned link.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn linked(&self) -> Result<BTreeSet<u32>, DatapathError> {
        let pins = self.link_pins()?.into_iter();
        Ok(pins.map(|pin| pin.ifindex).collect())
    }

    /// Every pinned link, and every mark of a clsact filter.
    pub(super) fn link_pins(&self) -> Result<Vec<LinkPin>, DatapathError> {
        let paths = entries(&self.links())?.into_iter();
        Ok(paths
            .filter_map(|path| {
                let (ifindex, program) = path.file_name()?.to_str()?.split_once('-')?;
                Some(LinkPin {
                    ifindex: ifindex.parse().ok()?,
                    program: program.to_owned(),
                    path,
                })
            })
            .collect())
    }

    /// Removes every pin of this ABI version.
    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        remove_below(&self.base, &mut Vec::new())
    }
}

/// The pin of a link or of a clsact filter's program.
pub(super) struct LinkPin {
    pub(super) ifindex: u32,
    pub(super) program: String,
    pub(super) path: PathBuf,
}

/// The pins of every ABI version below a directory.
pub(super) fn all_abis(bpffs: &Path) -> Result<BTreeMap<u32, Pins>, DatapathError> {
    let dirs = entries(bpffs)?.into_iter();
    Ok(dirs
        .filter_map(|base| {
            let name = base.file_name()?.to_str()?;
            let version = name.strip_prefix('v')?.parse().ok()?;
            Some((version, Pins { base }))
        })
        .collect())
}

/// Removes every pin of every ABI version below the directory, and the directory if it is empty
/// then. Returns the removed paths.
///
/// # Errors
/// When something cannot be removed; what was already removed stays removed.
pub(super) fn remove_all(bpffs: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let mut removed = Vec::new();
    for pins in all_abis(bpffs)?.values() {
        remove_below(&pins.base, &mut removed)?;
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
