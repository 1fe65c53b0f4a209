//! The files as a source of objects: what was watched is read, and what was read is delivered.
//!
//! Invariant: files are read only if one of them may have changed, or time has come to look again.

use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use tracing::warn;

use super::files::FileSet;
use super::object_sources::{ObjectSource, Report};
use super::objects::Objects;
use super::watch::Watcher;

/// Files that are watched.
#[derive(Debug)]
pub struct FileSource {
    files: FileSet,
    watcher: Watcher,
    /// Whether a file may have changed since the last reading.
    is_due: bool,
    /// When to read although nothing has changed.
    next_change: Option<Instant>,
}

impl FileSource {
    /// Watches files that were read before.
    ///
    /// # Errors
    /// When no inotify instance is left, or when called outside a tokio runtime.
    pub fn watch(files: FileSet) -> io::Result<Self> {
        let watcher = Watcher::new(files.paths())?;
        Ok(Self {
            files,
            watcher,
            // Files may have changed between the first reading and the start of the watch.
            is_due: true,
            next_change: None,
        })
    }

    fn read(&mut self, now: Instant) {
        let watcher = &mut self.watcher;
        let unknown = |error| warn!("cannot tell which source files are being written: {error}");
        watcher.begin_reading().unwrap_or_else(unknown);
        self.files.read(now, || {
            watcher.being_written().unwrap_or_else(|error| {
                unknown(error);
                BTreeSet::new()
            })
        });
        self.is_due = false;
    }
}

impl ObjectSource for FileSource {
    fn changed(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            self.watcher.changed().await?;
            self.is_due = true;
            Ok(())
        })
    }

    fn reread(&mut self) {
        self.is_due = true;
    }

    fn deliver(&mut self, objects: &mut Objects, now: Instant) -> Report {
        if self.is_due || self.next_change.is_some_and(|time| time <= now) {
            self.read(now);
        }
        let report = self.files.deliver(objects, now);
        self.next_change = report.next_change;
        report
    }
}
