//! Floods a node from one endpoint; see `cargo xtask flood --help`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringfence_testbed::flood::{Spec, run};

/// Flood a node with frames of random tuples from one endpoint.
///
/// Meanwhile other endpoints keep connections open and make new ones. Exits with 1 if they are
/// affected, if a denied frame is delivered, or if a frame is not accounted for.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask flood", bin_name = "cargo xtask flood")]
struct Arguments {
    /// Duration in seconds.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Target rate in frames per second.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    rate: u32,
    /// Number of other endpoints, which must not be affected.
    #[arg(long, value_name = "N", default_value_t = 50)]
    bystanders: usize,
    /// Number of idle connections of each of these endpoints.
    #[arg(long, value_name = "N", default_value_t = 10)]
    connections: usize,
    /// Seed for the random tuples.
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
