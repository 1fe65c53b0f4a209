//! The files of one kind (inventory or policies): which exist, which have changed, and the last
//! good content of each.
//!
//! A scan reads only files whose stamp has changed; taking what it read makes new content *pending*.
//! `files` decides over all files together whether pending content is put into force. Nothing here
//! compares one file with another.
//!
//! Editors move or empty a file before they write it, and write it piece by piece. So a file that is
//! gone or says nothing any more loses its content only after [`SETTLE`], and one that a process is
//! writing stays as it was until that process has closed it or has written nothing for that long. Every
//! other change is pending at once.

mod remembered;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::document::{SourceError, decode};
use super::file_read::{self, FileId, FileText, Stamp};
use super::last_good::{Change, InForce, Kind, Known, Past, Read, Record, Stored, in_force};
use crate::model::Lockdown;
use remembered::Recorded;

/// How long a file must be gone or empty until its content is removed.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// The parsed content of a file of one kind.
pub(super) trait Fragment: Sized + PartialEq {
    const KIND: Kind;

    /// The extensions by which such files are found in a directory.
    const EXTENSIONS: &'static [&'static str];

    /// The maximum size of such a file in bytes.
    fn max_size(file_name: &str) -> usize;

    fn parse(file_name: &str, text: &str) -> Result<Self, Vec<SourceError>>;
    fn warnings(&self) -> &[SourceError];

    /// Whether it says nothing, as an empty file does.
    fn is_empty(&self) -> bool;

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

/// What a file had while a process was writing it.
#[derive(Debug)]
struct Unfinished {
    digest: [u8; 32],
    /// Until when it may stay the same before it is taken.
    until: Instant,
}

/// A file that has changed.
#[derive(Debug)]
pub(super) struct Changed {
    path: PathBuf,
    read: io::Result<FileText>,
}

/// The state of one file.
#[derive(Debug)]
pub(super) struct TrackedFile<F> {
    stamp: Option<Stamp>,
    digest: Option<[u8; 32]>,
    in_force: Option<Arc<F>>,
    pending: Pending<F>,
    /// The text of pending content that was read.
    text: Option<Vec<u8>>,
    /// The text of content in force that is to be remembered.
    unstored: Option<Vec<u8>>,
    /// What is known of it if no content is in force.
    past: Past,
    /// When pending content may be put into force; `None` for at once.
    not_before: Option<Instant>,
    /// Content that is not taken, because a process is writing it.
    unfinished: Option<Unfinished>,
    errors: Vec<SourceError>,
    /// The subjects of the current content, if it is refused and no content is in force.
    refused_subjects: Vec<Lockdown>,
}

