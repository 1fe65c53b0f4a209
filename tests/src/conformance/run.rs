//! Runs a folder of cases, several in parallel.
//!
//! All cases are read before the first one runs. Each job has its own backend, which it reuses from
//! case to case and replaces after an error.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::{Context as _, Result, ensure};

use super::backend::Backend;
use super::case::{self, Case};
use super::case_run::{self, Outcome};
use super::offline::Offline;
use super::report::{Finished, Report};
use super::wire::Wire;
use crate::{agent, interrupt};

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub dir: PathBuf,
    /// Only cases whose name contains this.
    pub filter: String,
    /// Use `policy eval` instead of the wire.
    pub offline: bool,
    /// How many cases run in parallel.
    pub jobs: usize,
}

/// Runs the cases; true if none failed. The error is an [`super::Unreadable`] if a case cannot be
/// read.
pub fn run(options: &Options, out: impl Write + Send) -> Result<bool> {
    let cases = read(&options.dir, &options.filter)?;
    ensure!(
        !cases.is_empty(),
        "no case in {} has a name that contains {:?}",
        options.dir.display(),
        options.filter
    );
    let agent = agent::binary()?;
    let next = AtomicUsize::new(0);
    let report = Mutex::new(Report::new(out));
    let (broken, breakage) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, cases.len()) {
            let broken = broken.clone();
            let (next, report, cases, agent) = (&next, &report, &cases, &agent);
            scope.spawn(move || {
                let worked = work(options.offline, agent, cases, next, |number, finished| {
                    let mut report = report
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    Ok(report.finished(number, finished)?)
                });
                // The receiver outlives this scope.
                let _ = broken.send(worked);
            });
        }
    });
    drop(broken);
    for worked in breakage {
        worked?;
    }
    let report = report.into_inner();
    Ok(report
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .close()?)
}

fn read(dir: &Path, filter: &str) -> Result<Vec<Case>> {
    let mut paths = Vec::new();
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if (extension == "yaml" || extension == "yml") && stem.contains(filter) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok(case::read(path)?)).collect()
}

/// Runs cases until none is left.
fn work(
    offline: bool,
    agent: &Path,
    cases: &[Case],
    next: &AtomicUsize,
    mut finished: impl FnMut(usize, Finished) -> Result<()>,
) -> Result<()> {
    let mut backend: Option<Box<dyn Backend>> = None;
    loop {
        interrupt::check()?;
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(case) = cases.get(number) else {
            return Ok(());
        };
        let ready = match backend.take() {
            Some(backend) => Ok(backend),
            None => set_up(offline, agent),
        };
        let result =
            ready.and_then(|ready| case_run::run_case(case, backend.insert(ready).as_mut()));
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                interrupt::check()?;
                backend = None;
                Outcome {
                    mismatches: Vec::new(),
                    errors: vec![format!("{error:#}")],
                }
            }
        };
        let name = case.name.clone();
        finished(number, Finished { name, outcome })?;
    }
}

fn set_up(offline: bool, agent: &Path) -> Result<Box<dyn Backend>> {
    Ok(if offline {
        Box::new(Offline::new(agent.to_owned())?)
    } else {
        Box::new(Wire::new(agent)?)
    })
}

#[cfg(test)]
mod tests;
