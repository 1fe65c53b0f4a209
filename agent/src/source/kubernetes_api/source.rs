//! The Kubernetes API as a source of objects.
//!
//! Invariants: it never waits for the API, which others ask; what they say comes over a bounded channel, so
//! that a flood of changes makes them wait, and takes no memory. Objects are kept for the next start only once all are
//! known: a part of them never takes the place of what an earlier agent kept.

use std::io;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc;
use tokio::time;

use super::cluster_ranges::PodRanges;
use super::kept::Kept;
use super::object::Key;
use super::state::{ApiState, Update};
use super::stored::Stored;
use crate::ordmap::Map;
use crate::source::pod_interfaces::PodInterfaces;
use crate::source::{Known, ObjectSource, Objects, Report};

/// The most updates that wait to be taken.
pub const CAPACITY: usize = 1024;
/// How long every kind may take to be listed before what an earlier agent kept is in force.
pub const LISTS: Duration = Duration::from_secs(5);

/// Where objects are kept for a start without the API server.
pub trait ObjectStore {
    /// What an earlier agent kept; `None` if there was none.
    ///
    /// # Errors
    /// Why it cannot be used, for users.
    fn load(&mut self) -> Result<Option<Stored>, String>;

    /// Has all objects kept. Does not wait.
    fn keep(&mut self, all: Map<Key, Kept>);
}

/// Objects of the Kubernetes API.
pub struct KubernetesSource {
    state: ApiState,
    updates: mpsc::Receiver<Update>,
    interfaces: PodInterfaces,
    store: Box<dyn ObjectStore>,
    /// What was kept last.
    kept: Map<Key, Kept>,
    start: Instant,
    /// When to use what an earlier agent kept, unless it is not needed, or was used.
    restore_at: Option<Instant>,
}

impl KubernetesSource {
    /// A source of what comes from this channel, on a node with these interfaces, in a cluster with these ranges
    /// of pods.
    #[must_use]
    pub fn new(
        updates: mpsc::Receiver<Update>,
        interfaces: PodInterfaces,
        pods: PodRanges,
        store: Box<dyn ObjectStore>,
    ) -> Self {
        let start = Instant::now();
        Self {
            state: ApiState::new(pods),
            updates,
            interfaces,
            store,
            kept: Map::new(),
            start,
            restore_at: Some(start + LISTS),
        }
    }

    async fn wait(&mut self) -> io::Result<()> {
        if self.state.was_listed() {
            self.restore_at = None;
        }
        let restore_at = self.restore_at;
        tokio::select! {
            update = self.updates.recv() => {
                let ended = || io::Error::other("the watch of the Kubernetes API ended");
                self.state.take(update.ok_or_else(ended)?);
                for _ in 1..CAPACITY {
                    let Ok(update) = self.updates.try_recv() else {
                        break;
                    };
                    self.state.take(update);
                }
            }
            found = self.interfaces.changed() => self.state.take_interfaces(found?),
            () = time::sleep_until(restore_at.unwrap_or(self.start).into()), if restore_at.is_some() => {
                self.restore_at = None;
                self.restore();
            }
        }
        self.interfaces.look_for(self.state.local_addresses());
        Ok(())
    }

    /// Uses what an earlier agent kept.
    fn restore(&mut self) {
        match self.store.load() {
            Ok(Some(stored)) => self.state.restore(stored, self.start),
            Ok(None) => {}
            Err(error) => self.state.unusable = Some(error),
        }
    }
}

impl ObjectSource for KubernetesSource {
    fn changed(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(self.wait())
    }

    fn reread(&mut self) {}

    fn known(&self) -> Known {
        self.state.known()
    }

    fn deliver(&mut self, objects: &mut Objects, now: Instant) -> Report {
        let report = self.state.deliver(objects, now);
        // A pod that is gone needs none any more.
        self.interfaces.look_for(self.state.local_addresses());
        let all = self.state.kept();
        if self.state.known() == Known::All && !all.is_same(&self.kept) {
            self.kept = all.clone();
            self.store.keep(all.clone());
        }
        report
    }
}
