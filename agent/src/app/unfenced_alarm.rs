//! Says in the log which workloads of this node have no fence.
//!
//! What to log, and when, is decided without a clock. Invariants: an interface that is missing is a warning only after
//! [`GRACE`], because workloads and their interfaces come and go one after the other; everything is
//! logged once until it changes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{
    model::WorkloadId,
    reconcile::{Presences, Unfenced},
};

/// How long an interface may be missing without a warning.
const GRACE: Duration = Duration::from_secs(10);

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Info(String),
    Warning(String),
}

struct Seen {
    why: String,
    since: Instant,
    is_warned: bool,
}

/// What was logged.
#[derive(Default)]
pub(super) struct UnfencedAlarm(BTreeMap<WorkloadId, Seen>);

impl UnfencedAlarm {
    /// Logs what is due about these workloads.
    pub(super) fn log(&mut self, presences: &Presences) {
        for line in self.lines(presences, Instant::now()) {
            match line {
                Line::Info(text) => info!("{text}"),
                Line::Warning(text) => warn!("{text}"),
            }
        }
    }

    /// What to log about these workloads now.
    fn lines(&mut self, presences: &Presences, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        self.0
            .retain(|workload, _| presences.contains_key(workload));
        for (workload, presence) in presences {
            let (Some(unfenced), Some(why)) = (presence.unfenced, presence.why_unfenced()) else {
                let seen = self.0.remove(workload);
                if seen.is_some_and(|seen| seen.is_warned) {
                    lines.push(Line::Info(format!("workload {workload} has a fence now")));
                }
                continue;
            };
            let since = |seen: &Seen| (seen.why == why).then_some(seen.since);
            let known = self.0.get(workload).and_then(since);
            let is_due = unfenced != Unfenced::Missing
                || known.is_some_and(|since| now.saturating_duration_since(since) >= GRACE);
            let is_warned = known
                .and(self.0.get(workload))
                .is_some_and(|seen| seen.is_warned);
            let text = format!(
                "workload {workload} has no fence: interface {}: {why}",
                presence.interface
            );
            if is_due && !is_warned {
                lines.push(Line::Warning(text));
            } else if known.is_none() {
                lines.push(Line::Info(text));
            }
            let seen = Seen {
                why,
                since: known.unwrap_or(now),
                is_warned: is_warned || is_due,
            };
            self.0.insert(workload.clone(), seen);
        }
        lines
    }
}

/// Workloads without a fence, by reason.
pub(super) fn unfenced_counts(presences: &Presences) -> Vec<(&'static str, u64)> {
    let unfenced: Vec<Unfenced> = presences.values().filter_map(|it| it.unfenced).collect();
    let count = |reason| unfenced.iter().filter(|it| it.reason() == reason).count() as u64;
    Unfenced::REASONS
        .map(|reason| (reason, count(reason)))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{NamespaceName, WorkloadName},
        reconcile::Presence,
        source::interfaces::Unsuitable,
    };

    fn presences(unfenced: Option<Unfenced>) -> Presences {
        let id = WorkloadId {
            namespace: NamespaceName::new("shop").unwrap(),
            name: WorkloadName::new("a").unwrap(),
        };
        let presence = Presence {
            interface: "rf-a".into(),
            unfenced,
            ..Presence::default()
        };
        [(id, presence)].into()
    }

    fn kinds(lines: &[Line]) -> String {
        let kind = |line: &Line| match line {
            Line::Info(_) => 'i',
            Line::Warning(_) => 'w',
        };
        lines.iter().map(kind).collect()
    }

    #[test]
    fn a_missing_interface_is_a_warning_once_and_only_after_a_while() {
        let (mut alarm, start) = (UnfencedAlarm::default(), Instant::now());
        let missing = presences(Some(Unfenced::Missing));
        let mut at = |now, presences: &Presences| kinds(&alarm.lines(presences, now));
        assert_eq!(at(start, &missing), "i");
        assert_eq!(at(start + GRACE / 2, &missing), "");
        assert_eq!(at(start + GRACE, &missing), "w");
        assert_eq!(at(start + GRACE * 2, &missing), "");
        assert_eq!(at(start + GRACE * 2, &presences(None)), "i");
        assert_eq!(at(start + GRACE * 3, &missing), "i", "from the beginning");
        assert_eq!(
            at(start + GRACE * 3, &presences(None)),
            "",
            "nothing was wrong"
        );
    }

    #[test]
    fn an_unsuitable_interface_is_a_warning_at_once() {
        let (mut alarm, start) = (UnfencedAlarm::default(), Instant::now());
        let refused = presences(Some(Unfenced::Unsuitable(Unsuitable::Loopback)));
        let lines = alarm.lines(&refused, start);
        let [Line::Warning(text)] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert!(text.contains("shop/a") && text.contains("rf-a"), "{text}");
        assert!(alarm.lines(&refused, start + GRACE).is_empty());
        assert!(alarm.lines(&Presences::new(), start).is_empty());
        assert_eq!(
            kinds(&alarm.lines(&refused, start)),
            "w",
            "it is another one"
        );
    }

    #[test]
    fn why_a_fence_cannot_be_attached_is_logged_once_until_it_changes() {
        let (mut alarm, start) = (UnfencedAlarm::default(), Instant::now());
        let mut refused = presences(Some(Unfenced::NotAttached));
        let mut at = |error: &str| {
            for presence in refused.values_mut() {
                presence.error = Some(error.to_owned());
            }
            alarm.lines(&refused, start)
        };
        let lines = at("EEXIST");
        let [Line::Warning(text)] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert!(text.contains("EEXIST"), "{text}");
        assert_eq!(at("EEXIST"), []);
        assert_eq!(kinds(&at("EINVAL")), "w");
    }
}
