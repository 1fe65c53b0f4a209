//! Floods a node from some workloads; see `cargo xtask flood --help`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use ringfence_testbed::flood::{Family, Spec, run};

/// Flood a node from some workloads.
///
/// Meanwhile other workloads keep connections open and make new ones. Prints a report for each
/// family; exits with 1 if others are affected, if a denied frame is delivered, a permitted one
/// dropped by the fence, or any frame not accounted for.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask flood", bin_name = "cargo xtask flood")]
struct Arguments {
    /// What to send: families whose name contains this, or `all`. Names: random, own-address,
    /// unanswered, half-open, one-way, assured.
    #[arg(long, value_name = "NAME", default_value = "random")]
    family: String,
    /// Shortest duration in seconds; default 60 for `random`, 5 for the others.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Target rate in frames per second; default 20,000 for `one-way`, 200,000 for the others.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Number of workloads that flood, every other one over IPv6; default 1 for `random`, 8 for the
    /// others.
    #[arg(long, value_name = "N")]
    flooders: Option<usize>,
    /// Number of other workloads, which must not be affected.
    #[arg(long, value_name = "N", default_value_t = 50)]
    bystanders: usize,
    /// Number of their idle connections in all, and of new ones.
    #[arg(long, value_name = "N", default_value_t = 500)]
    connections: usize,
    /// Capacity of conntrack; the agent's default if not given.
    #[arg(long, value_name = "N")]
    conntrack: Option<u32>,
    /// Seed for the random tuples.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match flood(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn flood(arguments: &Arguments) -> Result<bool> {
    let wanted = |family: &Family| {
        arguments.family == "all" || family.name().contains(arguments.family.as_str())
    };
    let families: Vec<_> = Family::ALL.into_iter().filter(wanted).collect();
    ensure!(
        !families.is_empty(),
        "no family's name contains '{}'",
        arguments.family
    );
    let mut good = true;
    for family in families {
        let random = family == Family::Random;
        let rate = if family == Family::OneWay {
            20_000
        } else {
            200_000
        };
        let seconds = if random { 60 } else { 5 };
        let outcome = run(&Spec {
            family,
            flooders: arguments.flooders.unwrap_or(if random { 1 } else { 8 }),
            duration: Duration::from_secs(arguments.seconds.unwrap_or(seconds)),
            rate: arguments.rate.unwrap_or(rate),
            bystanders: arguments.bystanders,
            connections: arguments.connections,
            conntrack: arguments.conntrack,
            seed: arguments.seed,
            receive_buffer: None,
        })?;
        println!("{outcome}");
        good &= outcome.is_good();
    }
    Ok(good)
}
