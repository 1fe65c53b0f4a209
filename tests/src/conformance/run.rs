//! Plays a folder of cases, several at once.
//!
//! Every case is read before the first is played. Each job has a stage of its own, which it keeps
//! from case to case and replaces when it breaks.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::{Context as _, Result, ensure};

use super::case::{self, Case};
use super::offline::Offline;
use super::report::{Finished, Report};
use super::script::{self, Outcome};
use super::stage::Stage;
use super::wire::Wire;
use crate::{agent, interrupt};

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub dir: PathBuf,
    /// Only cases whose name contains this.
    pub filter: String,
    /// Through `policy eval` instead of on the wire.
    pub offline: bool,
    /// How many cases at once.
    pub jobs: usize,
}

/// Plays the cases; true if none failed. The error is an [`super::Unreadable`] if a case cannot be
/// read.
pub fn run(options: &Options, out: impl Write + Send) -> Result<bool> {
    let cases = read(&options.dir, &options.filter)?;
    ensure!(
        !cases.is_empty(),
        "no case in {} has {:?} in its name",
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

/// Takes cases until none is left.
fn work(
    offline: bool,
    agent: &Path,
    cases: &[Case],
    next: &AtomicUsize,
    mut finished: impl FnMut(usize, Finished) -> Result<()>,
) -> Result<()> {
    let mut stage: Option<Box<dyn Stage>> = None;
    loop {
        interrupt::check()?;
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(case) = cases.get(number) else {
            return Ok(());
        };
        let set = match stage.take() {
            Some(stage) => Ok(stage),
            None => set_up(offline, agent),
        };
        let played = set.and_then(|set| script::play(case, stage.insert(set).as_mut()));
        let outcome = match played {
            Ok(outcome) => outcome,
            Err(error) => {
                interrupt::check()?;
                stage = None;
                Outcome {
                    misses: Vec::new(),
                    faults: vec![format!("{error:#}")],
                }
            }
        };
        let name = case.name.clone();
        finished(number, Finished { name, outcome })?;
    }
}

fn set_up(offline: bool, agent: &Path) -> Result<Box<dyn Stage>> {
    Ok(if offline {
        Box::new(Offline::new(agent.to_owned())?)
    } else {
        Box::new(Wire::new(agent)?)
    })
}

#[cfg(test)]
mod tests;
