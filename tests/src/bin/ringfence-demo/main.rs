//! The demo: a small shop, from open to fenced, in under a minute.
//!
//! It prints a few short sections and ends with one line of totals. It fails unless every
//! legitimate request succeeded and every intrusion under enforcement failed. Everything it creates
//! is removed at the end, also after Ctrl-C. It is not a benchmark.

mod clients;
mod connection;
mod discovery;
mod fencing;
mod intrusion;
mod observed;
mod print;
mod scenario;
mod shop;
mod totals;

use std::process::ExitCode;

use ringfence_testbed::interrupt;

fn main() -> ExitCode {
    // Before any thread or child is started, so that all of them inherit the signal mask.
    let result = interrupt::watch().and_then(|()| scenario::run());
    match result {
        Ok(totals) => {
            println!("{totals}");
            if totals.as_claimed() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        // An error after a signal is a consequence of the signal.
        Err(_) if interrupt::check().is_err() => {
            eprintln!("\ndemo: interrupted; everything it created has been removed");
            // The exit status that a shell gives a process that ended by SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
