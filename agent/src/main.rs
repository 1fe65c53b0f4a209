//! The `ringfence` binary: parses the command line, runs the command, prints errors.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use ringfence::cli::{self, Cli};

/// An inventory with thousands of workloads is many small allocations. It is in force sooner with
/// mimalloc than with glibc's allocator, at the price of more memory (docs/performance.md;
/// `cargo xtask bench --metrics control/from-empty,memory`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let code = cli::exit_code(&error);
            if code != 0 {
                // If stderr is closed too, only the exit code reports the error.
                let _ = writeln!(std::io::stderr(), "{}", cli::message(&error));
            }
            ExitCode::from(code)
        }
    }
}
