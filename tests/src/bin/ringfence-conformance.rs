//! Runs the conformance cases of a directory; see `cargo xtask conformance --help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ringfence_testbed::conformance::{Options, Unreadable, run};
use ringfence_testbed::interrupt;

/// Run the conformance cases of a directory.
///
/// Prints one line per failing cell, one per failed case, and a final line `N passed, M failed`.
/// Exits with 1 if a case failed and with 2 if one cannot be read.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask conformance", bin_name = "cargo xtask conformance")]
struct Arguments {
    /// Directory of the cases, one YAML file each.
    dir: PathBuf,
    /// Only cases whose name contains this text.
    #[arg(long, value_name = "NAME", default_value = "")]
    filter: String,
    /// Evaluate with `ringfence policy eval` instead of on real interfaces; needs no root.
    #[arg(long)]
    offline: bool,
    /// Number of cases run in parallel.
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
}

/// The exit status if cases could not be read or run.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        dir: arguments.dir,
        filter: arguments.filter,
        offline: arguments.offline,
        jobs: arguments.jobs,
    };
    // Before any thread or child is started, so that all of them inherit the signal mask.
    let result = interrupt::watch().and_then(|()| run(&options, std::io::stdout()));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // An error after a signal is a consequence of the signal.
        Err(_) if interrupt::check().is_err() => {
            eprintln!("interrupted; everything the run created has been removed");
            // The exit status that a shell gives a process that ended by SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            match error.downcast_ref::<Unreadable>() {
                Some(unreadable) => eprintln!("{unreadable}"),
                None => eprintln!("error: {error:#}"),
            }
            ExitCode::from(UNUSABLE)
        }
    }
}
