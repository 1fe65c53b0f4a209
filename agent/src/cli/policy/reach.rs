//! `ringfence policy reach`: what a workload can reach, directly or through other workloads.
//!
//! The `policy` module computes it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{load, wall_time};
use crate::cli::InvalidInput;
use crate::cli::output::{print, print_json};
use crate::cli::table::Table;
use crate::model::quote::sanitise;
use crate::model::{PortMatch, WorkloadId};
use crate::policy::reach::{Question, Reach, ReachError, Reached, reach};
use crate::source::value;

#[derive(Debug, Args)]
pub(in crate::cli) struct ReachArguments {
    /// The workload to start from.
    #[arg(long, value_name = "WORKLOAD")]
    from: WorkloadId,
    /// Continue from every reached workload.
    #[arg(long)]
    transitive: bool,
    /// Only flows to this port: tcp/8080, tcp/9000-9010, udp, icmp or a port name.
    #[arg(long, value_name = "PORT", value_parser = value::port_match)]
    port: Option<PortMatch>,
    /// Policy files or directories of them.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    policies: Vec<PathBuf>,
    /// The inventory.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// Evaluate as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: ReachFormat,
}

/// The output format of a reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ReachFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
}

pub(super) fn run(arguments: &ReachArguments) -> Result<ExitCode> {
    let now = wall_time(arguments.now.unwrap_or_else(Timestamp::now))?;
    let reload = match load(&arguments.inventory, &arguments.policies) {
        Ok(reload) => reload,
        Err(code) => return Ok(code),
    };
    let question = Question {
        from: arguments.from.clone(),
        transitive: arguments.transitive,
        port: arguments.port.clone(),
    };
    let found = reach(&reload.inventory, &reload.policies, now, &question);
    let found = found.map_err(|error| match error {
        ReachError::Query(error) => anyhow::Error::from(InvalidInput(error.to_string())),
        other @ ReachError::Exhausted(_) => other.into(),
    })?;
    match arguments.output {
        ReachFormat::Table => print(&text(&found))?,
        ReachFormat::Json => print_json(&found)?,
        ReachFormat::Dot => print(&dot(&found))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(found: &Reach) -> String {
    let mut table = Table::new(&["HOP", "VIA", "TO", "PORTS", "BY"]);
    for reached in &found.reached {
        table.row([
            reached.hop.to_string(),
            reached.via.clone(),
            reached.to.to_string(),
            ports(reached),
            reached.by.join(" + "),
        ]);
    }
    let mut text = if found.reached.is_empty() {
        String::new()
    } else {
        table.render()
    };
    text.push_str(&summary(found));
    text
}

fn ports(reached: &Reached) -> String {
    if reached.declared.is_empty() {
        return reached.ports.clone();
    }
    format!("{} ({})", reached.ports, reached.declared.join(", "))
}

fn summary(found: &Reach) -> String {
    let Reach {
        from,
        workloads,
        direct,
        of,
        ..
    } = found;
    let per_mille = (workloads * 1000).checked_div(*of).unwrap_or(0);
    let share = format!("{}.{}%", per_mille / 10, per_mille % 10);
    format!("{from} reaches {workloads} of {of} workloads ({direct} directly), {share}\n")
}

fn dot(found: &Reach) -> String {
    let mut text = String::from("digraph reach {\n  rankdir=LR;\n  node [shape=box];\n");
    let _ = writeln!(text, "  {} [style=bold];", quoted(&found.from));
    for reached in &found.reached {
        let (via, to) = (quoted(&reached.via), quoted(&reached.to.name));
        let label = quoted(&ports(reached));
        let _ = writeln!(text, "  {via} -> {to} [label={label}];");
    }
    text.push_str("}\n");
    text
}

/// A Graphviz string: backslashes, quotes and control characters are escaped.
fn quoted(text: &str) -> String {
    let escaped = sanitise(text).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphviz_strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\u{1b}"), r#""a\"b\\c\\u{1b}""#);
    }
}
