//! The files of one kind (inventory or policies): which exist, which have changed, and the last
//! good content of each.
//!
//! A scan reads only files whose stamp has changed and makes new content *pending*. `files` decides
//! over all files together whether pending content is put into force. Nothing here compares one
//! file with another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::document::{SourceError, decode};
use crate::model::Lockdown;

/// A file that is changed twice within this time may keep its stamp: the clock for file times is
/// coarse.
const STAMP_GRANULARITY: Duration = Duration::from_millis(100);

/// The parsed content of a file of one kind.
pub(super) trait Fragment: Sized + PartialEq {
    /// The extensions by which such files are found in a directory.
    const EXTENSIONS: &'static [&'static str];

    /// The maximum size of such a file in bytes.
    fn max_size(file_name: &str) -> usize;

    fn parse(file_name: &str, text: &str) -> Result<Self, Vec<SourceError>>;
    fn warnings(&self) -> &[SourceError];

    /// The subjects of a refused file, as far as they can be read.
    fn refused_subjects(_: &str, _: &str) -> Vec<Lockdown> {
        Vec::new()
    }

    /// The subjects of valid content.
    fn subjects(&self) -> Vec<Lockdown> {
        Vec::new()
    }

    /// Shares the values that are equal in older content, so that they exist once and equality is
    /// cheap to detect.
    fn reuse_equal(&mut self, _older: &Self) {}
}

/// Identifies a version of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// True if any change after `now` results in a different stamp.
    fn is_conclusive(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) =
            (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        now.duration_since(changed)
            .is_ok_and(|age| age > STAMP_GRANULARITY)
    }
}

/// Content that is not in force yet.
#[derive(Debug)]
pub(super) enum Pending<F> {
    /// The file has the content in force, or is bad.
    Nothing,
    /// The file has new content.
    Content(Arc<F>),
    /// The file was deleted.
    Removal,
}

/// The state of one file.
#[derive(Debug)]
pub(super) struct TrackedFile<F> {
    stamp: Option<Stamp>,
    digest: Option<[u8; 32]>,
    in_force: Option<Arc<F>>,
    pending: Pending<F>,
    errors: Vec<SourceError>,
    /// The subjects of the current content, if it is refused and no content is in force.
    refused_subjects: Vec<Lockdown>,
}

impl<F> TrackedFile<F> {
    fn new() -> Self {
        let (stamp, digest, in_force, errors) = (None, None, None, Vec::new());
        Self {
            stamp,
            digest,
            in_force,
            pending: Pending::Nothing,
            errors,
            refused_subjects: Vec::new(),
        }
    }

    /// The content in force.
    pub(super) fn in_force(&self) -> Option<&Arc<F>> {
        self.in_force.as_ref()
    }

    /// The content that will be in force after a commit.
    pub(super) fn proposed(&self) -> Option<&Arc<F>> {
        match &self.pending {
            Pending::Nothing => self.in_force.as_ref(),
            Pending::Content(fragment) => Some(fragment),
            Pending::Removal => None,
        }
    }

    /// True if new content or a removal waits to be put into force.
    pub(super) fn is_pending(&self) -> bool {
        !matches!(self.pending, Pending::Nothing)
    }
}

/// All files of one kind under the configured paths.
#[derive(Debug)]
pub(super) struct TrackedFiles<F> {
    roots: Vec<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, TrackedFile<F>>,
    root_errors: Vec<SourceError>,
}

