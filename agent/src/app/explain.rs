//! Explanations from the policies in force, with each end's mode and attachment on this node.
//!
//! Invariant: the lock is held only to copy the state.

use std::sync::Arc;

use jiff::Timestamp;

use super::shared_state::{Applied, SharedState};
use crate::{
    model::{EndpointId, WallTime, WorkloadId},
    policy::{
        Explanation, Query, QueryError,
        explain::{Live, Who, WhoKind, explain},
    },
};

/// Explains a flow by the policies in force now.
pub(super) fn in_force(
    shared: &SharedState,
    query: &Query,
    all: bool,
) -> Result<Explanation, QueryError> {
    let (inventory, policies) = {
        let applied = shared.shown();
        (Arc::clone(&applied.inventory), applied.policies_in_force())
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
    let id: WorkloadId = {
        let (namespace, name) = who.name.split_once('/')?;
        WorkloadId::new(namespace, name).ok()?
    };
    let fenced = |published: &Arc<crate::reconcile::Published>| {
        let endpoint = published
            .compiled
            .endpoints
            .get(&EndpointId::of(id.clone()));
        let mut attachments = endpoint.iter().flat_map(|it| &it.attachments);
        attachments.any(|it| published.fenced.contains(&it.ifindex))
    };
    Some(Live {
        namespace: id.namespace.to_string(),
        mode: applied.modes.of(&id.namespace).0,
        attached: applied.published.as_ref().is_some_and(fenced),
    })
}
