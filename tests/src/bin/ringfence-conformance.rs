//! Runs a folder of conformance cases; see `cargo xtask conformance --help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ringfence_testbed::conformance::{Options, Unreadable, run};
use ringfence_testbed::interrupt;

/// Play every conformance case of a folder.
///
/// Prints one line for each failing cell, one for each failed case, and last `N passed, M failed`.
/// Exits with 1 if a case failed and with 2 if one cannot be read.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask conformance", bin_name = "cargo xtask conformance")]
struct Arguments {
    /// The folder that holds the cases, one YAML file each.
    dir: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    filter: String,
    /// Through `ringfence policy eval` instead of on the wire; needs no root.
    #[arg(long)]
    offline: bool,
    /// How many cases are played at once.
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
}

/// The exit status when nothing could be judged.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        dir: arguments.dir,
        filter: arguments.filter,
        offline: arguments.offline,
        jobs: arguments.jobs,
    };
    // Before any other thread or child exists: all of them must leave signals to the watcher.
    let played = interrupt::watch().and_then(|()| run(&options, std::io::stdout()));
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whatever failed after a signal failed because of it.
        Err(_) if interrupt::check().is_err() => {
            eprintln!("interrupted; everything the runner made has been removed");
            // As a shell reports a process that ended by SIGINT.
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
