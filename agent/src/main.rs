//! The `ringfence` binary: parse, run, report.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use ringfence::cli::{self, Cli};

/// An inventory of thousands is many small pieces, and is in force sooner than with glibc's allocator, at the
/// price of memory (docs/performance.md; `cargo xtask bench --metrics control/from-empty,memory`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let code = cli::exit_code(&error);
            if code != 0 {
                // If stderr is gone, too, the exit code has to do.
                let _ = writeln!(std::io::stderr(), "{}", cli::message(&error));
            }
            ExitCode::from(code)
        }
    }
}
