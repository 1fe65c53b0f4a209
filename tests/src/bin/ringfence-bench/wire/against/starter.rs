//! Starts the agents of the next round while this round is measured.
//!
//! The programs of one build are faster or slower by some percent from one start to the next,
//! because they and their maps are in other places in memory. So every round has agents of its own.
//! They are started and stopped on the CPUs that are not measured, if there are any.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;

use anyhow::{Result, anyhow};

use super::subject::Subject;
use crate::cpu;

/// The agents of a round.
pub(super) struct Set {
    /// This build.
    pub(super) this: Subject,
    /// The other build.
    pub(super) that: Subject,
    /// This build once more: the control.
    pub(super) control: Subject,
}

/// What to start.
#[derive(Clone, Copy)]
pub(super) struct Builds<'a> {
    /// The agent of this build.
    pub(super) this: &'a Path,
    /// The other build's agent.
    pub(super) that: &'a Path,
    /// How many peers each has.
    pub(super) peers: u32,
}

/// Hands out one set per round until there is no receiver; takes sets back to stop them.
pub(super) fn run(
    builds: Builds<'_>,
    rounds: usize,
    give: &SyncSender<Result<Set>>,
    take_back: &Receiver<Set>,
) {
    // If that fails, the agents disturb all measurements equally.
    let _ = cpu::leave_last();
    for _ in 0..rounds {
        take_back.try_iter().for_each(drop);
        let set = builds.start();
        let failed = set.is_err();
        if give.send(set).is_err() || failed {
            return;
        }
    }
}

impl Builds<'_> {
    fn start(self) -> Result<Set> {
        let Self { this, that, peers } = self;
        thread::scope(|scope| {
            let start = |binary| scope.spawn(move || Subject::start(binary, peers));
            let started = [this, that, this].map(start).map(|starting| {
                let joined = starting.join();
                joined.map_err(|_| anyhow!("starting an agent panicked"))?
            });
            let [this, that, control] = started;
            Ok(Set {
                this: this?,
                that: that?,
                control: control?,
            })
        })
    }
}