impl<F> TrackedFile<F> {
    fn new(past: Past) -> Self {
        let (stamp, digest, in_force, errors) = (None, None, None, Vec::new());
        Self {
            stamp,
            digest,
            in_force,
            pending: Pending::Nothing,
            text: None,
            unstored: None,
            past,
            not_before: None,
            unfinished: None,
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

    /// Whether its present content is bad, or contradicts that of other files.
    fn is_refused(&self, now: Instant) -> bool {
        !self.errors.is_empty() || (self.is_pending() && self.is_settled(now))
    }

    /// What of it is in force, if it says this.
    fn outcome(&self, read: Read) -> InForce {
        let known = match self.in_force {
            Some(_) => Known::Good,
            None => Known::Past(self.past),
        };
        in_force(known, read)
    }

    /// Whether its pending content may be put into force now.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }

    /// Until when this content, which a process is writing, is left alone; `None` if it is taken now.
    fn unfinished_until(&mut self, digest: [u8; 32], now: Instant) -> Option<Instant> {
        if self.digest == Some(digest) {
            return None;
        }
        let same = self.unfinished.as_ref().filter(|it| it.digest == digest);
        let until = same.map_or(now + SETTLE, |it| it.until);
        self.unfinished = Some(Unfinished { digest, until });
        (now < until).then_some(until)
    }

    fn is_known(&self) -> bool {
        self.digest.is_some()
            || !self.errors.is_empty()
            || self.is_pending()
            || self.unfinished.is_some()
    }
}

/// All files of one kind under the configured paths.
#[derive(Debug)]
pub(super) struct TrackedFiles<F> {
    roots: Vec<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, TrackedFile<F>>,
    root_errors: Vec<SourceError>,
    /// The roots that were read before.
    readable_roots: BTreeSet<PathBuf>,
    /// The others of those that are missing now, and when their error is due.
    missing_roots: BTreeMap<PathBuf, Instant>,
    /// What was known of files when the agent started.
    stored: Stored,
    /// What is remembered of files now.
    recorded: BTreeMap<PathBuf, Recorded>,
}

impl<F: Fragment> TrackedFiles<F> {
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        Self {
            roots,
            files: BTreeMap::new(),
            root_errors: Vec::new(),
            readable_roots: BTreeSet::new(),
            missing_roots: BTreeMap::new(),
            stored: Stored::default(),
            recorded: BTreeMap::new(),
        }
    }

    pub(super) fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// Checks every file and reads those that have changed. Call [`Self::take`] with them.
    pub(super) fn scan(&mut self, now: Instant) -> Vec<Changed> {
        let (present, kept) = self.list(now);
        let mut changed = Vec::new();
        for path in &present {
            let stamp = self.files.get(path).and_then(|entry| entry.stamp);
            let unchanged =
                std::fs::metadata(path).is_ok_and(|metadata| stamp == Some(Stamp::of(&metadata)));
            if !unchanged {
                let limit = F::max_size(&path.to_string_lossy());
                changed.push(Changed {
                    path: path.clone(),
                    read: file_read::read(path, limit),
                });
            }
        }
        for (path, entry) in &mut self.files {
            if !present.contains(path) && !kept.iter().any(|root| path.starts_with(root)) {
                mark_removed(entry, now);
            }
        }
        self.files
            .retain(|_, entry| entry.in_force.is_some() || entry.is_known());
        changed
    }

    /// Takes what was read, except from files that a process is writing.
    pub(super) fn take(
        &mut self,
        changed: Vec<Changed>,
        being_written: &BTreeSet<FileId>,
        now: Instant,
    ) {
        for Changed { path, read } in changed {
            let entry = self
                .files
                .entry(path.clone())
                .or_insert_with(|| TrackedFile::new(self.stored.past(F::KIND, &path)));
            take(&path, entry, read, being_written, now);
        }
        self.files
            .retain(|_, entry| entry.in_force.is_some() || entry.is_known());
    }

    /// The files that exist, and the roots that cannot be read: the files below those are kept as
    /// they are.
    fn list(&mut self, now: Instant) -> (BTreeSet<PathBuf>, Vec<PathBuf>) {
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
            let Err(error) = listed else {
                self.missing_roots.remove(root);
                self.readable_roots.insert(root.clone());
                continue;
            };
            // A missing configured path is a mistake, or an editor is replacing the file. In
            // neither case may traffic be allowed that its policies deny.
            kept.push(root.clone());
            let was_there = self.readable_roots.contains(root);
            let due = if error.kind() == io::ErrorKind::NotFound && was_there {
                *self
                    .missing_roots
                    .entry(root.clone())
                    .or_insert(now + SETTLE)
            } else {
                now
            };
            if due <= now {
                let message = format!(
                    "cannot be read: {error}; expected a file, or a directory of *.{} files, at \
                     this configured path",
                    F::EXTENSIONS.join(", *.")
                );
                let shown = root.to_string_lossy();
                self.root_errors
                    .push(SourceError::whole_file(&shown, message));
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

    /// The refused files, what of them is in force, and their subjects if that is nothing.
    pub(super) fn refused(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&Path, InForce, Vec<Lockdown>)> {
        let refused = self
            .files
            .iter()
            .filter(move |(_, entry)| entry.is_refused(now));
        refused.map(|(path, entry)| {
            if entry.in_force.is_some() {
                return (path.as_path(), entry.outcome(Read::Bad), Vec::new());
            }
            let subjects = match &entry.pending {
                Pending::Content(fragment) => fragment.subjects(),
                Pending::Nothing | Pending::Removal => entry.refused_subjects.clone(),
            };
            (path.as_path(), entry.outcome(Read::Bad), subjects)
        })
    }

    /// Whether it is known of every configured path what of it is in force.
    pub(super) fn has_all_roots(&self) -> bool {
        let has_content = |root: &Path| {
            let mut files = self.files.iter();
            files.any(|(path, entry)| path.starts_with(root) && entry.in_force.is_some())
        };
        self.missing_or_unreadable().all(has_content)
    }

    /// The same of every file.
    pub(super) fn can_start(&self, now: Instant) -> bool {
        let mut refused = self.refused(now);
        self.has_all_roots() && refused.all(|(_, in_force, _)| in_force != InForce::LockedDown)
    }

    fn missing_or_unreadable(&self) -> impl Iterator<Item = &Path> {
        let errors = self.root_errors.iter();
        errors.map(|error| Path::new(&*error.file))
    }

    /// The warnings about the content in force.
    pub(super) fn warnings(&self) -> impl Iterator<Item = &SourceError> {
        let fragments = self.files.values().filter_map(TrackedFile::in_force);
        fragments.flat_map(|fragment| fragment.warnings())
    }

    /// When time alone will change something: content to put into force, or an error to report.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let of_files = self.files.values().flat_map(|entry| {
            let unfinished = entry.unfinished.as_ref().map(|it| it.until);
            let waiting = entry.not_before.filter(|_| entry.is_pending());
            waiting.into_iter().chain(unfinished)
        });
        let all = of_files.chain(self.missing_roots.values().copied());
        all.filter(|time| *time > now).min()
    }

