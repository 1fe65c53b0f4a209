//! Floods a node from one endpoint; see `cargo xtask flood --help`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringfence_testbed::flood::{Spec, run};

/// Flood a node from one endpoint with random tuples.
///
/// Others keep connections and open new ones meanwhile. Exits with 1 if they noticed, if anything
/// was delivered that policy denies, or if a frame is unaccounted for.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask flood", bin_name = "cargo xtask flood")]
struct Arguments {
    /// For how long.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Frames per second to aim at.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    rate: u32,
    /// Endpoints that must not notice.
    #[arg(long, value_name = "N", default_value_t = 50)]
    bystanders: usize,
    /// Idle connections of each of them.
    #[arg(long, value_name = "N", default_value_t = 10)]
    connections: usize,
    /// Seed of the random tuples.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let spec = Spec {
        duration: Duration::from_secs(arguments.seconds),
        rate: arguments.rate,
        bystanders: arguments.bystanders,
        connections: arguments.connections,
        seed: arguments.seed,
    };
    match run(&spec) {
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
