//! Writes what is known of source files, on a thread of its own: a slow disk delays no policy.
//!
//! Invariants: of several changes of one file's record, the last one is written; changes that failed are
//! tried again, and it is known that they failed.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{info, warn};

use super::last_good_store;
use crate::source::last_good::{Change, FileKey, Record};

/// The delay before changes that failed are tried again.
const RETRY: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct Queue {
    changes: BTreeMap<FileKey, Option<Record>>,
    /// Why the last changes could not be written.
    failure: Option<String>,
    /// Whether to write even if there is nothing to write: the store is to become complete.
    is_due: bool,
    is_stopping: bool,
}

/// The writer. Dropping it writes what is left.
#[derive(Debug)]
pub(super) struct LastGoodWriter {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl LastGoodWriter {
    /// Starts the thread. The first write makes the store complete even without changes.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(directory: PathBuf) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("last-good".into());
        let thread = thread.spawn(move || write_changes(&of_thread, &directory))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Has changes written.
    pub(super) fn write(&self, changes: Vec<Change>) {
        let (queue, wake) = &*self.shared;
        let mut queue = lock(queue);
        queue.changes.extend(changes);
        queue.is_due = true;
        wake.notify_one();
    }

    /// Why the store lacks changes; `None` while it does not.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.shared.0).failure.clone()
    }
}

impl Drop for LastGoodWriter {
    fn drop(&mut self) {
        let (queue, wake) = &*self.shared;
        lock(queue).is_stopping = true;
        wake.notify_one();
        if self.thread.take().is_some_and(|it| it.join().is_err()) {
            warn!("the thread that stores last good content has panicked");
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_changes(shared: &(Mutex<Queue>, Condvar), directory: &std::path::Path) {
    let (queue, wake) = shared;
    let mut guard = lock(queue);
    loop {
        while !guard.is_due && !guard.is_stopping {
            guard = if guard.failure.is_some() {
                let waited = wake.wait_timeout(guard, RETRY);
                let (mut guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                guard.is_due |= timeout.timed_out();
                guard
            } else {
                wake.wait(guard).unwrap_or_else(PoisonError::into_inner)
            };
        }
        if !guard.is_due {
            return;
        }
        guard.is_due = false;
        let changes = std::mem::take(&mut guard.changes);
        drop(guard);
        let (failed, error) = last_good_store::write(directory, changes.into_iter().collect());
        guard = lock(queue);
        // A later change of the same record counts.
        for (key, record) in failed {
            guard.changes.entry(key).or_insert(record);
        }
        let failure = error.map(|error| {
            format!(
                "{}: what is known of source files cannot be stored: {error}; if such a file is bad at \
                 the next start, its subjects are locked down; free space there",
                directory.display()
            )
        });
        match (&guard.failure, &failure) {
            (None, Some(failure)) => warn!("{failure}"),
            (Some(_), None) => info!("{}: stored again", directory.display()),
            _ => {}
        }
        guard.failure = failure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::last_good::Kind;

    #[test]
    fn the_last_change_of_a_record_is_stored_when_the_writer_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = last_good_store::directory(dir.path());
        let key = (Kind::Inventory, PathBuf::from("/etc/i.toml"));
        let writer = LastGoodWriter::start(store.clone()).unwrap();
        for text in ["one", "two", "three"] {
            let record = Record::Good(text.as_bytes().to_vec());
            writer.write(vec![(key.clone(), Some(record))]);
        }
        drop(writer);
        let stored = last_good_store::read(&store).stored;
        assert_eq!(stored.records[&key], Record::Good(b"three".to_vec()));
        assert!(stored.is_complete);
    }

    #[test]
    fn what_cannot_be_stored_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let store = last_good_store::directory(dir.path());
        std::fs::write(&store, "not a directory").unwrap();
        let writer = LastGoodWriter::start(store.clone()).unwrap();
        assert_eq!(writer.failure(), None);
        writer.write(Vec::new());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while writer.failure().is_none() {
            assert!(std::time::Instant::now() < deadline);
            thread::yield_now();
        }
        std::fs::remove_file(&store).unwrap();
        writer.write(Vec::new());
        while writer.failure().is_some() {
            assert!(std::time::Instant::now() < deadline);
            thread::yield_now();
        }
        assert!(last_good_store::read(&store).stored.is_complete);
    }
}
