//! The policies in force, which are fewer than asked for if the kernel's maps have no room for all.
//!
//! Invariant: a policy without room is an error of the file that declares it, wherever errors are shown, and so are
//! Services without room, of the API. Pure. What has no room is decided by the reconciler.

use std::sync::Arc;

use super::shared_state::Applied;
use crate::{
    model::{Inventory, Lockdown, NamespaceName, PolicySet},
    reconcile::{Published, WithoutRoom},
    source::{SourceError, kubernetes_api::KUBERNETES},
};

impl Applied {
    /// The policies in force; none before the first pass.
    pub(super) fn policies_in_force(&self) -> Arc<PolicySet> {
        let published = self.published.as_ref();
        published.map_or_else(Arc::default, |published| Arc::clone(&published.policies))
    }

    /// The inventory in force; the one that sources deliver before the first pass.
    pub(super) fn inventory_in_force(&self) -> Arc<Inventory> {
        let published = self.published.as_ref();
        Arc::clone(published.map_or(&self.inventory, |published| &published.inventory))
    }

    /// Whose subjects are locked down.
    pub(super) fn locked_in_force(&self) -> &[Lockdown] {
        let published = self.published.as_ref();
        published.map_or(&[], |published| &published.locked)
    }

    /// Everything that is wrong with the sources.
    pub(super) fn problems(&self) -> Vec<SourceError> {
        let published = self.published.as_deref();
        let without_room = published.into_iter().flat_map(all_without_room);
        self.errors.iter().cloned().chain(without_room).collect()
    }
}

/// What has no room and had it before, as errors of its source.
pub(super) fn newly_without_room(before: Option<&Published>, now: &Published) -> Vec<SourceError> {
    let known: Vec<SourceError> = before.into_iter().flat_map(all_without_room).collect();
    let now = all_without_room(now).into_iter();
    now.filter(|it| !known.contains(it)).collect()
}

fn all_without_room(published: &Published) -> Vec<SourceError> {
    let policies = published.without_room.iter().map(problem);
    let services = published.services_without_room.iter().map(no_backends);
    policies.chain(services).collect()
}

fn no_backends(namespace: &NamespaceName) -> SourceError {
    SourceError::whole_file(
        KUBERNETES.name,
        format!(
            "Services of the namespace {namespace} do not fit into the kernel's maps: what workloads with egress policy \
             send to them is denied; expected fewer ports and Services there, or a larger `policy` under [maps] in the \
             configuration"
        ),
    )
}

fn problem(without_room: &WithoutRoom) -> SourceError {
    let origin = &without_room.policy.origin;
    SourceError::at_line(&origin.file, origin.line, without_room)
}
