//! The benchmark: what Ringfence costs on this machine.
//!
//! Groups of measurements leave figures behind: `wire` (packets on real interfaces, against the limit
//! and against what would be used instead), `kernel` (the programs alone), `control` and `memory` (the
//! agent). `--scale` measures the policy engine alone, on drawn clusters, and needs neither privileges
//! nor a kernel that does anything. What the figures mean, and those of a known machine, are in
//! `docs/performance.md`.

mod arguments;
mod bpf;
mod change;
mod figures;
mod frames;
mod goals;
mod kernel;
mod process;
mod report;
mod scale;
mod wire;
mod world;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser as _;
use ringfence_testbed::interrupt;

use self::arguments::{Options, Output};
use self::figures::Figure;

/// How often to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Policy changes.
    pub(crate) changes: usize,
    /// Starts of the agent.
    pub(crate) starts: usize,
    /// Changes of each kind to a drawn cluster.
    pub(crate) scale: usize,
}

const FULL: Effort = Effort {
    changes: 200,
    starts: 7,
    scale: 200,
};
const QUICK: Effort = Effort {
    changes: 40,
    starts: 3,
    scale: 30,
};

fn main() -> ExitCode {
    // `cargo xtask bench -- --quick` and `cargo xtask bench --quick` are the same.
    let options = Options::parse_from(std::env::args_os().filter(|argument| argument != "--"));
    // Before any other thread or child exists: all of them must leave signals to the watcher.
    let done = interrupt::watch().and_then(|()| run(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::check().is_err() => ExitCode::from(130),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.output == Output::Json {
        report::keep_stdout();
    }
    let effort = if options.quick { QUICK } else { FULL };
    if options.scale {
        return scale::measure(effort.scale);
    }
    let figures = groups(options, effort)?;
    if options.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    if options.check {
        check(&figures, options)?;
    }
    Ok(())
}

/// Compares with the goals; an error names those missed.
fn check(figures: &[Figure], options: &Options) -> Result<()> {
    let outcomes = goals::compare(figures, |figure| {
        let metric = figure.rsplit_once('/').map_or(figure, |(metric, _)| metric);
        options.wants(metric)
    });
    report::heading("Goals");
    let said = |met: bool| if met { "met" } else { "MISSED" }.to_owned();
    let rows = outcomes.iter().map(|outcome| {
        let [measured, goal, stretch] = outcome.row.clone();
        let stretched = outcome.stretched.map_or_else(String::new, said);
        let name = outcome.name.clone();
        vec![name, measured, goal, said(outcome.met), stretch, stretched]
    });
    let head = ["", "measured", "goal", "", "stretch", ""];
    report::table(&head, &rows.collect::<Vec<_>>());
    let missed = outcomes.iter().filter(|outcome| !outcome.met);
    let missed: Vec<&str> = missed.map(|outcome| outcome.name.as_str()).collect();
    ensure!(missed.is_empty(), "goals missed: {}", missed.join(", "));
    Ok(())
}

/// Every group that is wanted, one after the other.
fn groups(options: &Options, effort: Effort) -> Result<Vec<Figure>> {
    let mut figures = wire::measure(options)?;
    figures.extend(kernel::measure(options)?);
    if options.wants("control/") {
        let mut bench = process::Bench::start()?;
        change::measure(&mut bench, effort)?;
        process::memory(&bench, effort.changes)?;
        process::starts(&mut bench, effort)?;
    }
    Ok(figures)
}