    /// Puts the pending content of these files into force.
    pub(super) fn commit(&mut self, paths: &BTreeSet<PathBuf>) {
        for path in paths {
            let Some(entry) = self.files.get_mut(path) else {
                continue;
            };
            entry.not_before = None;
            match std::mem::replace(&mut entry.pending, Pending::Nothing) {
                Pending::Nothing => {}
                Pending::Content(fragment) => {
                    entry.in_force = Some(fragment);
                    entry.unstored = entry.text.take();
                }
                Pending::Removal => {
                    self.files.remove(path);
                }
            }
        }
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

fn mark_removed<F>(entry: &mut TrackedFile<F>, now: Instant) {
    (entry.stamp, entry.digest, entry.unfinished) = (None, None, None);
    entry.errors.clear();
    entry.refused_subjects.clear();
    if entry.in_force.is_some() {
        entry.pending = Pending::Removal;
        entry.not_before.get_or_insert(now + SETTLE);
    } else {
        (entry.pending, entry.not_before) = (Pending::Nothing, None);
    }
}

/// Updates the entry of a file that has changed.
fn take<F: Fragment>(
    path: &Path,
    entry: &mut TrackedFile<F>,
    read: io::Result<FileText>,
    being_written: &BTreeSet<FileId>,
    now: Instant,
) {
    let name = path.to_string_lossy();
    let FileText { id, bytes, stamp } = match read {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return mark_removed(entry, now),
        Err(error) => {
            let message = format!("cannot be read: {error}; expected a readable regular file");
            (entry.stamp, entry.digest, entry.unfinished) = (None, None, None);
            entry.refused_subjects.clear();
            entry.errors = vec![SourceError::whole_file(&name, message)];
            (entry.pending, entry.not_before) = (Pending::Nothing, None);
            return;
        }
    };
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    if being_written.contains(&id)
        && let Some(until) = entry.unfinished_until(digest, now)
    {
        // The file is there, so nothing of it is removed meanwhile.
        entry.not_before = entry.not_before.map(|_| until);
        return;
    }
    entry.unfinished = None;
    entry.stamp = stamp;
    if entry.digest == Some(digest) {
        return;
    }
    entry.digest = Some(digest);
    let limit = F::max_size(&name);
    let text = decode(&name, &bytes, limit).map_err(|error| vec![error]);
    let parsed = text.clone().and_then(|text| F::parse(&name, text));
    (entry.pending, entry.text) = (Pending::Nothing, None);
    entry.errors.clear();
    entry.refused_subjects = match (&parsed, text) {
        (Err(_), Ok(text)) if entry.in_force.is_none() => F::refused_subjects(&name, text),
        _ => Vec::new(),
    };
    let says_something = entry.in_force.as_ref().is_some_and(|it| !it.is_empty());
    entry.not_before = match &parsed {
        Ok(fragment) if fragment.is_empty() && says_something => {
            entry.not_before.or(Some(now + SETTLE))
        }
        _ => None,
    };
    match parsed {
        Err(errors) => entry.errors = errors,
        Ok(fragment) if entry.in_force.as_deref() == Some(&fragment) => {}
        Ok(mut fragment) => {
            if let Some(older) = &entry.in_force {
                fragment.reuse_equal(older);
            }
            entry.pending = Pending::Content(Arc::new(fragment));
            entry.text = Some(bytes);
        }
    }
}
