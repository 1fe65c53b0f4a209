//! Explanations from the policies in force, with each end's mode and attachment on this node.
//!
//! Invariant: the lock is held only to copy the state.

use jiff::Timestamp;

use super::shared_state::{Applied, SharedState};
use crate::{
    model::{WallTime, WorkloadId},
    policy::{
        Explanation, Query, QueryError,
        explain::{Live, Who, WhoKind, explain},
    },
    reconcile::{Presence, Presences},
};

/// Explains a flow by the policies in force now.
pub(super) fn in_force(
    shared: &SharedState,
    query: &Query,
    all: bool,
) -> Result<Explanation, QueryError> {
    let (inventory, policies) = {
        let applied = shared.shown();
        (applied.inventory_in_force(), applied.policies_in_force())
    };
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let mut explanation = explain(&inventory, &policies, WallTime(now), query, all)?;
    let applied = shared.shown();
    explanation.egress.live = live(&applied, &explanation.from);
    explanation.ingress.live = live(&applied, &explanation.to);
    Ok(explanation)
}

fn live(applied: &Applied, who: &Who) -> Option<Live> {
    if who.kind != WhoKind::Workload {
        return None;
    }
    let (namespace, name) = who.name.split_once('/')?;
    let id = WorkloadId::new(namespace, name).ok()?;
    Some(Live {
        namespace: id.namespace.to_string(),
        mode: applied.modes.of(&id.namespace).0,
        attached: is_attached(&applied.presences, &id),
    })
}

fn is_attached(presences: &Presences, workload: &WorkloadId) -> bool {
    presences.get(workload).is_some_and(Presence::is_fenced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Unfenced;

    fn attached(presence: Option<Presence>) -> bool {
        let workload = WorkloadId::new("shop", "web").unwrap();
        let presence = presence.map(|it| (workload.clone(), it));
        is_attached(&presence.into_iter().collect(), &workload)
    }

    #[test]
    fn a_workload_is_attached_if_each_of_its_interfaces_has_a_fence() {
        let on_all = Presence {
            ifindices: [4, 5].into(),
            ..Presence::default()
        };
        let on_one = Presence {
            unfenced: Some(Unfenced::NotAttached),
            ..on_all.clone()
        };
        assert!(attached(Some(on_all)));
        assert!(!attached(Some(on_one)));
        assert!(!attached(None));
    }
}
