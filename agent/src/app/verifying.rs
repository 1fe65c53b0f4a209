//! Once a second, compares the kernel with what is to be in force, and shows what came of it.
//!
//! The look at the hooks has a thread of its own, because it waits for the kernel's lock over all network
//! devices; the maps are read here, by their only writer. Invariants: one look at a time; every repair is
//! counted, and logged, but of one kind at one place only once in [`LOG_INTERVAL`].

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::warn;

use super::{
    degraded_alarm::{DegradedAlarm, degraded_counts},
    shared_state::SharedState,
    unfenced_alarm::{UnfencedAlarm, unfenced_counts},
};
use crate::{
    datapath::{Datapath, Standing},
    reconcile::{Reconciler, Repair, RepairKind},
};

/// The interval of verification.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two lines about the same.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What a look found, with its number.
pub(super) type Found = (u64, BTreeMap<u32, Standing>);

/// The repairs of one kind since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repaired {
    pub(super) count: u64,
    pub(super) last: String,
    pub(super) last_at: Timestamp,
}

/// The repairs since the start.
pub(super) type Repairs = BTreeMap<RepairKind, Repaired>;

/// What was seen and logged so far.
#[derive(Default)]
pub(super) struct Verifying {
    look: Option<(u64, oneshot::Receiver<BTreeMap<u32, Standing>>)>,
    log: RepairLog,
    failure: Option<String>,
    unfenced: UnfencedAlarm,
    degraded: DegradedAlarm,
}

impl Verifying {
    /// Whether a look is in progress.
    pub(super) const fn is_looking(&self) -> bool {
        self.look.is_some()
    }

    /// Waits for what the look finds; `None` if its thread ended without. Safe to cancel.
    pub(super) async fn found(&mut self) -> Option<Found> {
        let (number, outcome) = self.look.as_mut()?;
        let number = *number;
        let found = outcome.await;
        self.look = None;
        Some((number, found.ok()?))
    }

    /// Begins a look, tries failed fences again, and compares entries.
    pub(super) fn step<D: Datapath>(
        &mut self,
        reconciler: &mut Reconciler<D>,
        shared: &SharedState,
    ) {
        let interfaces = shared.applied().interfaces.clone();
        reconciler.retry_failed(&interfaces);
        let mut failure = None;
        if self.look.is_none() {
            match reconciler.begin_look() {
                Ok((number, look)) => {
                    let (send, outcome) = oneshot::channel();
                    // Fails only if the agent is about to end.
                    tokio::task::spawn_blocking(move || _ = send.send(look()));
                    self.look = Some((number, outcome));
                }
                Err(error) => failure = Some(error.to_string()),
            }
        }
        let repairs = reconciler.verify_entries().unwrap_or_else(|error| {
            failure = Some(error.to_string());
            Vec::new()
        });
        if failure != self.failure {
            if let Some(failure) = &failure {
                warn!("cannot verify what is in force: {failure}");
            }
            self.failure = failure;
        }
        self.show(repairs, reconciler, shared);
    }

    /// Puts right what a look found.
    pub(super) fn finish_look<D: Datapath>(
        &mut self,
        (number, found): Found,
        reconciler: &mut Reconciler<D>,
        shared: &SharedState,
    ) {
        let interfaces = shared.applied().interfaces.clone();
        let repairs = reconciler.finish_look(number, found, &interfaces, Instant::now());
        self.show(repairs, reconciler, shared);
    }

    /// Shows repairs, and whether each workload of this node has a fence.
    pub(super) fn show<D: Datapath>(
        &mut self,
        repairs: Vec<Repair>,
        reconciler: &Reconciler<D>,
        shared: &SharedState,
    ) {
        self.log.log(&repairs, Instant::now());
        let interfaces = shared.applied().interfaces.clone();
        let presences = reconciler.presences(&interfaces);
        self.unfenced.log(&presences);
        self.degraded.log(&presences);
        let mut applied = shared.applied();
        let is_changed = applied.presences != presences || !repairs.is_empty();
        let now = Timestamp::now();
        for repair in repairs {
            let Repair { kind, text } = repair;
            let count = applied.repairs.get(&kind).map_or(0, |it| it.count) + 1;
            let repaired = Repaired {
                count,
                last: text,
                last_at: now,
            };
            applied.repairs.insert(kind, repaired);
        }
        let count = |kind| applied.repairs.get(&kind).map_or(0, |it| it.count);
        let counts = RepairKind::ALL.map(|kind| (kind.name(), count(kind)));
        shared.metrics.set_repairs(counts.into());
        shared.metrics.set_unfenced(unfenced_counts(&presences));
        shared.metrics.set_degraded(degraded_counts(&presences));
        applied.presences = presences;
        drop(applied);
        if is_changed {
            shared.show();
        }
    }
}

/// Which repairs were logged when.
#[derive(Default)]
struct RepairLog(BTreeMap<(RepairKind, String), Instant>);

impl RepairLog {
    fn log(&mut self, repairs: &[Repair], now: Instant) {
        for line in self.lines(repairs, now) {
            warn!("{line}");
        }
    }

    /// What to log about these repairs. Entries of maps share one line.
    fn lines(&mut self, repairs: &[Repair], now: Instant) -> Vec<String> {
        self.0
            .retain(|_, last| now.saturating_duration_since(*last) < LOG_INTERVAL);
        let mut lines = Vec::new();
        for repair in repairs {
            let place = match repair.kind {
                RepairKind::Entry => String::new(),
                _ => repair.text.clone(),
            };
            if let Entry::Vacant(unlogged) = self.0.entry((repair.kind, place)) {
                unlogged.insert(now);
                lines.push(format!("{} (`ringfence status` counts this)", repair.text));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair(kind: RepairKind, text: &str) -> Repair {
        Repair {
            kind,
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_repair_is_logged_once_a_minute_and_entries_together() {
        let (mut log, start) = (RepairLog::default(), Instant::now());
        let repairs = [
            repair(RepairKind::FenceMissing, "a"),
            repair(RepairKind::FenceMissing, "b"),
            repair(RepairKind::Entry, "one"),
            repair(RepairKind::Entry, "another"),
        ];
        assert_eq!(log.lines(&repairs, start).len(), 3);
        assert!(log.lines(&repairs, start + LOG_INTERVAL / 2).is_empty());
        assert_eq!(log.lines(&repairs, start + LOG_INTERVAL).len(), 3);
    }
}
