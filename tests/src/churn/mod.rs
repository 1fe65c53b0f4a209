//! Workloads, namespaces and policies that come and go for a long time, under traffic: is
//! everything that they used freed again, and does any packet get a wrong verdict?
//!
//! The reconciler with compiler and ledger publishes to the kernel's maps as in the agent; only
//! attaching is left out, and frames are run through the programs. There are about a thousand
//! workloads at a time. Every life has labels of its own, every edit a rule of its own; addresses
//! and interfaces are reused. Files are not read here, and the agent's history and log are not part
//! of it.

mod edits;
mod node;
mod population;
mod resources;
mod traffic;
mod unattached;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use ringfence::model::{Inventory, PolicySet};

use crate::NetNs;
use crate::program_run::Programs;
use edits::Edits;
use node::Node;
use population::{Life, Population, WEB_INTERFACE};
pub use resources::Resources;
use traffic::Traffic;
pub use traffic::{Checked, Count};

/// The most lives that begin with one publish.
const LIVES_PER_PUBLISH: u64 = 250;
/// Pairs of interfaces that endpoints take in turn.
const PAIRS: usize = 64;
/// Publishes before memory and descriptors are compared with.
const WARM_UP: u64 = 20;

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Workloads that live.
    pub lives: u64,
    /// Edits of policies.
    pub edits: u64,
    /// Namespaces that live.
    pub namespaces: u64,
    /// How long what is no longer used may still be held.
    pub settling: Duration,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Workloads that lived.
    pub lives: u64,
    /// Edits made.
    pub edits: u64,
    /// Namespaces that lived.
    pub namespaces: u64,
    /// Publishes that were repeated because something was used up for a while.
    pub repeated: u64,
    /// Why the run stopped early.
    pub stopped: Option<String>,
    /// Packets and wrong verdicts.
    pub checked: Checked,
    /// What was held before.
    pub before: Resources,
    /// What was held after everyone was gone and the deadline had passed.
    pub after: Resources,
    /// What of it is more than before.
    pub beyond: Vec<String>,
    /// How long the lives took.
    pub duration: Duration,
}

/// Runs the lives, and passes a line on the progress to `report` now and then.
pub fn run(spec: &Spec, mut report: impl FnMut(&str) + Send) -> Result<Outcome> {
    ensure!(
        spec.lives > 0 && spec.namespaces > 0,
        "no lives, or no namespaces"
    );
    let ns = NetNs::new()?;
    let mut interfaces: Vec<String> = (0..2 * PAIRS).map(|n| format!("churn{n}")).collect();
    let pairs = interfaces.chunks(2).filter_map(|pair| match pair {
        [one, other] => Some(format!("link add name {one} type veth peer name {other}\n")),
        _ => None,
    });
    ns.ip(&pairs.collect::<String>())?;
    ns.run(|| {
        let (node, programs) = Node::start(&interfaces)?;
        interfaces.retain(|name| name != WEB_INTERFACE);
        let population = Population::new(spec.lives / spec.namespaces, interfaces);
        let run = Run {
            spec: *spec,
            traffic: Traffic::new(&programs, node.ifindex(WEB_INTERFACE)?),
            node,
            population,
            edits: Edits::new()?,
        };
        run.perform(&programs, &mut report)
    })?
}

struct Run<'a> {
    spec: Spec,
    node: Node,
    traffic: Traffic<'a>,
    population: Population,
    edits: Edits,
}

