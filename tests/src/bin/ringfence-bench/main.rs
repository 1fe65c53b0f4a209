//! The benchmark: prints what Ringfence costs on this machine, and asserts nothing.
//!
//! `--quick` measures less often, for a first look. `--scale` measures the policy engine alone, on
//! drawn clusters, and needs neither privileges nor a kernel that does anything. What the figures mean, and those of a known
//! machine, are in `docs/performance.md`.

mod change;
mod frames;
mod kernel;
mod noop;
mod process;
mod report;
mod scale;
mod world;

use std::process::ExitCode;

use anyhow::{Result, bail};
use ringfence_testbed::interrupt;

/// How often to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds over all kernel measurements, and runs in each.
    pub(crate) rounds: usize,
    pub(crate) repeat: u32,
    /// Policy changes.
    pub(crate) changes: usize,
    /// Starts of the agent.
    pub(crate) starts: usize,
    /// Changes of each kind to a drawn cluster.
    pub(crate) scale: usize,
}

const FULL: Effort = Effort {
    rounds: 9,
    repeat: 1_000_000,
    changes: 200,
    starts: 7,
    scale: 200,
};
const QUICK: Effort = Effort {
    rounds: 3,
    repeat: 100_000,
    changes: 40,
    starts: 3,
    scale: 30,
};

fn main() -> ExitCode {
    // Before any other thread or child exists: all of them must leave signals to the watcher.
    let done = interrupt::watch().and_then(|()| arguments()).and_then(run);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::check().is_err() => ExitCode::from(130),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(Effort, bool)> {
    let (mut effort, mut scale) = (FULL, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => effort = QUICK,
            "--scale" => scale = true,
            "--" => {}
            other => bail!("unknown argument {other}: expected --quick or --scale"),
        }
    }
    Ok((effort, scale))
}

fn run((effort, scale): (Effort, bool)) -> Result<()> {
    if scale {
        return scale::measure(effort.scale);
    }
    println!("Ringfence benchmark at {} remote workloads", world::REMOTE);
    kernel::measure(effort)?;
    let mut bench = process::Bench::start()?;
    change::measure(&mut bench, effort)?;
    process::memory(&bench, effort.changes)?;
    process::starts(&mut bench, effort)
}
