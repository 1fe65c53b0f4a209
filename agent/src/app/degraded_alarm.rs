//! Says in the log which fences may not do what was asked for: once when it begins or changes, and once
//! when it ends.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::{
    model::WorkloadId,
    reconcile::{Degraded, Presence, Presences},
};

/// What was logged.
#[derive(Default)]
pub(super) struct DegradedAlarm(BTreeMap<WorkloadId, Degraded>);

impl DegradedAlarm {
    /// Logs what has changed about these workloads.
    pub(super) fn log(&mut self, presences: &Presences) {
        for (workload, presence) in presences {
            let Presence { interface, .. } = presence;
            match self.changed(workload, presence.degraded.as_ref()) {
                Some(true) => {
                    let degraded = presence.degraded.iter();
                    for degraded in degraded {
                        warn!(
                            "the fence of {workload} is degraded: interface {interface}: {degraded}"
                        );
                    }
                }
                Some(false) => info!("the fence of {workload} is in order again"),
                None => {}
            }
        }
        self.0
            .retain(|workload, _| presences.contains_key(workload));
    }

    /// Whether a fence is degraded in another way now, or not any more; `None` if nothing has changed.
    fn changed(&mut self, workload: &WorkloadId, degraded: Option<&Degraded>) -> Option<bool> {
        let before = match degraded {
            Some(degraded) => self.0.insert(workload.clone(), degraded.clone()),
            None => self.0.remove(workload),
        };
        (before.as_ref() != degraded).then_some(degraded.is_some())
    }
}

/// Degraded fences, by reason.
pub(super) fn degraded_counts(presences: &Presences) -> Vec<(&'static str, u64)> {
    let degraded = || presences.values().filter_map(|it| it.degraded.as_ref());
    let count = |reason| degraded().filter(|it| it.reason() == reason).count() as u64;
    Degraded::REASONS
        .map(|reason| (reason, count(reason)))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NamespaceName, WorkloadName};

    #[test]
    fn each_change_is_said_once() {
        let workload = WorkloadId {
            namespace: NamespaceName::new("shop").unwrap(),
            name: WorkloadName::new("a").unwrap(),
        };
        let behind = |program| Degraded::NotFirst {
            hook: "from_workload",
            program,
        };
        let mut alarm = DegradedAlarm::default();
        let mut at = |degraded: Option<Degraded>| alarm.changed(&workload, degraded.as_ref());
        assert_eq!(at(None), None);
        assert_eq!(at(Some(behind(1))), Some(true));
        assert_eq!(at(Some(behind(1))), None);
        assert_eq!(at(Some(behind(2))), Some(true));
        assert_eq!(at(None), Some(false));
        assert_eq!(at(None), None);
    }

    #[test]
    fn counts_have_every_reason() {
        let presence = Presence {
            degraded: Some(Degraded::Unverified(String::new())),
            ..Presence::default()
        };
        let workload = WorkloadId {
            namespace: NamespaceName::new("shop").unwrap(),
            name: WorkloadName::new("a").unwrap(),
        };
        let counts = degraded_counts(&[(workload, presence)].into());
        assert_eq!(counts, [("not-first", 0), ("unverified", 1)]);
    }
}
