//! One endpoint floods the node with random tuples: are other endpoints affected, and is every
//! frame accounted for?
//!
//! The flooder may reach one workload, the sink, over UDP. It sends UDP datagrams and TCP segments
//! with random ports to the sink, to a workload that it must not reach, and to unassigned
//! addresses, over both families, while other endpoints keep idle connections and open new ones.
//! Delivered frames are counted where they arrive.

mod frames;
mod sender;
mod testbed;

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::load::Totals;
use testbed::Testbed;

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Duration of the flood.
    pub duration: Duration,
    /// Target rate in frames per second; a slow machine sends fewer.
    pub rate: u32,
    /// Other endpoints, which must not be affected.
    pub bystanders: usize,
    /// Idle connections of each of them.
    pub connections: usize,
    /// Seed of the random tuples.
    pub seed: u64,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Frames that the flooder's interface sent.
    pub sent: u64,
    /// The achieved rate in frames per second.
    pub rate: u64,
    /// Frames of the flood that arrived at the sink.
    pub delivered: u64,
    /// Frames of the flood that arrived although policy denies them.
    pub leaked: u64,
    /// Packets that the fence counted as dropped.
    pub dropped: u64,
    /// Of those, packets dropped because the flooder was over its quota of unreplied flows.
    pub limited: u64,
    /// Frames that neither arrived nor were counted as dropped.
    pub unaccounted: i128,
    /// Idle connections before the flood.
    pub connections: usize,
    /// Idle connections that still worked in both directions after the flood.
    pub kept: usize,
    /// New connections opened by the bystanders during the flood.
    pub opened: Totals,
    /// The control run, without enforcement: how many frames to the forbidden workload arrived, and
    /// how many were sent to it.
    pub control: (u64, u64),
}

/// Sets up the test bed, floods, and cleans up.
pub fn run(spec: &Spec) -> Result<Outcome> {
    Testbed::build(spec)?.flood(spec)
}

impl Outcome {
    /// New connections that succeeded, per ten thousand.
    #[must_use]
    pub fn opened_per_myriad(&self) -> u64 {
        let all = self.opened.answered + self.opened.failed;
        (self.opened.answered * 10_000)
            .checked_div(all)
            .unwrap_or(0)
    }

    /// Whether the fence enforced policy and the other endpoints were not affected.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.leaked == 0
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
            "control (observe mode): {} of {} denied frames delivered",
            self.control.0, self.control.1
        )?;
        writeln!(
            f,
            "flood: {} frames, {} per second; {} allowed and {} denied frames delivered",
            self.sent, self.rate, self.delivered, self.leaked
        )?;
        writeln!(
            f,
            "counters: {} dropped, {} of them over the quota; {} frames unaccounted for",
            self.dropped, self.limited, self.unaccounted
        )?;
        if let Some(failure) = &self.opened.first_failure {
            writeln!(f, "first failure: {failure}")?;
        }
        write!(
            f,
            "other endpoints: {} of {} idle connections kept, {} of {} new connections succeeded",
            self.kept,
            self.connections,
            answered,
            answered + failed
        )
    }
}
