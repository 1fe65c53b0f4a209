//! `cargo xtask fuzz`: searches for inputs that violate the properties in `tests/fuzz`.
//!
//! Everything is built once, instrumented, and each target then runs on a core of its own for the
//! given time. New inputs and crashes are written to the target directory, and the next run
//! continues from there; the checkout is only read. The targets define their properties.

mod tools;
mod trial;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::{setup, workspace};
use tools::Build;
use trial::{Outcome, Trial};

/// Where the targets, seeds and dictionaries are.
const PACKAGE: &str = "tests/fuzz";

/// The subcommand: runs every target whose name contains `filter`, for `seconds` each.
pub(crate) fn run(seconds: u32, filter: Option<&str>) -> Result<ExitCode> {
    let package = workspace::root()?.join(PACKAGE);
    let names = names(&package.join("targets"))?;
    let chosen: Vec<&String> = names
        .iter()
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no target has such a name; the targets are: {}",
        names.join(", ")
    );
    let toolchain = setup::ensure()?;
    let build = Build::new(&toolchain, &package)?;
    let trials = chosen
        .iter()
        .map(|name| Trial::new(name, &package, &build, seconds));
    let outcomes = perform(trials.collect::<Result<VecDeque<_>>>()?)?;

    let crashes = outcomes.iter().filter(|outcome| outcome.crashed).count();
    let executions: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
    println!(
        "fuzz: {} targets, {seconds} s each, {executions} executions, {crashes} crashes",
        outcomes.len()
    );
    Ok(if crashes == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs as many trials at a time as there are cores.
fn perform(trials: VecDeque<Trial>) -> Result<Vec<Outcome>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(trials);
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    let work = || {
        let mut outcomes = Vec::new();
        while let Some(trial) = next() {
            let outcome = trial.run()?;
            println!("{outcome}");
            outcomes.push(outcome);
        }
        anyhow::Ok(outcomes)
    };
    let outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| {
            let done = worker.join();
            done.unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))
        });
        joined.collect::<Result<Vec<Vec<Outcome>>>>()
    })?;
    Ok(outcomes.into_iter().flatten().collect())
}

/// The names of the targets: their file names.
fn names(directory: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("cannot read {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path: PathBuf = entry.with_context(unreadable)?.path();
        let name = path.file_stem().context("a target without a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
