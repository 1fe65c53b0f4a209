//! The benchmark: what Ringfence costs on this machine.
//!
//! Groups of measurements leave figures behind: `wire` (packets on real interfaces, against the limit
//! and against what would be used instead), `kernel` (the programs alone), `control` and `memory` (the
//! agent), `growth` (with peers, flows and CPUs). `--scale` measures the policy engine alone, on drawn clusters, and needs neither privileges
//! nor a kernel that does anything. What the figures mean, and those of a known machine, are in
//! `docs/performance.md`.

mod arguments;
mod bench_node;
mod bpf;
mod control;
mod cpu;
mod extent;
mod figures;
mod frames;
mod goals;
mod growth;
mod kernel;
mod loaded;
mod memory;
mod report;
mod rng;
mod scale;
mod tool;
mod wire;
mod world;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser as _;
use ringfence_testbed::interrupt;

use self::arguments::{Options, Output};
use self::figures::Figure;

/// Changes of each kind to a drawn cluster, of which so many are enough for a first look.
const DRAWN: usize = 200;
const FEW_DRAWN: usize = 30;

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
    if options.scale {
        let changes = if options.quick { FEW_DRAWN } else { DRAWN };
        return scale::measure(changes);
    }
    if let Some(revision) = &options.against {
        return wire::against::measure(options, revision);
    }
    let figures = groups(options)?;
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

/// Every group that is wanted, one after the other. Of what takes minutes when it is whole, the part
/// that goals are about is measured unless the group is asked for by its name; growth has no such part.
fn groups(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = wire::measure(options)?;
    figures.extend(kernel::measure(options)?);
    if options.wants_of("control") {
        figures.extend(control::measure(options.extent("control"))?);
    }
    if options.wants_of("memory") {
        figures.extend(memory::measure(options.extent("memory"))?);
    }
    if options.names("growth") {
        figures.extend(growth::measure(options.extent("growth"))?);
    }
    Ok(figures)
}
