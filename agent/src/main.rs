//! The `ringfence` binary: parse, run, report.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use ringfence::cli::{self, Cli};

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
