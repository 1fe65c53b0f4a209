//! Rewrites records under packets; see `cargo xtask race --help`.

use std::process::ExitCode;

use clap::Parser;
use ringfence_testbed::race::{Spec, Storm, run};

/// Run packets on one CPU while another one rewrites the records that decide.
///
/// Exits with 1 if a packet gets a wrong verdict, during the writes or afterwards.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask race", bin_name = "cargo xtask race")]
struct Arguments {
    /// Number of packets with a known verdict, in all storms together.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    packets: u64,
    /// Seed for the order of the writes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only storms whose name contains this: endpoints, addresses, policy, conntrack, everything.
    #[arg(long, value_name = "NAME", default_value = "")]
    storm: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let spec = Spec {
        packets: arguments.packets,
        seed: arguments.seed,
        storms: Storm::ALL
            .into_iter()
            .filter(|storm| storm.name().contains(&arguments.storm))
            .collect(),
    };
    match run(&spec, |storm| println!("{storm}")) {
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
