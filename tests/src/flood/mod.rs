//! Workloads flood the node: are other workloads affected, and is every frame accounted for?
//!
//! The flooders may reach one workload, the sink, over TCP and UDP, and no other workload; [`Family`]
//! says what they send. Meanwhile other workloads keep idle connections and open new ones.
//! Delivered frames are counted where they arrive, all others by the counter that has them.

mod accounts;
mod connections;
mod counter;
mod family;
mod frames;
mod sender;
mod testbed;

use std::fmt;
use std::time::Duration;

use anyhow::Result;

pub use accounts::Accounts;
pub use family::Family;
use testbed::Testbed;

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What the flooders send.
    pub family: Family,
    /// How many workloads flood, every other one over IPv6.
    pub flooders: usize,
    /// Shortest duration of the flood. It continues until every flooder has sent enough flows to
    /// exceed its share of conntrack, and until all new connections have been opened.
    pub duration: Duration,
    /// Target rate in frames per second of all flooders; a slow machine sends fewer.
    pub rate: u32,
    /// Other workloads, which must not be affected.
    pub bystanders: usize,
    /// Their idle connections in all, and as many new ones.
    pub connections: usize,
    /// Capacity of conntrack (`conntrack` under `[maps]`), if not the agent's default.
    pub conntrack: Option<u32>,
    /// Seed of the random tuples.
    pub seed: u64,
    /// Receive buffer of the taps in bytes, if not ample: a small one loses frames.
    pub receive_buffer: Option<usize>,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was sent.
    pub family: Family,
    /// Frames sent.
    pub sent: u64,
    /// The achieved rate in frames per second.
    pub rate: u64,
    /// What became of them.
    pub accounts: Accounts,
    /// Idle connections before the flood.
    pub connections: usize,
    /// Idle connections that still worked in both directions after the flood.
    pub kept: usize,
    /// New connections of the bystanders during the flood.
    pub opened: usize,
    /// Of these, the ones that carried data in both directions, during the flood and after it.
    pub succeeded: usize,
    /// The control run, without enforcement: how many frames to the forbidden workload arrived, and
    /// how many were sent to it.
    pub control: (u64, u64),
}

/// Sets up the test bed, floods, and cleans up.
pub fn run(spec: &Spec) -> Result<Outcome> {
    Testbed::build(spec)?.flood(spec)
}

/// A reply to a flow that the fence no longer remembers may be dropped; what opens a flow may not.
const REPLY_FORGOTTEN: &str = "reply-forgotten";

impl Outcome {
    /// Frames sent that appear in no counter.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        self.accounts.unaccounted(self.sent)
    }

    /// Packets that the fence dropped although policy allows them. Zero for a family with denied
    /// frames: there each frame is accounted for, but not by what policy says about it.
    #[must_use]
    pub fn wrongly_dropped(&self) -> u64 {
        let dropped = self.accounts.dropped.iter();
        dropped
            .filter(|(reason, _)| self.family.is_permitted() && *reason != REPLY_FORGOTTEN)
            .map(|(_, count)| count)
            .sum()
    }

    /// Whether the fence enforced policy and no other endpoint was affected.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.accounts.leaked == 0
            && self.unaccounted() == 0
            && self.control.0 == self.control.1
            && self.kept == self.connections
            && self.succeeded == self.opened
            && self.wrongly_dropped() == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = &self.accounts;
        if !self.family.is_permitted() {
            writeln!(
                f,
                "control (observe mode): {} of {} denied frames delivered",
                self.control.0, self.control.1
            )?;
        }
        writeln!(
            f,
            "flood: {} frames, {} per second; {} allowed and {} denied frames delivered",
            self.sent, self.rate, accounts.delivered, accounts.leaked
        )?;
        write!(f, "counters: {} dropped", accounts.all_dropped())?;
        for (reason, count) in &accounts.dropped {
            write!(f, ", {reason} {count}")?;
        }
        writeln!(
            f,
            "; {} lost by kernel queues ({}); {} frames unaccounted for",
            accounts.kernel.total(),
            accounts.kernel,
            self.unaccounted()
        )?;
        write!(
            f,
            "{}: other endpoints: {} of {} idle connections kept, {} of {} new connections \
             succeeded; {} permitted packets dropped",
            self.family.name(),
            self.kept,
            self.connections,
            self.succeeded,
            self.opened,
            self.wrongly_dropped()
        )
    }
}