impl<F: Fragment> TrackedFiles<F> {
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        Self {
            roots,
            files: BTreeMap::new(),
            root_errors: Vec::new(),
        }
    }

    pub(super) fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// Checks every file and reads those that have changed.
    pub(super) fn scan(&mut self) {
        let (present, kept) = self.list();
        for path in &present {
            let entry = self
                .files
                .entry(path.clone())
                .or_insert_with(TrackedFile::new);
            refresh(path, entry);
        }
        for (path, entry) in &mut self.files {
            if !present.contains(path) && !kept.iter().any(|root| path.starts_with(root)) {
                mark_removed(entry);
            }
        }
        self.files
            .retain(|_, entry| entry.in_force.is_some() || entry.is_known());
    }

    /// The files that exist, and the roots that cannot be read: the files below those are kept as
    /// they are.
    fn list(&mut self) -> (BTreeSet<PathBuf>, Vec<PathBuf>) {
        let mut present = BTreeSet::new();
        let mut kept = Vec::new();
        self.root_errors.clear();
        for root in &self.roots {
            let listed = match std::fs::metadata(root) {
                Ok(metadata) if metadata.is_dir() => {
                    list_directory(root, F::EXTENSIONS, &mut present)
                }
                Ok(_) => {
                    present.insert(root.clone());
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = listed {
                let message = format!(
                    "cannot be read: {error}; expected a file, or a directory of *.{} files, at \
                     this configured path",
                    F::EXTENSIONS.join(", *.")
                );
                let shown = root.to_string_lossy();
                self.root_errors
                    .push(SourceError::whole_file(&shown, message));
                // A missing configured path is a mistake, or an editor is replacing the file. In
                // neither case may traffic be allowed that its policies deny.
                kept.push(root.clone());
            }
        }
        (present, kept)
    }

    /// The current errors of single files and paths.
    pub(super) fn errors(&self) -> impl Iterator<Item = &SourceError> {
        self.root_errors
            .iter()
            .chain(self.files.values().flat_map(|entry| &entry.errors))
    }

    /// The files of which no content was ever in force, and their subjects.
    pub(super) fn without_good_content(&self) -> impl Iterator<Item = (&Path, Vec<Lockdown>)> {
        let waiting = self.files.iter().filter(|(_, entry)| {
            entry.in_force.is_none() && (!entry.errors.is_empty() || entry.is_pending())
        });
        waiting.map(|(path, entry)| {
            let subjects = match &entry.pending {
                Pending::Content(fragment) => fragment.subjects(),
                Pending::Nothing | Pending::Removal => entry.refused_subjects.clone(),
            };
            (path.as_path(), subjects)
        })
    }

    /// The configured paths that cannot be read.
    pub(super) fn root_errors(&self) -> &[SourceError] {
        &self.root_errors
    }

    /// The warnings about the content in force.
    pub(super) fn warnings(&self) -> impl Iterator<Item = &SourceError> {
        let fragments = self.files.values().filter_map(TrackedFile::in_force);
        fragments.flat_map(|fragment| fragment.warnings())
    }

    /// Puts the pending content of these files into force.
    pub(super) fn commit(&mut self, paths: &BTreeSet<PathBuf>) {
        for path in paths {
            let Some(entry) = self.files.get_mut(path) else {
                continue;
            };
            match std::mem::replace(&mut entry.pending, Pending::Nothing) {
                Pending::Nothing => {}
                Pending::Content(fragment) => entry.in_force = Some(fragment),
                Pending::Removal => {
                    self.files.remove(path);
                }
            }
        }
    }
}

impl<F> TrackedFile<F> {
    fn is_known(&self) -> bool {
        self.digest.is_some() || !self.errors.is_empty() || self.is_pending()
    }
}

fn list_directory(
    root: &Path,
    extensions: &[&str],
    present: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let has_known_extension = path
            .extension()
            .is_some_and(|extension| extensions.iter().any(|known| extension == *known));
        if has_known_extension && !hidden && !path.is_dir() {
            present.insert(path);
        }
    }
    Ok(())
}

fn mark_removed<F>(entry: &mut TrackedFile<F>) {
    (entry.stamp, entry.digest) = (None, None);
    entry.errors.clear();
    entry.refused_subjects.clear();
    entry.pending = if entry.in_force.is_some() {
        Pending::Removal
    } else {
        Pending::Nothing
    };
}

/// Updates the entry of a file if the file has changed.
fn refresh<F: Fragment>(path: &Path, entry: &mut TrackedFile<F>) {
    let unchanged =
        std::fs::metadata(path).is_ok_and(|metadata| entry.stamp == Some(Stamp::of(&metadata)));
    if unchanged {
        return;
    }
    let name = path.to_string_lossy();
    let limit = F::max_size(&name);
    let (bytes, stamp) = match read(path, limit) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return mark_removed(entry),
        Err(error) => {
            let message = format!("cannot be read: {error}; expected a readable regular file");
            (entry.stamp, entry.digest) = (None, None);
            entry.refused_subjects.clear();
            entry.errors = vec![SourceError::whole_file(&name, message)];
            entry.pending = Pending::Nothing;
            return;
        }
    };
    entry.stamp = stamp;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    if entry.digest == Some(digest) {
        return;
    }
    entry.digest = Some(digest);
    let text = decode(&name, &bytes, limit).map_err(|error| vec![error]);
    let parsed = text.clone().and_then(|text| F::parse(&name, text));
    entry.pending = Pending::Nothing;
    entry.errors.clear();
    entry.refused_subjects = match (&parsed, text) {
        (Err(_), Ok(text)) if entry.in_force.is_none() => F::refused_subjects(&name, text),
        _ => Vec::new(),
    };
    match parsed {
        Err(errors) => entry.errors = errors,
        Ok(fragment) if entry.in_force.as_deref() == Some(&fragment) => {}
        Ok(mut fragment) => {
            if let Some(older) = &entry.in_force {
                fragment.reuse_equal(older);
            }
            entry.pending = Pending::Content(Arc::new(fragment));
        }
    }
}

/// Reads a regular file, but at most one byte more than the limit. The stamp is `None` if the next
/// change might not alter it.
fn read(path: &Path, limit: usize) -> io::Result<(Vec<u8>, Option<Stamp>)> {
    let now = SystemTime::now();
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit + 1).unwrap_or(u64::MAX);
    Read::take(&file, limit).read_to_end(&mut bytes)?;
    let (before, after) = (Stamp::of(&before), Stamp::of(&file.metadata()?));
    let conclusive = before == after && before.is_conclusive(now);
    Ok((bytes, conclusive.then_some(before)))
}
