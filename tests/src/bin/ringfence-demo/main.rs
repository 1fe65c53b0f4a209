//! The demo: a small shop, from open to fenced, in under a minute.
//!
//! It prints what happens in a few short sections and ends with one line of totals. It fails
//! unless every legitimate request succeeded and every intrusion under enforcement failed. On the
//! way out, also after Ctrl-C, everything it made is gone. It measures nothing.

mod clients;
mod discovery;
mod fencing;
mod intrusion;
mod live;
mod observed;
mod print;
mod shop;
mod story;
mod totals;

use std::process::ExitCode;

use ringfence_testbed::interrupt;

fn main() -> ExitCode {
    // Before any other thread or child exists: all of them must leave signals to the watcher.
    let told = interrupt::watch().and_then(|()| story::tell());
    match told {
        Ok(totals) => {
            println!("{totals}");
            if totals.holds() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        // Whatever failed after a signal failed because of it.
        Err(_) if interrupt::check().is_err() => {
            eprintln!("\ndemo: interrupted; everything it made has been removed");
            // As a shell reports a process that ended by SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
