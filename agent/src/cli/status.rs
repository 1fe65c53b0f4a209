//! `ringfence status`.
//!
//! Invariants: the first line says how many namespaces are in each mode, and "ready" only if everything
//! that was asked for is in force; each error is shown once; errors and warnings come last, where users
//! look. The exit code is 1 while something is not in force or a source has an error.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::arguments::{Format, Listing};
use super::table::escape;
use super::{listing, output};
use crate::model::ModeName;
use crate::server::Client;
use crate::server::view::{
    ModeSource, NamespaceMode, NotInForceView, RepairView, SourceState, Status,
};

pub(super) async fn run(client: &Client, how: &Listing) -> Result<ExitCode> {
    let response: Value = client.get("/v1/status").await?;
    let status: Status = listing::parse(response.clone())?;
    match how.output {
        Format::Json => output::print_json(&response),
        Format::Table => output::print(&text(&status)),
    }?;
    Ok(exit_code(&status))
}

fn exit_code(status: &Status) -> ExitCode {
    if status.ready && status.errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Ready or not, and how many namespaces are in each mode.
fn state(status: &Status) -> String {
    let modes = modes(&status.namespaces);
    match status.not_in_force.len() {
        _ if status.ready => format!("ready: {modes}"),
        // The agent is older than this command, or about to be ready.
        0 => format!("NOT ready: {modes}"),
        1 => format!("NOT ready, 1 thing asked for is not in force: {modes}"),
        count => format!("NOT ready, {count} things asked for are not in force: {modes}"),
    }
}

fn modes(namespaces: &[NamespaceMode]) -> String {
    let mut parts = Vec::new();
    for (mode, one, many) in [
        (ModeName::Enforce, "enforces", "enforce"),
        (ModeName::Observe, "observes", "observe"),
        (ModeName::Lockdown, "lockdown", "lockdown"),
    ] {
        let count = namespaces.iter().filter(|it| it.mode == mode).count();
        let verb = if count == 1 { one } else { many };
        match (count, parts.is_empty()) {
            (0, _) => {}
            (1, true) => parts.push(format!("1 namespace {verb}")),
            (_, true) => parts.push(format!("{count} namespaces {verb}")),
            (_, false) => parts.push(format!("{count} {verb}")),
        }
    }
    if parts.is_empty() {
        return "no namespaces".into();
    }
    parts.join(", ")
}

fn text(status: &Status) -> String {
    let mut lines = Lines::default();
    lines.add("State", &state(status));
    lines.add(
        "Ringfence",
        &format!("{} on {}", status.version, status.node),
    );
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
        .map(|known| format!("{} {}{}", known.name, known.mode, origin(known.source)))
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
            SourceState::Error => "error, see below",
        };
        lines.add(
            "Source",
            &format!("{} {}: {state}", source.kind, source.path),
        );
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
    for NotInForceView { kind, text } in &status.not_in_force {
        lines.add(&capitalised(kind), text);
    }
    for error in &status.errors {
        lines.add("Error", error);
    }
    for warning in &status.warnings {
        lines.add("Warning", warning);
    }
    lines.0
}

/// What a mode comes from, unless that is the configuration.
const fn origin(source: ModeSource) -> &'static str {
    match source {
        ModeSource::Config => "",
        ModeSource::Set => " (set here)",
        ModeSource::Floor => " (floor)",
        ModeSource::Label => " (label)",
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.0,
            "{:11}{}",
            format!("{}:", escape(name)),
            escape(value)
        );
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

    fn namespace(mode: ModeName) -> NamespaceMode {
        NamespaceMode {
            name: "shop".into(),
            mode,
            source: ModeSource::Config,
        }
    }

    #[test]
    fn each_mode_is_shown_with_its_origin() {
        let named = |name: &str, source| NamespaceMode {
            name: name.into(),
            mode: ModeName::Enforce,
            source,
        };
        let status = Status {
            namespaces: vec![
                named("a", ModeSource::Config),
                named("b", ModeSource::Set),
                named("c", ModeSource::Floor),
                named("d", ModeSource::Label),
            ],
            ..Status::default()
        };
        let line = "Modes:     a enforce, b enforce (set here), c enforce (floor), d enforce (label) (others \
                    observe)\n";
        let shown = text(&status);
        assert!(shown.contains(line), "{shown}");
    }

    #[test]
    fn an_error_is_shown_once_and_makes_the_exit_code_1() {
        let error = "shop.toml:3:1: unknown key\u{1b}[2J";
        let source = SourceStatus {
            kind: "policies".into(),
            path: "shop.toml".into(),
            state: SourceState::Error,
            error: Some(error.into()),
        };
        let mut status = Status {
            ready: true,
            namespaces: vec![namespace(ModeName::Enforce)],
            sources: vec![source],
            errors: vec![error.into()],
            last_error: Some(error.into()),
            ..Status::default()
        };
        let shown = text(&status);
        assert!(
            shown.starts_with("State:     ready: 1 namespace enforces\n"),
            "{shown}"
        );
        let line = "Error:     shop.toml:3:1: unknown key\\u{1b}[2J\n";
        assert_eq!(shown.matches(line).count(), 1, "{shown}");
        assert_eq!(shown.matches("unknown key").count(), 1, "{shown}");
        assert_eq!(exit_code(&status), ExitCode::FAILURE);
        status.errors.clear();
        assert_eq!(exit_code(&status), ExitCode::SUCCESS);
    }

    #[test]
    fn what_is_not_in_force_is_shown_and_makes_the_exit_code_1() {
        let unfenced = NotInForceView {
            kind: "unfenced".into(),
            text: "shop/a: interface rf-a: no interface has this name".into(),
        };
        let status = Status {
            revision: 1,
            endpoints: 3,
            attached: 2,
            namespaces: vec![namespace(ModeName::Observe), namespace(ModeName::Observe)],
            not_in_force: vec![unfenced],
            ..Status::default()
        };
        let text = text(&status);
        for line in [
            "State:     NOT ready, 1 thing asked for is not in force: 2 namespaces observe\n",
            "Endpoints: 2 of 3 attached\n",
            "Unfenced:  shop/a: interface rf-a: no interface has this name\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert_eq!(exit_code(&status), ExitCode::FAILURE);
    }

    #[test]
    fn the_first_line_has_the_modes() {
        use ModeName::{Enforce, Lockdown, Observe};
        for (of, shown) in [
            (
                &[Enforce, Observe, Enforce, Lockdown, Enforce, Observe][..],
                "3 namespaces enforce, 2 observe, 1 lockdown",
            ),
            (&[Observe], "1 namespace observes"),
            (&[Lockdown, Lockdown], "2 namespaces lockdown"),
            (&[Observe, Enforce], "1 namespace enforces, 1 observes"),
            (&[], "no namespaces"),
        ] {
            let namespaces: Vec<_> = of.iter().map(|mode| namespace(*mode)).collect();
            assert_eq!(modes(&namespaces), shown);
        }
    }

    #[test]
    fn status_shows_degraded_fences_and_repairs() {
        let degraded = NotInForceView {
            kind: "degraded".into(),
            text: "shop/a: interface rf-a: another program runs before".into(),
        };
        let repair = RepairView {
            what: "fence-missing".into(),
            count: 2,
            last: "it was not attached".into(),
            last_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let status = Status {
            revision: 1,
            not_in_force: vec![degraded],
            repairs: vec![repair],
            ..Status::default()
        };
        let text = text(&status);
        for line in [
            "State:     NOT ready, 1 thing asked for is not in force: no namespaces\n",
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
