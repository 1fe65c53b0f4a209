//! Upgrades and downgrades between two builds with different layouts, under traffic, with a revocation
//! before or during each.
//!
//! In every other round policy is edited while the old agent runs, so that what it revoked must stay
//! stopped; in the others while none runs, so that it is the new agent that revokes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::network::Network;
use super::revoked::{Flows, Revoked};
use super::traffic::{Outcome as TrafficOutcome, Traffic, TrafficSpec};
use crate::agent::{binary, other_layout_binary};
use crate::interrupt;

/// The first of the ports whose flows are revoked.
const FIRST_PORT: u16 = 7100;

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// How many upgrades and downgrades.
    pub changes: u16,
    /// Workloads of other nodes in the inventory.
    pub remote: usize,
    /// The traffic.
    pub traffic: TrafficSpec,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Upgrades and downgrades.
    pub changes: u16,
    /// Revoked connections that stopped at once, and all of them.
    pub stopped: (usize, usize),
    /// Messages sent on flows after they were revoked, and those that arrived.
    pub revoked: (u64, u64),
    /// The longest time from a start to ready.
    pub slowest_start: Duration,
    /// What became of the traffic.
    pub traffic: TrafficOutcome,
}

impl Outcome {
    /// Whether no bound was broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let (stopped, all) = self.stopped;
        stopped == all && all > 0 && self.revoked.1 == 0 && self.traffic.is_good()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.slowest_start.as_secs_f64();
        writeln!(f, "slowest start until ready: {start:.1} s")?;
        writeln!(f, "{}", self.traffic.details())?;
        let ((stopped, all), (sent, arrived)) = (self.stopped, self.revoked);
        write!(
            f,
            "chaos upgrades: {} upgrades and downgrades, {stopped} of {all} revoked connections stopped \
             at once, {arrived} of {sent} later messages of revoked flows delivered, {}",
            self.changes, self.traffic
        )
    }
}

/// Runs, and says what happens line by line.
///
/// # Errors
/// When the test bed cannot be built, a control fails, or an agent does not start.
pub fn run(spec: &Spec, mut report: impl FnMut(&str)) -> Result<Outcome> {
    let builds = [other_layout_binary()?, binary()?];
    let network = Network::build(spec.remote, None)?;
    let traffic = Traffic::start(&network, &spec.traffic)?;
    let mut run = Run {
        network,
        traffic,
        revoked: Revoked::new(),
        stopped: (0, 0),
        slowest_start: Duration::ZERO,
    };
    for number in 0..spec.changes {
        interrupt::check()?;
        let [newer, older] = &builds;
        let to = if number.is_multiple_of(2) {
            newer
        } else {
            older
        };
        let line = run.change(number, to.clone());
        report(&line.with_context(|| format!("change {}", number + 1))?);
    }
    let revoked = run.revoked.finish()?;
    Ok(Outcome {
        changes: spec.changes,
        stopped: run.stopped,
        revoked,
        slowest_start: run.slowest_start,
        traffic: run.traffic.finish()?,
    })
}

struct Run {
    network: Network,
    traffic: Traffic,
    revoked: Revoked,
    stopped: (usize, usize),
    slowest_start: Duration,
}

impl Run {
    fn change(&mut self, number: u16, build: PathBuf) -> Result<String> {
        let port = FIRST_PORT + number;
        self.network.desired.revocable = Some(port);
        self.network.apply_policies()?;
        let flows = Flows::open(&self.network.hosts, port)?;
        self.network.desired.revocable = None;

        // Of four in a row: an upgrade and a downgrade each way.
        let is_before = matches!(number % 4, 0 | 3);
        let flows = if is_before {
            self.network.apply_policies()?;
            self.revoke(flows)?;
            self.network.agent.kill()?;
            None
        } else {
            self.network.agent.kill()?;
            self.network.renew_policies()?;
            Some(flows)
        };
        self.network.agent.use_binary(build);
        let took = self.network.start()?;
        self.slowest_start = self.slowest_start.max(took);
        if let Some(flows) = flows {
            self.revoke(flows)?;
        }
        let layouts = self.network.layouts()?;
        ensure!(layouts.len() == 1, "pins of {layouts:?}");
        let (stall, leaked) = (self.traffic.take_stall(), self.traffic.check()?);
        Ok(format!(
            "[{:.3}] change {}: {} in {:.0} ms, revoked {}; stall {} ms; {leaked} denied delivered, \
             {} messages of revoked flows delivered",
            self.traffic.now().as_secs_f64(),
            number + 1,
            layouts.join(", "),
            took.as_secs_f64() * 1e3,
            if is_before {
                "before"
            } else {
                "while none ran"
            },
            stall.longest.as_millis(),
            self.revoked.arrived(),
        ))
    }

    fn revoke(&mut self, flows: Flows) -> Result<()> {
        let (stopped, all) = self.revoked.add(flows)?;
        self.stopped = (self.stopped.0 + stopped, self.stopped.1 + all);
        Ok(())
    }
}
