//! Recent flow records: a bounded ring, and a feed for followers.
//!
//! Invariants: memory is bounded by the capacity; a slow follower never slows the writer, it loses
//! the oldest records and gets their number; every record is either in a follower's snapshot or in
//! its feed, never in both. Records are shared, never copied. Nothing survives a restart.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use ringfence_common::ids::IdentityId;
use tokio::sync::broadcast::{self, error::RecvError};

use super::flow::{End, FlowRecord, FlowVerdict};
use crate::model::Owner;

/// How many records a follower may lag behind before it loses some.
const FEED: usize = 1024;

/// Selects records; an absent field accepts all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Either end is in this namespace.
    pub namespace: Option<String>,
    /// Either end is this workload, `namespace/name`.
    pub workload: Option<String>,
    /// The flow has this verdict.
    pub verdict: Option<FlowVerdict>,
    /// Not before this time.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether the filter accepts a record.
    #[must_use]
    pub fn accepts(&self, record: &FlowRecord) -> bool {
        let either =
            |test: &dyn Fn(&End) -> bool| test(&record.source) || test(&record.destination);
        self.verdict.is_none_or(|verdict| record.verdict == verdict)
            && self.since.is_none_or(|since| record.time >= since)
            && self
                .namespace
                .as_ref()
                .is_none_or(|name| either(&|end| in_namespace(end, name)))
            && self
                .workload
                .as_ref()
                .is_none_or(|name| either(&|end| is_workload(end, name)))
    }
}

fn in_namespace(end: &End, name: &str) -> bool {
    let workload = end.owner.as_ref().and_then(Owner::workload);
    workload.is_some_and(|workload| workload.id.namespace.as_str() == name)
}

fn is_workload(end: &End, name: &str) -> bool {
    let workload = end.owner.as_ref().and_then(Owner::workload);
    workload
        .zip(name.split_once('/'))
        .is_some_and(|(workload, (namespace, name))| {
            workload.id.namespace.as_str() == namespace && workload.id.name.as_str() == name
        })
}

/// The next item of a follower's feed.
#[derive(Debug, Clone)]
pub enum Followed {
    /// A record.
    Flow(Arc<FlowRecord>),
    /// The number of records lost at this point, because the follower was too slow.
    Lost(u64),
}

/// The recent flow records of this node.
#[derive(Debug)]
pub struct History {
    ring: Mutex<VecDeque<Arc<FlowRecord>>>,
    capacity: usize,
    feed: broadcast::Sender<Arc<FlowRecord>>,
    lost: Arc<AtomicU64>,
}

impl History {
    /// An empty history that keeps at most `capacity` records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Mutex::default(),
            capacity,
            feed: broadcast::Sender::new(FEED),
            lost: Arc::default(),
        }
    }

    /// Adds a batch of records, oldest first.
    pub fn push(&self, batch: &[Arc<FlowRecord>]) {
        let mut ring = self.locked();
        for record in batch {
            if ring.len() >= self.capacity {
                ring.pop_front();
            }
            if self.capacity > 0 {
                ring.push_back(Arc::clone(record));
            }
            if self.feed.receiver_count() > 0 {
                // Fails only if the last follower has just gone.
                let _ = self.feed.send(Arc::clone(record));
            }
        }
    }

    /// The newest `last` records that the filter accepts, oldest first; all when `last` is `None`.
    #[must_use]
    pub fn recent(&self, filter: &Filter, last: Option<usize>) -> Vec<Arc<FlowRecord>> {
        select(&self.locked(), filter, last)
    }

    /// As [`Self::recent`], with a feed of all later records.
    #[must_use]
    pub fn follow(&self, filter: Filter, last: Option<usize>) -> (Vec<Arc<FlowRecord>>, Follower) {
        let ring = self.locked();
        let past = select(&ring, &filter, last);
        let follower = Follower {
            feed: self.feed.subscribe(),
            filter,
            lost: Arc::clone(&self.lost),
        };
        (past, follower)
    }

    /// Every identity that a kept record shows.
    #[must_use]
    pub fn identities(&self) -> HashSet<IdentityId> {
        let ring = self.locked();
        let ends = ring
            .iter()
            .flat_map(|record| [&record.source, &record.destination]);
        ends.map(|end| end.identity).collect()
    }

    /// Records that followers lost because they were too slow.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Arc<FlowRecord>>> {
        // A reader that panicked has not changed the ring.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn select(
    ring: &VecDeque<Arc<FlowRecord>>,
    filter: &Filter,
    last: Option<usize>,
) -> Vec<Arc<FlowRecord>> {
    let newest_first = ring.iter().rev().filter(|record| filter.accepts(record));
    let mut picked: Vec<_> = newest_first
        .take(last.unwrap_or(usize::MAX))
        .cloned()
        .collect();
    picked.reverse();
    picked
}

