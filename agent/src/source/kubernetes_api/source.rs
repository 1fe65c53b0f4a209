//! The Kubernetes API as a source of objects.
//!
//! Invariants: it never waits for the API, which others ask; what they say comes over a bounded channel, so
//! that a flood of changes makes them wait, and takes no memory.

use std::io;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc;

use super::cluster_ranges::PodRanges;
use super::state::{ApiState, Update};
use crate::source::pod_interfaces::PodInterfaces;
use crate::source::{ObjectSource, Objects, Report};

/// The most updates that wait to be taken.
pub const CAPACITY: usize = 1024;

/// Objects of the Kubernetes API.
#[derive(Debug)]
pub struct KubernetesSource {
    state: ApiState,
    updates: mpsc::Receiver<Update>,
    interfaces: PodInterfaces,
}

impl KubernetesSource {
    /// A source of what comes from this channel, on a node with these interfaces, in a cluster with these ranges
    /// of pods.
    #[must_use]
    pub fn new(
        updates: mpsc::Receiver<Update>,
        interfaces: PodInterfaces,
        pods: PodRanges,
    ) -> Self {
        Self {
            state: ApiState::new(pods),
            updates,
            interfaces,
        }
    }

    async fn wait(&mut self) -> io::Result<()> {
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
                self.interfaces.look_for(self.state.local_addresses());
            }
            found = self.interfaces.changed() => self.state.take_interfaces(found?),
        }
        Ok(())
    }
}

impl ObjectSource for KubernetesSource {
    fn changed(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(self.wait())
    }

    fn reread(&mut self) {}

    fn is_synced(&self) -> bool {
        self.state.is_synced()
    }

    fn deliver(&mut self, objects: &mut Objects, now: Instant) -> Report {
        let report = self.state.deliver(objects, now);
        // A pod that is gone needs none any more.
        self.interfaces.look_for(self.state.local_addresses());
        report
    }
}
