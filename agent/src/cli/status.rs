//! `ringfence status`.
//!
//! Invariants: shows "enforcing" only if the agent reports it; errors and warnings come last, where
//! users look.

use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use super::arguments::{Format, Listing};
use super::table::escape;
use super::{listing, output};
use crate::server::Client;
use crate::server::view::{RepairView, SourceState, Status, UnfencedView};

pub(super) async fn run(client: &Client, how: &Listing) -> Result<()> {
    let response: Value = client.get("/v1/status").await?;
    match how.output {
        Format::Json => output::print_json(&response),
        Format::Table => output::print(&text(&listing::parse(response)?)),
    }
}

fn text(status: &Status) -> String {
    let state = match (status.ready, status.enforcing) {
        (false, _) if status.revision == 0 => "starting: no policy applied yet",
        (false, _) if !status.unfenced.is_empty() => {
            "NOT ready: workloads of this node have no fence"
        }
        (false, _) if !status.degraded.is_empty() => "NOT ready: fences of this node are degraded",
        (false, _) => "NOT ready: changes could not be applied, an older state is in force",
        (true, true) => "ready, enforcing everywhere it should",
        (true, false) => "ready, but NOT enforcing everywhere it should",
    };
    let mut lines = Lines::default();
    lines.add(
        "Ringfence",
        &format!("{} on {}", status.version, status.node),
    );
    lines.add("State", state);
    lines.add("Revision", &status.revision.to_string());
    lines.add("Up", &uptime(status.uptime_s));
    lines.add(
        "Kernel",
        &format!("{}, {}", status.kernel.version, status.kernel.attach),
    );
    lines.add("Metrics", status.metrics_listen.as_deref().unwrap_or("off"));
    lines.add(
        "Endpoints",
        &format!("{} of {} attached", status.attached, status.endpoints),
    );
    for (what, workloads) in [
        ("Unfenced", &status.unfenced),
        ("Degraded", &status.degraded),
    ] {
        for UnfencedView {
            workload,
            interface,
            reason,
        } in workloads
        {
            lines.add(
                what,
                &format!("{workload}: interface {interface}: {reason}"),
            );
        }
    }
    for RepairView {
        what,
        count,
        last,
        last_at,
    } in &status.repairs
    {
        let text = format!("{what}: {count}, the last at {last_at}: {last}");
        lines.add("Repaired", &text);
    }
    let Status {
        workloads,
        identities,
        classes,
        ..
    } = status;
    lines.add(
        "Peers",
        &format!("{workloads} workloads, {identities} identities, {classes} classes"),
    );
    let Status {
        policies,
        rules,
        tables,
        policy_rows,
        ..
    } = status;
    lines.add(
        "Policy",
        &format!("{policies} policies, {rules} rules, {tables} tables, {policy_rows} rows"),
    );
    let modes: Vec<_> = status
        .namespaces
        .iter()
        .map(|known| format!("{} {}", known.name, known.mode))
        .collect();
    lines.add(
        "Modes",
        &format!("{} (others {})", modes.join(", "), status.mode_default),
    );
    for drop in &status.drops {
        let counts = format!("{} dropped, {} observed", drop.dropped, drop.observed);
        lines.add("Drops", &format!("{}: {counts}", drop.reason));
    }
    let events = status.events;
    lines.add(
        "Events",
        &format!("{} written, {} lost", events.written, events.lost),
    );
    for source in &status.sources {
        let state = match source.state {
            SourceState::Ok => "ok",
            SourceState::Error => "error, last good content stays in force",
        };
        lines.add(
            "Source",
            &format!("{} {}: {state}", source.kind, source.path),
        );
        if let Some(error) = &source.error {
            lines.add("Error", error);
        }
    }
    if let Some(error) = &status.last_error {
        lines.add("Error", error);
    }
    for warning in &status.warnings {
        lines.add("Warning", warning);
    }
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:11}{}", format!("{name}:"), escape(value));
    }
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::view::SourceStatus;

    #[test]
    fn status_shows_missing_enforcement_and_errors() {
        let source = SourceStatus {
            kind: "policies".into(),
            path: "shop.toml".into(),
            state: SourceState::Error,
            error: Some("shop.toml:3:1: unknown key\u{1b}[2J".into()),
        };
        let status = Status {
            ready: true,
            sources: vec![source],
            ..Status::default()
        };
        let text = text(&status);
        assert!(text.contains("State:     ready, but NOT enforcing everywhere it should\n"));
        assert!(
            text.contains("Error:     shop.toml:3:1: unknown key\\u{1b}[2J\n"),
            "{text}"
        );
    }

    #[test]
    fn status_shows_workloads_without_a_fence() {
        let unfenced = UnfencedView {
            workload: "shop/a".into(),
            interface: "rf-a".into(),
            reason: "no interface has this name".into(),
        };
        let status = Status {
            revision: 1,
            endpoints: 3,
            attached: 2,
            unfenced: vec![unfenced],
            ..Status::default()
        };
        let text = text(&status);
        for line in [
            "State:     NOT ready: workloads of this node have no fence\n",
            "Endpoints: 2 of 3 attached\n",
            "Unfenced:  shop/a: interface rf-a: no interface has this name\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn status_shows_degraded_fences_and_repairs() {
        let degraded = UnfencedView {
            workload: "shop/a".into(),
            interface: "rf-a".into(),
            reason: "another program runs before".into(),
        };
        let repair = RepairView {
            what: "fence-missing".into(),
            count: 2,
            last: "it was not attached".into(),
            last_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let status = Status {
            revision: 1,
            degraded: vec![degraded],
            repairs: vec![repair],
            ..Status::default()
        };
        let text = text(&status);
        for line in [
            "State:     NOT ready: fences of this node are degraded\n",
            "Degraded:  shop/a: interface rf-a: another program runs before\n",
            "Repaired:  fence-missing: 2, the last at 1970-01-01T00:00:00Z: it was not attached\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn uptimes() {
        for (seconds, text) in [(5, "5s"), (65, "1m5s"), (7260, "2h1m"), (90_000, "1d1h")] {
            assert_eq!(uptime(seconds), text);
        }
    }
}