/// A feed of new records.
#[derive(Debug)]
pub struct Follower {
    feed: broadcast::Receiver<Arc<FlowRecord>>,
    filter: Filter,
    lost: Arc<AtomicU64>,
}

impl Follower {
    /// The next record that the filter accepts, or a gap; `None` once the history has been dropped.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            match self.feed.recv().await {
                Ok(record) if self.filter.accepts(&record) => return Some(Followed::Flow(record)),
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => {
                    self.lost.fetch_add(count, Ordering::Relaxed);
                    return Some(Followed::Lost(count));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_common::event::FlowEvent;
    use ringfence_common::mode::Action;

    use super::*;
    use crate::observe::flow::tests::{denied, event, record};

    fn at(seconds: u64) -> Arc<FlowRecord> {
        Arc::new(record(&FlowEvent {
            time: seconds * 1_000_000_000,
            ..event()
        }))
    }

    fn by_verdict(verdict: FlowVerdict) -> Filter {
        Filter {
            verdict: Some(verdict),
            ..Filter::default()
        }
    }

    #[test]
    fn the_ring_keeps_the_newest_records() {
        let history = History::new(3);
        history.push(&(0..5).map(at).collect::<Vec<_>>());
        let seconds = |last| -> Vec<i64> {
            let records = history.recent(&Filter::default(), last);
            records
                .iter()
                .map(|record| record.time.as_second() % 1000 - 44)
                .collect()
        };
        assert_eq!(seconds(None), [2, 3, 4]);
        assert_eq!(seconds(Some(2)), [3, 4]);
        assert_eq!(seconds(Some(0)), [0; 0]);
    }

    #[test]
    fn the_identities_are_those_of_kept_records() {
        let history = History::new(1);
        let of = |number| {
            let mut of_event = event();
            of_event.identity = IdentityId(number);
            of_event.peer_identity = IdentityId(number + 1);
            Arc::new(record(&of_event))
        };
        history.push(&[of(20), of(30)]);
        assert_eq!(history.identities(), [30, 31].map(IdentityId).into());
    }

    #[test]
    fn a_filter_accepts_matching_records_only() {
        let allowed = record(&event());
        let denied = record(&denied(event(), Action::Drop));
        let named = |namespace: &str| Filter {
            namespace: Some(namespace.into()),
            ..Filter::default()
        };
        let workload = |name: &str| Filter {
            workload: Some(name.into()),
            ..Filter::default()
        };
        assert!(Filter::default().accepts(&allowed));
        assert!(named("shop").accepts(&allowed) && !named("lab").accepts(&allowed));
        assert!(workload("shop/db-1").accepts(&allowed));
        assert!(!workload("shop/db-2").accepts(&allowed) && !workload("db-1").accepts(&allowed));
        assert!(by_verdict(FlowVerdict::Denied).accepts(&denied));
        assert!(!by_verdict(FlowVerdict::Denied).accepts(&allowed));
        let since = |time| Filter {
            since: Some(time),
            ..Filter::default()
        };
        assert!(since(allowed.time).accepts(&allowed));
        let later = allowed.time + jiff::SignedDuration::from_nanos(1);
        assert!(!since(later).accepts(&allowed));
    }

    #[tokio::test]
    async fn a_follower_gets_past_and_new_records_once() {
        let history = History::new(10);
        history.push(&[at(1)]);
        let (past, mut follower) = history.follow(Filter::default(), None);
        history.push(&[at(2)]);
        assert_eq!(past.len(), 1);
        let Some(Followed::Flow(next)) = follower.next().await else {
            panic!("no record")
        };
        assert_eq!(next.time, at(2).time);
        drop(history);
        assert!(follower.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_follower_gets_the_number_of_lost_records() {
        let history = History::new(10);
        let (_, mut follower) = history.follow(Filter::default(), None);
        let sample = at(1);
        history.push(&vec![sample; FEED + 5]);
        assert!(matches!(follower.next().await, Some(Followed::Lost(5))));
        assert!(matches!(follower.next().await, Some(Followed::Flow(_))));
        assert_eq!(history.lost(), 5);
    }
}
