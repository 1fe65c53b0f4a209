//! The lock on a directory that only one agent may use: that of the pins, and that of the state.
//!
//! It is a `flock` on the directory itself, because bpffs holds no files of ours, and because every
//! path to the directory leads to the same lock, whatever else is configured. Invariants: the kernel
//! releases the lock when the process ends, however it ends; a lock counts only while its path still
//! leads to the locked directory, since `cleanup` removes the pin directory. A link `held-by` in the
//! directory tells processes of other PID namespaces who holds the lock; it decides nothing.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{major, minor},
    unistd,
};

/// The name of the link that says who holds the lock.
const HELD_BY: &str = "held-by";
/// How often a directory may be replaced while it is being locked.
const MAX_REPLACED: usize = 100;

/// Why a directory is not locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error(transparent)]
    Held(#[from] Held),
    /// The system refused.
    #[error(
        "cannot lock the directory {}: {error}; it must be on a local file system and readable",
        dir.display()
    )]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// A directory, and who holds its lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is in use: {holder} holds its lock", dir.display())]
pub struct Held {
    dir: PathBuf,
    holder: Holder,
}

/// Who holds a lock, as far as this process can know.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// A process of this PID namespace.
    Process(i32),
    /// What the holder said of itself.
    Recorded(String),
    /// Neither is known.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(out, "pid {pid}"),
            Self::Recorded(text) => out.write_str(text),
            Self::Unknown => out.write_str("a process of another PID namespace"),
        }
    }
}

/// A locked directory. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    dir: PathBuf,
    /// Open for as long as the lock is held.
    _file: File,
}

impl DirectoryLock {
    /// Locks an existing directory, without waiting.
    pub(super) fn acquire(dir: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Io {
            dir: dir.to_owned(),
            error,
        };
        for _ in 0..MAX_REPLACED {
            let file = File::open(dir).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let metadata = file.metadata().map_err(failed)?;
                    let (dir, holder) = (dir.to_owned(), holder(dir, &metadata));
                    return Err(Held { dir, holder }.into());
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if leads_to(dir, &file).map_err(failed)? {
                record(dir);
                return Ok(Self {
                    dir: dir.to_owned(),
                    _file: file,
                });
            }
        }
        Err(failed(io::Error::other(
            "it is being replaced all the time",
        )))
    }

    /// Removes what the lock has put into the directory.
    pub(super) fn erase(&self) {
        // Without it, the next holder's record is the first.
        let _ = fs::remove_file(self.dir.join(HELD_BY));
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        self.erase();
    }
}

/// Whether the path still leads to the open directory.
fn leads_to(dir: &Path, file: &File) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(dir) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn holder(dir: &Path, metadata: &fs::Metadata) -> Holder {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    if let Some(pid) = flock_holder(&locks, metadata.dev(), metadata.ino()) {
        return Holder::Process(pid);
    }
    fs::read_link(dir.join(HELD_BY)).map_or(Holder::Unknown, |record| {
        Holder::Recorded(record.to_string_lossy().into_owned())
    })
}

/// The process that holds a `flock` on a file, by the text of `/proc/locks`; it lists processes of
/// the reader's PID namespace only.
fn flock_holder(locks: &str, device: u64, inode: u64) -> Option<i32> {
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            // A process that waits for the lock has `->` in the second place.
            [_, "FLOCK", _, _, pid, locked, ..] if *locked == file => pid.parse().ok(),
            _ => None,
        }
    })
}

/// Says who holds the lock. The record is only for messages, so a failure changes nothing.
fn record(dir: &Path) {
    let host = unistd::gethostname().unwrap_or_default();
    let text = format!(
        "pid {} on host {}",
        std::process::id(),
        host.to_string_lossy()
    );
    let link = dir.join(HELD_BY);
    let _ = fs::remove_file(&link);
    if let Err(error) = symlink(text, &link) {
        tracing::debug!("cannot write {}: {error}", link.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(dir: &Path) -> Held {
        match DirectoryLock::acquire(dir) {
            Err(LockError::Held(held)) => held,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_has_one_holder_by_whatever_path_and_the_error_names_it() {
        let root = tempfile::tempdir().unwrap();
        let (dir, alias) = (root.path().join("dir"), root.path().join("alias"));
        fs::create_dir(&dir).unwrap();
        symlink(&dir, &alias).unwrap();
        let lock = DirectoryLock::acquire(&dir).unwrap();
        let pid = format!("pid {} ", std::process::id());
        for path in [&dir, &alias] {
            let error = held(path).to_string();
            assert!(error.contains(&pid), "{error}");
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
        drop(lock);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        DirectoryLock::acquire(&alias).unwrap();
    }

    #[test]
    fn a_record_without_a_holder_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        symlink("pid 1 on host gone", dir.path().join(HELD_BY)).unwrap();
        let _lock = DirectoryLock::acquire(dir.path()).unwrap();
        let record = fs::read_link(dir.path().join(HELD_BY)).unwrap();
        let own = format!("pid {} on host ", std::process::id());
        assert!(record.to_string_lossy().starts_with(&own), "{record:?}");
    }

    #[test]
    fn the_lock_of_a_removed_directory_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let removed = File::open(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        assert!(!leads_to(&dir, &removed).unwrap());
        assert!(leads_to(&dir, &File::open(&dir).unwrap()).unwrap());
        fs::remove_dir(&dir).unwrap();
        assert!(!leads_to(&dir, &removed).unwrap());
    }

    #[test]
    fn the_holder_is_found_in_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:55:16194478 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:55:1619447 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 00:55:16194478 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 00:55:16194478 0 EOF\n";
        let device = nix::sys::stat::makedev(0, 0x55);
        assert_eq!(flock_holder(locks, device, 16_194_478), Some(13));
        assert_eq!(flock_holder(locks, device, 1), None);
        let other = nix::sys::stat::makedev(8, 0x55);
        assert_eq!(flock_holder(locks, other, 16_194_478), None);
        let lines: Vec<&str> = locks.lines().rev().collect();
        assert_eq!(
            flock_holder(&lines.join("\n"), device, 16_194_478),
            Some(13)
        );
    }
}
