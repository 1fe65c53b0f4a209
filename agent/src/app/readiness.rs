//! Whether everything that this node was asked for is in force, and what is not.
//!
//! Pure. Invariant: a node with a workload whose fence is missing, or may not do what was asked for, is
//! not ready.

use super::{shared_state::Applied, verifying::Repaired};
use crate::{
    model::ModeName,
    reconcile::Presence,
    server::view::{RepairView, UnfencedView},
};

/// What of the desired state is not in force; `None` if all of it is.
pub(super) fn not_in_force(applied: &Applied) -> Option<String> {
    if let Some(failure) = &applied.failure {
        return Some(failure.clone());
    }
    if applied.published.is_none() {
        return Some("no policy applied yet".into());
    }
    let (all, absent) = (applied.presences.len(), unfenced(applied).count());
    let (what, first) = match unfenced(applied).next() {
        Some(first) => (format!("{absent} of {all} workloads have no fence"), first),
        None => {
            let first = degraded(applied).next()?;
            let count = degraded(applied).count();
            (format!("{count} of {all} fences are degraded"), first)
        }
    };
    let UnfencedView {
        workload,
        interface,
        reason,
    } = first;
    Some(format!(
        "{what}; the first is {workload}: interface {interface}: {reason}"
    ))
}

pub(super) fn unfenced(applied: &Applied) -> impl Iterator<Item = UnfencedView> {
    applied.presences.iter().filter_map(|(workload, presence)| {
        Some(UnfencedView {
            workload: workload.to_string(),
            interface: presence.interface.clone(),
            reason: presence.why_unfenced()?,
        })
    })
}

/// The fences that may not do what was asked for.
pub(super) fn degraded(applied: &Applied) -> impl Iterator<Item = UnfencedView> {
    let degraded = |presence: &Presence| Some(presence.degraded.as_ref()?.to_string());
    applied
        .presences
        .iter()
        .filter_map(move |(workload, presence)| {
            Some(UnfencedView {
                workload: workload.to_string(),
                interface: presence.interface.clone(),
                reason: degraded(presence)?,
            })
        })
}

/// What was put right since the start.
pub(super) fn repairs(applied: &Applied) -> Vec<RepairView> {
    let repairs = applied.repairs.iter().map(|(kind, repaired)| {
        let Repaired {
            count,
            last,
            last_at,
        } = repaired.clone();
        RepairView {
            what: kind.name().into(),
            count,
            last,
            last_at,
        }
    });
    repairs.collect()
}

/// Whether every workload that should enforce is fenced: all but those in `observe`.
pub(super) fn is_enforcing(applied: &Applied) -> bool {
    let mut presences = applied.presences.iter();
    applied.published.is_some()
        && applied.failure.is_none()
        && presences.all(|(workload, presence)| {
            let (mode, _) = applied.modes.of(&workload.namespace);
            mode == ModeName::Observe || presence.is_in_order()
        })
}
