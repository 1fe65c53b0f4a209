//! `ringfence policy diff`: which flows change their verdict between two sets of policies.
//!
//! Invariant: exits with 0 if nothing changes, 1 if something does, 2 if a file is invalid. The
//! `policy` module compares.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use super::{load, wall_time};
use crate::cli::arguments::{Format, Listing};
use crate::cli::output::{print, print_json};
use crate::cli::table::Table;
use crate::policy::difference::{Difference, Said, Version, difference};
use crate::source::Reload;

/// The most groups that a cell names.
const NAMED: usize = 3;

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArguments {
    /// The old policies: a file or a directory of files.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The new policies.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// The inventory.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// The new inventory, if it differs.
    #[arg(long, value_name = "FILE")]
    inventory_new: Option<PathBuf>,
    /// Evaluate as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    #[command(flatten)]
    listing: Listing,
}

pub(super) fn run(arguments: &DiffArguments) -> Result<ExitCode> {
    let now = wall_time(arguments.now.unwrap_or_else(Timestamp::now))?;
    let after = arguments.inventory_new.as_ref();
    let after = after.unwrap_or(&arguments.inventory);
    let old = match load(&arguments.inventory, std::slice::from_ref(&arguments.old)) {
        Ok(old) => old,
        Err(code) => return Ok(code),
    };
    let new = match load(after, std::slice::from_ref(&arguments.new)) {
        Ok(new) => new,
        Err(code) => return Ok(code),
    };
    let found = difference(version(&old), version(&new), now)?;
    match arguments.listing.output {
        Format::Json => print_json(&found)?,
        Format::Table => print(&text(&found))?,
    }
    Ok(ExitCode::from(u8::from(!found.changes.is_empty())))
}

fn version(reload: &Reload) -> Version<'_> {
    Version {
        inventory: &reload.inventory,
        policies: &reload.policies,
    }
}

fn text(found: &Difference) -> String {
    let mut text = String::new();
    if !found.changes.is_empty() {
        let mut table = Table::new(&["FROM", "TO", "PORTS", "CHANGE", "BEFORE", "AFTER"]);
        for change in &found.changes {
            table.row([
                names(found, &change.from),
                names(found, &change.to),
                change.ports.clone(),
                format!("{} → {}", change.old.verdict, change.new.verdict),
                deciders(&change.old),
                deciders(&change.new),
            ]);
        }
        text = table.render();
    }
    text.push_str(&summary(found));
    text
}

fn names(found: &Difference, places: &[usize]) -> String {
    let mut names: Vec<String> = places
        .iter()
        .take(NAMED)
        .filter_map(|place| found.groups.get(*place))
        .map(ToString::to_string)
        .collect();
    if places.len() > NAMED {
        names.push(format!("{} more groups", places.len() - NAMED));
    }
    names.join("; ")
}

fn deciders(said: &Said) -> String {
    said.by.join(" + ")
}

fn summary(found: &Difference) -> String {
    let Difference {
        opened,
        closed,
        kinds,
        workloads,
        not_compared,
        ..
    } = found;
    let left = if *not_compared == 0 {
        String::new()
    } else {
        format!("; {not_compared} workloads are in one inventory only")
    };
    let compared = format!("{workloads} workloads in {kinds} groups compared{left}");
    if found.changes.is_empty() {
        format!("no verdict changes; {compared}\n")
    } else {
        format!(
            "{} changes: {opened} pairs of groups gain flows, {closed} lose flows; {compared}\n",
            found.changes.len()
        )
    }
}
