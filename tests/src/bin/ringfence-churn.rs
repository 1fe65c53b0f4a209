//! Lets workloads, namespaces and policies come and go; see `cargo xtask churn --help`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringfence_testbed::churn::{Spec, run};

/// Let workloads, namespaces and policies come and go under traffic.
///
/// Exits with 1 if anything that they used is still held afterwards, if a packet gets a wrong
/// verdict, or if a publish fails.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask churn", bin_name = "cargo xtask churn")]
struct Arguments {
    /// Number of workloads that live, about a thousand at a time.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    lives: u64,
    /// Number of edits of policies.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    edits: u64,
    /// Number of namespaces that live.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    namespaces: u64,
    /// Seconds in which everything must be freed after the last life.
    #[arg(long, value_name = "N", default_value_t = 120)]
    settling: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let spec = Spec {
        lives: arguments.lives,
        edits: arguments.edits,
        namespaces: arguments.namespaces,
        settling: Duration::from_secs(arguments.settling),
    };
    match run(&spec, |progress| println!("{progress}")) {
        Ok(outcome) => {
            println!("{outcome}");
            if outcome.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
