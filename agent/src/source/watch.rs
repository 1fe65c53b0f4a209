//! Reports when a watched file may have changed.
//!
//! Watches directories, not files, so that atomic renames and Kubernetes' `..data` swaps are seen.
//! For each symbolic link on a path, the directory that contains the link is watched as well. There
//! is no timer: closing a written file and renaming a file are single events, and all queued events
//! are reported as one change. A reported change may be spurious; `FileSet::reload` determines what
//! has changed. Create the watcher before the first load, so that no change is missed in between.
//!
//! A change is reported first, and the watches are renewed when the caller waits for the next one,
//! because walking all paths takes longer than reading one file. If the renewal finds directories
//! that were not watched before, it counts as a change: they may have changed after they were read
//! and before they were watched.
//!
//! What is between the first write to a file and its close is no change, but the watcher knows which
//! files are in that state: what is read from them may be a part of what they will have.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::unix::AsyncFd;

use super::file_read::FileId;

/// The maximum number of symbolic links that are followed for one path.
const MAX_LINKS: usize = 40;

/// The buffer size for one read of events.
const BUFFER: usize = 16 * 1024;

/// The names in a directory whose changes are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Interest {
    Everything,
    Names(BTreeSet<OsString>),
}

impl Interest {
    fn covers(&self, name: &OsStr) -> bool {
        match self {
            Self::Everything => true,
            // Kubernetes swaps a volume's content by renaming this link.
            Self::Names(names) => names.contains(name) || name == "..data",
        }
    }

    fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Names(names), Self::Names(more)) => names.extend(more),
            _ => *self = Self::Everything,
        }
    }
}

/// A watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched {
    directory: PathBuf,
    interest: Interest,
}

/// The files that processes write.
#[derive(Debug, Default)]
struct Writers {
    /// Those that were written to and not closed since, by directory and name.
    open: HashMap<(WatchDescriptor, OsString), FileId>,
    /// Those that were closed since the reading of files began.
    closed: BTreeSet<FileId>,
}

impl Writers {
    /// Notes what an event about a name in a watched directory says.
    fn note(&mut self, event: &Event<&OsStr>, watched: &Watched, name: &OsStr) {
        let key = (event.wd.clone(), name.to_owned());
        if !event.mask.intersects(EventMask::MODIFY | EventMask::CREATE) {
            self.closed.extend(self.open.remove(&key));
            return;
        }
        // A link that was created is not open for writing.
        match std::fs::symlink_metadata(watched.directory.join(name)) {
            Ok(metadata) if metadata.is_file() => {
                self.open.insert(key, FileId::of(&metadata));
            }
            _ => {
                self.open.remove(&key);
            }
        }
    }
}

/// Watches a set of files and directories through the directories on their paths.
#[derive(Debug)]
pub struct Watcher {
    fd: AsyncFd<Inotify>,
    roots: Vec<PathBuf>,
    watches: HashMap<WatchDescriptor, Watched>,
    writers: Writers,
    /// True if a change was seen that is not reported yet.
    unreported: bool,
    /// True if the watches may be out of date, because a path may resolve differently now.
    stale: bool,
}

impl Watcher {
    /// Starts watching files and directories, also ones that do not exist yet.
    ///
    /// # Errors
    /// When no inotify instance is left, or when called outside a tokio runtime.
    pub fn new(roots: Vec<PathBuf>) -> io::Result<Self> {
        let fd = register(Inotify::init()?)?;
        let mut watcher = Self {
            fd,
            roots,
            watches: HashMap::new(),
            writers: Writers::default(),
            unreported: false,
            stale: false,
        };
        watcher.rearm()?;
        Ok(watcher)
    }

