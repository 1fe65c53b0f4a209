//! The state that an earlier agent left, in force while the API server cannot be asked.
//!
//! Pure. Invariants: it is taken only as long as not every kind was listed; a pod of this node is part of it only
//! if an interface of its own leads to its address; a pod that this node does not confirm has its addresses for
//! [`PEERS`] and then they are unknown, because another pod may have them by now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::object::{Key, Object};
use super::pod::PodObject;
use super::state::{ApiState, Update};
use super::stored::Stored;
use crate::model::Workload;

/// How long pods of other nodes have the addresses that an earlier agent knew.
pub const PEERS: Duration = Duration::from_mins(15);

/// How much is known of an earlier agent's state.
#[derive(Debug)]
pub(super) struct Restored {
    /// When it was stored, in seconds since 1970.
    pub(super) at: i64,
    /// When the claims lapse.
    until: Instant,
    /// Whether it is known which pods of this node are there.
    pub(super) is_checked: bool,
    has_lapsed: bool,
    /// The pods of other nodes.
    elsewhere: Vec<Arc<Workload>>,
}

impl Restored {
    /// The pods of other nodes, if their claims lapse now.
    fn lapse(&mut self, now: Instant) -> Vec<Arc<Workload>> {
        if self.has_lapsed || now < self.until {
            return Vec::new();
        }
        self.has_lapsed = true;
        std::mem::take(&mut self.elsewhere)
    }

    /// When claims lapse that have not yet.
    fn next_change(&self) -> Option<Instant> {
        (!self.has_lapsed).then_some(self.until)
    }
}

impl ApiState {
    /// Takes over what an earlier agent stored, if not every kind was listed yet. `start` is when this agent
    /// began to ask.
    pub fn restore(&mut self, stored: Stored, start: Instant) {
        if self.first.is_none() || self.restored.is_some() {
            return;
        }
        let mut elsewhere = Vec::new();
        for converted in stored.objects {
            if let Object::Pod(pod) = &converted.object
                && !pod.is_local
            {
                elsewhere.push(Arc::clone(&pod.workload));
            }
            self.note(Update::Is(Box::new(converted)));
        }
        self.restored = Some(Restored {
            at: stored.at,
            until: start + PEERS,
            is_checked: false,
            has_lapsed: false,
            elsewhere,
        });
        self.settle();
    }

    /// Once it is known which pods of this node have an interface, those without one are no part of the restored
    /// state.
    pub(super) fn check_restored(&mut self) {
        let is_due = self.restored.as_ref().is_some_and(|it| !it.is_checked);
        if !is_due || !self.local.are_settled() {
            return;
        }
        if self.first.is_some() {
            for id in self.local.without_interface() {
                self.local.remove(&id);
            }
        }
        if let Some(restored) = &mut self.restored {
            restored.is_checked = true;
        }
    }

    /// Lets claims lapse that are due. Returns when others are.
    pub(super) fn lapse(&mut self, now: Instant) -> Option<Instant> {
        // What the server has said does not lapse.
        self.first.as_ref()?;
        let restored = self.restored.as_mut()?;
        for workload in restored.lapse(now) {
            let key = Key::Pod(workload.id.clone());
            let workload = Arc::new(workload.lapsed());
            let is_local = false;
            let object = Object::Pod(PodObject { workload, is_local });
            self.changed.insert(key, Some(object));
        }
        self.local.have_lapsed = restored.has_lapsed;
        restored.next_change()
    }
}

#[cfg(test)]
mod tests;
