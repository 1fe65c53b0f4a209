//! Packets on one CPU while another one rewrites the records that decide: does any packet
//! get a verdict that no state had, and does any such verdict last?
//!
//! Frames are run through the real programs (`BPF_PROG_TEST_RUN`); no interface carries traffic.
//! Every packet's verdict is known: what the old and the new contents of all records deny must be
//! dropped, what both allow must pass, and what depends on a setting that changes is checked only if
//! the setting was settled during the whole run of the packet. After each storm every packet is run
//! again, with nothing written meanwhile.

mod cases;
mod disturb;
mod flip;
mod probe;
mod storm;
mod world;
mod writer;

use std::fmt;

use anyhow::{Result, ensure};
use nix::net::if_::if_nametoindex;

use crate::NetNs;
use storm::sum;
pub use storm::{Storm, StormOutcome};

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Packets with a known verdict, in all storms together.
    pub packets: u64,
    /// Seed of the order of writes.
    pub seed: u64,
    /// The storms, which share the packets evenly.
    pub storms: Vec<Storm>,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// By storm.
    pub storms: Vec<StormOutcome>,
}

/// Runs every storm, and passes its result to `report` as soon as it is known.
pub fn run(spec: &Spec, mut report: impl FnMut(&StormOutcome) + Send) -> Result<Outcome> {
    ensure!(!spec.storms.is_empty(), "no storm is chosen");
    let share = spec.packets.div_ceil(spec.storms.len() as u64);
    let ns = NetNs::new()?;
    ns.ip("link add name race0 type veth peer name race1\nlink add name race2 type veth peer name race3\n")?;
    ns.run(|| -> Result<Outcome> {
        let mut ifindexes = [0; world::ENDPOINTS];
        for (ifindex, name) in ifindexes
            .iter_mut()
            .zip(["race0", "race1", "race2", "race3"])
        {
            *ifindex = if_nametoindex(name)?;
        }
        let mut storms = Vec::new();
        for storm in &spec.storms {
            let outcome = storm.run(share, spec.seed, ifindexes)?;
            report(&outcome);
            storms.push(outcome);
        }
        Ok(Outcome { storms })
    })?
}

impl Outcome {
    /// Packets whose verdict was known.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.storms.iter().map(|storm| storm.packets).sum()
    }

    /// Writes that began and ended while packets were running.
    #[must_use]
    pub fn overlapping(&self) -> u64 {
        self.storms.iter().map(|storm| storm.overlapping).sum()
    }

    /// Packets that passed and packets that were dropped, wrongly.
    #[must_use]
    pub fn wrong(&self) -> (u64, u64) {
        let sums = self.storms.iter().map(|storm| sum(&storm.wrong));
        sums.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Packets that got a wrong verdict when nothing was written any more.
    #[must_use]
    pub fn lasting(&self) -> u64 {
        let sums = self.storms.iter().map(|storm| sum(&storm.lasting));
        sums.map(|(passes, drops)| passes + drops).sum()
    }

    /// Whether every verdict was right.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong() == (0, 0) && self.lasting() == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passes, drops) = self.wrong();
        write!(
            f,
            "race: {} packets, {} overlapping writes, {} wrong verdicts ({passes} passed, {drops} \
             dropped), {} lasting entries",
            self.packets(),
            self.overlapping(),
            passes + drops,
            self.lasting()
        )
    }
}