    /// Waits until something may have changed. Safe to cancel: events are only removed from the
    /// queue in the poll that returns.
    ///
    /// # Errors
    /// When the events cannot be read or the watches cannot be renewed.
    pub async fn changed(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unreported) {
            self.stale = true;
            return Ok(());
        }
        if self.stale && self.rearm()? {
            return Ok(());
        }
        loop {
            let mut guard = self.fd.readable_mut().await?;
            let drained = drain(guard.get_inner_mut(), &self.watches, &mut self.writers)?;
            guard.clear_ready();
            drop(guard);
            if drained {
                self.stale = true;
                return Ok(());
            }
        }
    }

    /// Says that the files are read from now on: what has changed so far is read with them.
    ///
    /// # Errors
    /// When the events cannot be read.
    pub fn begin_reading(&mut self) -> io::Result<()> {
        self.stale |= drain(self.fd.get_mut(), &self.watches, &mut self.writers)?;
        self.stale |= std::mem::take(&mut self.unreported);
        self.writers.closed.clear();
        Ok(())
    }

    /// The files that processes have been writing since [`Self::begin_reading`], as far as the events so
    /// far say: what was read from them may be a part. Of those that are closed now, a change is reported.
    ///
    /// # Errors
    /// When the events cannot be read.
    pub fn being_written(&mut self) -> io::Result<BTreeSet<FileId>> {
        self.unreported |= drain(self.fd.get_mut(), &self.watches, &mut self.writers)?;
        let Writers { open, closed } = &self.writers;
        Ok(open.values().chain(closed).copied().collect())
    }

    /// Updates the watches to the directories that the paths resolve to now. Repeats this until a
    /// walk after setting the watches finds nothing new, so that no directory is missed in between.
    /// True if the watched directories have changed.
    fn rearm(&mut self) -> io::Result<bool> {
        let before = self.watches.clone();
        let mut seen = BTreeMap::new();
        for _ in 0..MAX_LINKS {
            let mut wanted = BTreeMap::new();
            for root in &self.roots {
                collect(root, &mut wanted);
            }
            if wanted == seen {
                break;
            }
            self.watch(&wanted)?;
            seen = wanted;
        }
        self.stale = false;
        Ok(self.watches != before)
    }

    /// Watches these directories and no others.
    fn watch(&mut self, wanted: &BTreeMap<PathBuf, Interest>) -> io::Result<()> {
        let mut watches: HashMap<WatchDescriptor, Watched> = HashMap::new();
        let mut kernel = self.fd.get_ref().watches();
        for (directory, interest) in wanted {
            match kernel.add(directory, mask()) {
                Ok(watch) => match watches.get_mut(&watch) {
                    Some(present) => present.interest.merge(interest.clone()),
                    None => {
                        let watched = Watched {
                            directory: directory.clone(),
                            interest: interest.clone(),
                        };
                        watches.insert(watch, watched);
                    }
                },
                // The directory was removed since the walk. Its parent is watched as well and
                // reports when it is created again.
                Err(error) if vanished(&error) => {}
                Err(error) => return Err(error),
            }
        }
        for (stale, _) in self
            .watches
            .drain()
            .filter(|(watch, _)| !watches.contains_key(watch))
        {
            // Fails if the directory was removed, which removes the watch as well.
            let _gone = kernel.remove(stale);
        }
        self.writers
            .open
            .retain(|(watch, _), _| watches.contains_key(watch));
        self.watches = watches;
        Ok(())
    }
}

fn mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::MODIFY
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe because a value could change its descriptor; an Inotify \
              keeps its descriptor for its lifetime and nothing here replaces the Inotify"
)]
fn register(inotify: Inotify) -> io::Result<AsyncFd<Inotify>> {
    AsyncFd::with_interest(inotify, tokio::io::Interest::READABLE)
}

fn vanished(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Reads all queued events; true if at least one is a change.
fn drain(
    inotify: &mut Inotify,
    watches: &HashMap<WatchDescriptor, Watched>,
    writers: &mut Writers,
) -> io::Result<bool> {
    let mut buffer = [0; BUFFER];
    let mut changed = false;
    loop {
        match inotify.read_events(&mut buffer) {
            Ok(events) => {
                for event in events {
                    changed |= is_change(&event, watches, writers);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether an event is a change that matters. Notes who writes.
fn is_change(
    event: &Event<&OsStr>,
    watches: &HashMap<WatchDescriptor, Watched>,
    writers: &mut Writers,
) -> bool {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        writers.open.clear();
        return true;
    }
    match (watches.get(&event.wd), event.name) {
        (Some(watched), Some(name)) if watched.interest.covers(name) => {
            writers.note(event, watched, name);
            !event.mask.contains(EventMask::MODIFY)
        }
        (Some(_), None) => true,
        (Some(_) | None, _) => false,
    }
}

/// Adds the directories in which a change can affect what `root` resolves to.
fn collect(root: &Path, wanted: &mut BTreeMap<PathBuf, Interest>) {
    let Some(directory) = walk(root, wanted) else {
        return;
    };
    add(wanted, &directory, Interest::Everything);
    let Ok(entries) = std::fs::read_dir(&directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            walk(&entry.path(), wanted);
        }
    }
}

/// Resolves a path link by link, adding every directory that affects the result; returns the
/// resolved path if it is a directory.
fn walk(path: &Path, wanted: &mut BTreeMap<PathBuf, Interest>) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let mut rest: VecDeque<OsString> = parts(&absolute);
    let mut current = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            current.pop();
            continue;
        }
        let next = current.join(&part);
        let target = std::fs::read_link(&next).ok();
        let exists = target.is_some() || next.exists();
        if target.is_some() || !exists || rest.is_empty() {
            add(wanted, &current, Interest::Names(BTreeSet::from([part])));
        }
        let Some(target) = target else {
            if !exists {
                return None;
            }
            current = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        if target.is_absolute() {
            current = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    current.is_dir().then_some(current)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(named).collect()
}

fn add(wanted: &mut BTreeMap<PathBuf, Interest>, directory: &Path, interest: Interest) {
    match wanted.get_mut(directory) {
        Some(present) => present.merge(interest),
        None => {
            wanted.insert(directory.to_owned(), interest);
        }
    }
}

#[cfg(test)]
mod tests;
