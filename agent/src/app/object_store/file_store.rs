//! Keeps the objects of the Kubernetes API in a file, on a thread of its own: a slow disk delays no policy.
//!
//! Invariants: it is written only after a change, some seconds after the first one that is not stored yet, so that
//! a burst is one write; what is pending is written at the end; the file is replaced as a whole, and one that cannot be used
//! is set aside. What is in it is decided in `source::kubernetes_api`.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::{info, warn};

use super::Unstored;
use crate::{
    app::durable_write,
    model::NodeName,
    ordmap::Map,
    source::kubernetes_api::{Kept, Key, LIMITS, ObjectStore, Stored, read, write},
};

#[cfg(feature = "kubernetes")]
/// How long a change may wait to be written.
const DELAY: Duration = Duration::from_secs(15);

type Objects = Map<Key, Kept>;

#[derive(Default)]
struct Queue {
    pending: Option<Objects>,
    is_stopping: bool,
}

/// The store. Dropping it writes what is pending.
pub(in crate::app) struct FileStore {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    file: PathBuf,
    node: NodeName,
}

impl FileStore {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    #[cfg(feature = "kubernetes")]
    pub(in crate::app) fn start(
        file: PathBuf,
        node: NodeName,
        unstored: Unstored,
    ) -> io::Result<Self> {
        Self::start_with(file, node, unstored, DELAY)
    }

    fn start_with(
        file: PathBuf,
        node: NodeName,
        unstored: Unstored,
        delay: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let (of_thread, path, name) = (Arc::clone(&shared), file.clone(), node.clone());
        let thread = thread::Builder::new().name("objects".into());
        let thread = thread.spawn(move || {
            while let Some(objects) = next(&of_thread, delay) {
                let failure = store(&path, &objects, &name);
                let mut last = lock(&unstored.0);
                match (&*last, &failure) {
                    (None, Some(failure)) => warn!("{failure}"),
                    (Some(_), None) => info!("{}: stored again", path.display()),
                    _ => {}
                }
                let is_lost = failure.is_some() && !is_written(&failure);
                *last = failure;
                drop(last);
                let mut queue = lock(&of_thread.0);
                // Tried again, unless there is something newer, or no time is left.
                if is_lost && !queue.is_stopping {
                    queue.pending.get_or_insert(objects);
                }
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
            file,
            node,
        })
    }
}

impl ObjectStore for FileStore {
    fn load(&mut self) -> Result<Option<Stored>, String> {
        let from = match File::open(&self.file) {
            Ok(from) => BufReader::new(from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.set_aside(&error)),
        };
        match read(from, &self.node, LIMITS) {
            Ok(stored) => Ok(Some(stored)),
            Err(why) => Err(self.set_aside(&why)),
        }
    }

    fn keep(&mut self, all: Objects) {
        let (queue, wake) = &*self.shared;
        lock(queue).pending = Some(all);
        wake.notify_one();
    }
}

impl FileStore {
    /// Keeps a file that cannot be used, under another name. Returns an error for users.
    fn set_aside(&self, why: &dyn std::fmt::Display) -> String {
        let aside = self.file.with_extension("set-aside");
        let outcome = match fs::rename(&self.file, &aside) {
            Ok(()) => format!("set aside as {}", aside.display()),
            Err(error) => format!("cannot be set aside: {error}"),
        };
        let file = self.file.display();
        format!("{file}: what an earlier run stored cannot be used: {why}; {outcome}")
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        let (queue, wake) = &*self.shared;
        lock(queue).is_stopping = true;
        wake.notify_one();
        if self.thread.take().is_some_and(|it| it.join().is_err()) {
            warn!("the thread that stores objects has panicked");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until objects are to be written; `None` at the end.
fn next(shared: &(Mutex<Queue>, Condvar), delay: Duration) -> Option<Objects> {
    let (queue, wake) = shared;
    let idle = |queue: &mut Queue| queue.pending.is_none() && !queue.is_stopping;
    let guard = wake.wait_while(lock(queue), idle);
    let mut guard = guard.unwrap_or_else(PoisonError::into_inner);
    let due = Instant::now() + delay;
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if guard.is_stopping || left.is_zero() {
            return guard.pending.take();
        }
        let waited = wake.wait_timeout(guard, left);
        (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

/// What a warning begins with although the rest was written.
const LEFT_OUT: &str = "too large to be stored: ";

fn is_written(failure: &Option<String>) -> bool {
    failure.as_ref().is_some_and(|it| it.starts_with(LEFT_OUT))
}

/// Replaces the file. Returns a warning if something of it is not stored.
fn store(file: &Path, objects: &Objects, node: &NodeName) -> Option<String> {
    let now = Timestamp::now().as_second();
    let mut left_out = 0;
    let outcome = durable_write::replace_with(file, |to| {
        left_out = write(to, objects, (node, now), LIMITS)?;
        Ok(())
    });
    match outcome {
        Ok(()) if left_out == 0 => None,
        Ok(()) => Some(format!(
            "{LEFT_OUT}{left_out} objects of the API server; an agent that starts without it does not know them"
        )),
        Err(error) => Some(format!(
            "{}: objects of the API server cannot be stored: {error}; an agent that starts without it \
             has an older state, or none; free space there",
            file.display()
        )),
    }
}

#[cfg(test)]
mod tests;