impl Run<'_> {
    fn perform(
        mut self,
        programs: &Programs,
        report: &mut (impl FnMut(&str) + Send),
    ) -> Result<Outcome> {
        let kept = (self.population.inventory()?, self.edits.set()?);
        self.node.publish(&kept.0, &kept.1)?;
        self.node.tidy_up(true)?;
        let mut before = self.node.resources()?;
        report(&format!("before: {before}"));

        let started = Instant::now();
        let running = AtomicBool::new(true);
        let mut steady = Traffic::new(programs, self.node.ifindex(WEB_INTERFACE)?);
        let stopped = thread::scope(|scope| -> Result<Option<String>> {
            let packets = scope.spawn(|| steady.run(&running));
            let stopped = self.live(&mut before, report);
            running.store(false, Ordering::SeqCst);
            let ran = packets
                .join()
                .map_err(|_| anyhow!("the packets panicked"))?;
            ran.context("running packets")?;
            Ok(stopped.err().map(|error| format!("{error:#}")))
        })?;
        let duration = started.elapsed();

        let (after, beyond) = self.leave(&kept, &before)?;
        let mut checked = self.traffic.checked.clone();
        checked.add(&steady.checked);
        Ok(Outcome {
            lives: self.population.lives_begun,
            edits: self.edits.made,
            namespaces: self.population.namespaces_begun,
            repeated: self.node.repeated,
            stopped,
            checked,
            before,
            after,
            beyond,
            duration,
        })
    }

    /// All lives and edits; an error says why there were no more.
    fn live(
        &mut self,
        before: &mut Resources,
        report: &mut (impl FnMut(&str) + Send),
    ) -> Result<()> {
        let by_lives = self.spec.lives.div_ceil(LIVES_PER_PUBLISH);
        let publishes = by_lives.max(self.spec.edits.div_ceil(edits::AT_ONCE));
        for publish in 1..=publishes {
            let due = self.spec.lives * publish / publishes - self.population.lives_begun;
            let born = self.population.turn(due)?;
            let due = self.spec.edits * publish / publishes - self.edits.made;
            self.edits.make(due, &self.population)?;
            let inventory = self.population.inventory()?;
            let policies = self.edits.set()?;
            self.node.publish(&inventory, &policies)?;
            self.check(&born)?;
            if publish == WARM_UP.min(publishes) {
                let warm = self.node.resources()?;
                before.descriptors = warm.descriptors;
                before.rss_kib = warm.rss_kib;
            }
            if publish.is_multiple_of(publishes.div_ceil(20)) {
                let held = self.node.resources()?;
                let (lives, edits) = (self.population.lives_begun, self.edits.made);
                report(&format!("{lives} lives, {edits} edits: {held}"));
            }
        }
        Ok(())
    }

    fn check(&mut self, born: &[Life]) -> Result<()> {
        self.traffic.arrivals(born)?;
        self.traffic.grant(self.edits.is_granted)?;
        for life in born {
            let Some(interface) = &life.workload.interface else {
                continue;
            };
            let ifindex = self.node.ifindex(interface)?;
            let is_policed = self.edits.polices(&life.workload.id.namespace);
            self.traffic.endpoint(ifindex, life, is_policed)?;
        }
        Ok(())
    }

    /// Ends every life, closes every connection and waits until nothing is held any more.
    fn leave(
        &mut self,
        (inventory, policies): &(Arc<Inventory>, Arc<PolicySet>),
        before: &Resources,
    ) -> Result<(Resources, Vec<String>)> {
        self.population.end_all();
        self.edits.end_all()?;
        // If numbers are used up this fails too; what is held then is the result.
        if self.node.publish(inventory, &self.edits.opened()?).is_ok() {
            self.traffic.close_all(Population::addresses())?;
        }
        let kept = (inventory, policies);
        self.node.settle(kept, before, self.spec.settling)
    }
}

impl Outcome {
    /// Whether everything was freed and every verdict was right.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.stopped.is_none() && self.checked.sum().wrong() == 0 && self.beyond.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "before: {}", self.before)?;
        writeln!(f, "after:  {}", self.after)?;
        for (kind, count) in &self.checked.0 {
            writeln!(
                f,
                "{kind}: {} packets, {} passed and {} dropped wrongly",
                count.packets, count.passed, count.dropped
            )?;
        }
        for more in &self.beyond {
            writeln!(f, "not freed: {more}")?;
        }
        if let Some(reason) = &self.stopped {
            writeln!(
                f,
                "stopped after {} lives, {} edits and {} namespaces: {reason}",
                self.lives, self.edits, self.namespaces
            )?;
        }
        let checked = self.checked.sum();
        write!(
            f,
            "churn: {} lives, {} edits, {} namespaces in {:.0} s, {} publishes repeated, {} packets, \
             {} wrong verdicts, {} kinds of things not freed",
            self.lives,
            self.edits,
            self.namespaces,
            self.duration.as_secs_f64(),
            self.repeated,
            checked.packets,
            checked.wrong(),
            self.beyond.len()
        )
    }
}
