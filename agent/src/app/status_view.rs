//! The state of the agent as a whole, for `ringfence status`.
//!
//! Invariant: what is not in force is decided in [`super::not_in_force`], here as for readiness.

use std::path::{Path, PathBuf};

use super::{
    not_in_force::NotInForce,
    shared_state::{Applied, SharedState},
    verifying::Repaired,
    views::count,
};
use crate::{
    model::ModeName,
    reconcile::Presence,
    server::view::{
        DropCount, EventCount, KernelStatus, NamespaceMode, RepairView, SourceState, SourceStatus,
        Status, UnfencedView,
    },
    source::{SourceError, kubernetes_api::KUBERNETES},
};

/// The state that is shown now.
pub(super) fn status(shared: &SharedState) -> Status {
    let counters = shared.counters();
    let applied = shared.shown();
    let not_in_force = applied.not_in_force();
    let problems = applied.problems();
    let unfenced = listed(&applied, Presence::why_unfenced);
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").into(),
        node: shared.node.to_string(),
        revision: applied.revision,
        mode_default: applied.modes.default,
        metrics_listen: shared.metrics_listen.clone(),
        ready: not_in_force.is_empty(),
        enforcing: is_enforcing(&applied),
        endpoints: count(applied.presences.len()),
        attached: count(applied.presences.len() - unfenced.len()),
        unfenced,
        degraded: listed(&applied, Presence::why_degraded),
        repairs: repairs(&applied),
        workloads: count(applied.inventory.workloads.len()),
        policies: count(applied.policies_in_force().len()),
        namespaces: namespaces(&applied),
        sources: sources(shared, &problems),
        not_in_force: not_in_force.iter().map(NotInForce::view).collect(),
        errors: problems.iter().map(ToString::to_string).collect(),
        warnings: applied
            .modes
            .unstored()
            .into_iter()
            .chain(applied.modes.warnings())
            .chain(applied.unstored.clone())
            .chain(applied.warnings.iter().map(ToString::to_string))
            .collect(),
        kernel: KernelStatus {
            version: kernel_version(),
            attach: shared.attach.name().into(),
        },
        drops: counters
            .drops
            .iter()
            .filter(|(_, dropped, observed)| dropped + observed > 0)
            .map(|(reason, dropped, observed)| DropCount {
                reason: reason.name().into(),
                dropped: *dropped,
                observed: *observed,
            })
            .collect(),
        events: EventCount {
            written: counters.events_written,
            lost: counters.events_lost,
        },
        uptime_s: shared.started.elapsed().as_secs(),
        last_error: applied
            .failure
            .clone()
            .or_else(|| problems.first().map(ToString::to_string)),
        ..Status::default()
    };
    if let Some(published) = &applied.published {
        let compiled = &published.compiled;
        status.identities = count(compiled.identities.len());
        status.classes = count(compiled.classes);
        status.rules = count(compiled.rules.len());
        status.tables = count(compiled.state.tables.len());
        status.policy_rows = count(compiled.state.rows());
    }
    status
}

fn kernel_version() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The workloads of this node of which this says why something is wrong with their fence.
fn listed(applied: &Applied, why: fn(&Presence) -> Option<String>) -> Vec<UnfencedView> {
    let presences = applied.presences.iter();
    let listed = presences.filter_map(|(workload, presence)| {
        Some(UnfencedView {
            workload: workload.to_string(),
            interface: presence.interface.clone(),
            reason: why(presence)?,
        })
    });
    listed.collect()
}

/// What was put right since the start.
fn repairs(applied: &Applied) -> Vec<RepairView> {
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
fn is_enforcing(applied: &Applied) -> bool {
    let mut presences = applied.presences.iter();
    applied.published.is_some()
        && applied.failure.is_none()
        && presences.all(|(workload, presence)| {
            let (mode, _) = applied.modes.of(&workload.namespace);
            mode == ModeName::Observe || presence.is_in_order()
        })
}

fn namespaces(applied: &Applied) -> Vec<NamespaceMode> {
    let names = applied.inventory.namespaces.keys();
    names
        .map(|name| {
            let (mode, source) = applied.modes.of(name);
            NamespaceMode {
                name: name.to_string(),
                mode,
                source,
            }
        })
        .collect()
}

fn sources(shared: &SharedState, problems: &[SourceError]) -> Vec<SourceStatus> {
    let listed = |kind: &str, paths: &[PathBuf]| {
        paths
            .iter()
            .map(|path| {
                let errors = problems.iter();
                let errors = errors.filter(|error| Path::new(&*error.file).starts_with(path));
                // One with a place says more than one about the whole file.
                let error = errors.max_by_key(|error| error.line > 0);
                let error = error.map(ToString::to_string);
                let path = path.display().to_string();
                let state = if error.is_some() {
                    SourceState::Error
                } else {
                    SourceState::Ok
                };
                SourceStatus {
                    kind: kind.into(),
                    path,
                    state,
                    error,
                }
            })
            .collect::<Vec<_>>()
    };
    let mut sources = listed("inventory", &shared.config.inventory);
    sources.extend(listed("policies", &shared.config.policies));
    if shared.config.kubernetes.is_some() {
        // Its errors have the source's name in place of a file.
        sources.extend(listed("kubernetes", &[PathBuf::from(KUBERNETES.name)]));
    }
    sources
}
