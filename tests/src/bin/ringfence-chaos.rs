//! Kills, upgrades and faults under traffic; see `cargo xtask chaos --help`.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use ringfence_testbed::chaos::{TrafficSpec, faults, kills, upgrades};
use ringfence_testbed::interrupt;

/// Kill the agent, replace it by another build, or break what is around it, under traffic.
///
/// Exits with 1 if anything denied is delivered, a connection is lost, permitted traffic stalls for more
/// than a second, or the agent does not become ready again.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos", bin_name = "cargo xtask chaos")]
struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// SIGKILL at random moments of every phase of the agent's life
    Kills {
        /// Number of kills
        #[arg(long, value_name = "N", default_value_t = 500)]
        kills: u32,
        /// Least number of kills in each phase
        #[arg(long, value_name = "N", default_value_t = 20)]
        least: u32,
        /// Seed of phases and moments
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Upgrades and downgrades between two layouts, with a revocation each
    Upgrades {
        /// Number of upgrades and downgrades
        #[arg(long, value_name = "N", default_value_t = 20)]
        changes: u16,
        #[command(flatten)]
        common: Common,
    },
    /// Faults of pins, state, policy files, interfaces, clients and scheduling
    Faults {
        /// Only faults whose name contains this
        #[arg(long, value_name = "NAME", default_value = "")]
        fault: String,
        /// How long each lasts, in seconds
        #[arg(long, value_name = "N", default_value_t = 10)]
        seconds: u64,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// TCP connections that stay open, half of them idle
    #[arg(long, value_name = "N", default_value_t = 100)]
    connections: usize,
    /// Workloads of other nodes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    remote: usize,
    /// Seconds of traffic before anything happens, for comparison
    #[arg(long, value_name = "N", default_value_t = 10)]
    control: u64,
}

impl Common {
    const fn traffic(&self, opened_within: Duration) -> TrafficSpec {
        TrafficSpec {
            connections: self.connections,
            control: Duration::from_secs(self.control),
            opened_within,
        }
    }
}

/// A lost SYN comes again after a second.
const AT_ONCE: Duration = Duration::from_millis(950);
/// The reply to a SYN of the milliseconds between the copies is lost (ADR 17).
const SENT_AGAIN: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    // Before any thread or child is started, so that all of them inherit the signal mask.
    let outcome = interrupt::watch().and_then(|()| chaos(Arguments::parse().kind));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chaos(kind: Kind) -> Result<bool> {
    let report = |line: &str| println!("{line}");
    match kind {
        Kind::Kills {
            kills,
            least,
            seed,
            common,
        } => {
            let spec = kills::Spec {
                kills,
                least,
                seed,
                remote: common.remote,
                traffic: common.traffic(AT_ONCE),
                binary: None,
            };
            let outcome = kills::run(&spec, report)?;
            Ok(show(
                &outcome,
                outcome.is_good() && outcome.traffic.is_in_time(),
            ))
        }
        Kind::Upgrades { changes, common } => {
            let spec = upgrades::Spec {
                changes,
                remote: common.remote,
                traffic: common.traffic(SENT_AGAIN),
            };
            let outcome = upgrades::run(&spec, report)?;
            Ok(show(
                &outcome,
                outcome.is_good() && outcome.traffic.is_in_time(),
            ))
        }
        Kind::Faults {
            fault,
            seconds,
            common,
        } => {
            let all = faults::Fault::ALL.into_iter();
            let wanted: Vec<_> = all.filter(|f| f.name().contains(&fault)).collect();
            ensure!(!wanted.is_empty(), "no fault's name contains '{fault}'");
            let spec = faults::Spec {
                faults: wanted,
                lasting: Duration::from_secs(seconds),
                remote: common.remote,
                traffic: common.traffic(AT_ONCE),
            };
            let outcome = faults::run(&spec, report)?;
            Ok(show(
                &outcome,
                outcome.is_good() && outcome.traffic.is_in_time(),
            ))
        }
    }
}

fn show(outcome: &impl Display, is_good: bool) -> bool {
    println!("{outcome}");
    is_good
}
