//! One endpoint floods the node with random tuples: what it costs the others, and whether every
//! frame is accounted for.
//!
//! The flooder may reach one workload, the sink, over UDP. It sends datagrams and segments of random
//! ports to the sink, to a workload that it must not reach, and to addresses that nobody has, over
//! both families, while other endpoints keep idle connections and open new ones. What is delivered
//! is counted where it arrives; nothing here decides what is good enough.

mod arena;
mod frames;
mod sender;

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::load::Totals;
use arena::Arena;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// For how long.
    pub duration: Duration,
    /// Frames per second to aim at; fewer are sent when the machine cannot.
    pub rate: u32,
    /// Endpoints that must not notice.
    pub bystanders: usize,
    /// Idle connections of each of them.
    pub connections: usize,
    /// Seed of the random tuples.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Frames that the flooder's interface took.
    pub sent: u64,
    /// Frames per second, really.
    pub rate: u64,
    /// Frames of the flood that arrived at the sink.
    pub delivered: u64,
    /// Frames of the flood that arrived where policy denies.
    pub trespassed: u64,
    /// Packets that the fence says it dropped.
    pub dropped: u64,
    /// Of those, attempts beyond the flooder's quota.
    pub limited: u64,
    /// Frames that neither arrived nor were counted as dropped.
    pub unaccounted: i128,
    /// Idle connections before the flood.
    pub connections: usize,
    /// Those over which both ends were heard after it.
    pub kept: usize,
    /// New connections opened by the bystanders during the flood.
    pub opened: Totals,
    /// Of the same frames without enforcement, how many of those to the forbidden workload arrived,
    /// and how many were sent there.
    pub control: (u64, u64),
}

/// Sets everything up, floods, and takes everything down again.
pub fn run(spec: &Spec) -> Result<Outcome> {
    Arena::build(spec)?.flood(spec)
}

impl Outcome {
    /// New connections that succeeded, in parts of ten thousand.
    #[must_use]
    pub fn opened_per_myriad(&self) -> u64 {
        let all = self.opened.answered + self.opened.failed;
        (self.opened.answered * 10_000)
            .checked_div(all)
            .unwrap_or(0)
    }

    /// Whether the fence held and the others did not notice.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.trespassed == 0
            && self.unaccounted == 0
            && self.control.0 == self.control.1
            && self.kept == self.connections
            && self.opened_per_myriad() >= 9_990
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals {
            answered, failed, ..
        } = self.opened;
        writeln!(
            f,
            "control: {} of {} delivered where policy denies, while observing",
            self.control.0, self.control.1
        )?;
        writeln!(
            f,
            "flood: {} frames, {} a second; {} delivered where allowed, {} where denied",
            self.sent, self.rate, self.delivered, self.trespassed
        )?;
        writeln!(
            f,
            "counted: {} dropped, {} of them beyond the quota; {} frames unaccounted for",
            self.dropped, self.limited, self.unaccounted
        )?;
        if let Some(failure) = &self.opened.first_failure {
            writeln!(f, "first failure: {failure}")?;
        }
        write!(
            f,
            "others: {} of {} connections kept, {} of {} new connections succeeded",
            self.kept,
            self.connections,
            answered,
            answered + failed
        )
    }
}
