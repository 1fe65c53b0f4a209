//! Reads a file together with what tells its versions apart.
//!
//! Invariant: equal stamps mean equal content. What the content means is not known here.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that is changed twice within this time may keep its stamp: the clock for file times is
/// coarse.
const STAMP_GRANULARITY: Duration = Duration::from_millis(100);

/// Which file it is, whatever its names: its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Identifies a version of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    id: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            id: FileId::of(metadata),
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

/// A file as it was read.
#[derive(Debug)]
pub(super) struct FileText {
    pub(super) id: FileId,
    /// At most one byte more than the limit.
    pub(super) bytes: Vec<u8>,
    /// `None` if the next change might not alter it.
    pub(super) stamp: Option<Stamp>,
}

/// Reads a regular file.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<FileText> {
    let now = SystemTime::now();
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit + 1).unwrap_or(u64::MAX);
    Read::take(&file, limit).read_to_end(&mut bytes)?;
    let (before, after) = (Stamp::of(&metadata), Stamp::of(&file.metadata()?));
    let conclusive = before == after && before.is_conclusive(now);
    Ok(FileText {
        id: before.id,
        bytes,
        stamp: conclusive.then_some(before),
    })
}
