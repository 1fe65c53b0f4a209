//! The policies in force, which are fewer than asked for if the kernel's maps have no room for all.
//!
//! Invariant: a policy without room is an error of the file that declares it, wherever errors are shown.
//! Pure. Which policies have no room is decided by the reconciler.

use std::sync::Arc;

use super::shared_state::Applied;
use crate::{
    model::{Lockdown, PolicySet},
    reconcile::{Published, WithoutRoom},
    source::SourceError,
};

impl Applied {
    /// The policies in force; none before the first pass.
    pub(super) fn policies_in_force(&self) -> Arc<PolicySet> {
        let published = self.published.as_ref();
        published.map_or_else(Arc::default, |published| Arc::clone(&published.policies))
    }

    /// Whose subjects are locked down.
    pub(super) fn locked_in_force(&self) -> &[Lockdown] {
        let published = self.published.as_ref();
        published.map_or(&[], |published| &published.locked)
    }

    /// Everything that is wrong with the sources.
    pub(super) fn problems(&self) -> Vec<SourceError> {
        let without_room = self.published.iter().flat_map(|it| &it.without_room);
        let without_room = without_room.map(problem);
        self.errors.iter().cloned().chain(without_room).collect()
    }
}

/// The policies without room that had room before, as errors of their files.
pub(super) fn newly_without_room(before: Option<&Published>, now: &Published) -> Vec<SourceError> {
    let is_new = |it: &&WithoutRoom| before.is_none_or(|before| !before.without_room.contains(it));
    now.without_room
        .iter()
        .filter(is_new)
        .map(problem)
        .collect()
}

fn problem(without_room: &WithoutRoom) -> SourceError {
    let origin = &without_room.policy.origin;
    SourceError::at_line(&origin.file, origin.line, without_room)
}
