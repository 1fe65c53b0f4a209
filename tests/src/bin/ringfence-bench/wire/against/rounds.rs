//! Rounds: the order of measurements.
//!
//! In a round the same three agents are measured repeatedly. Each repeat takes every metric in
//! random order, and for each metric the limit and the agents in random order and then in reverse
//! order, so that steady changes cancel out of the ratios.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ringfence_testbed::interrupt;

use super::links::{Links, On};
use super::starter::Set;
use super::streams::{Part, Streams, has_sockets};
use crate::cpu;
use crate::rng::Rng;
use crate::wire::metric::{Kind, Metric};
use crate::wire::stopwatch::Clock;

/// The fewest repeats of a round. More are made while the next round's agents are started.
const FEWEST: u32 = 12;
/// The most repeats, limited by a workload's share of unreplied entries.
const MOST: u32 = 40;
/// The fewest rounds, however long they take.
pub(super) const FEWEST_ROUNDS: usize = 8;
/// Operations of a trial.
const TRIAL: u32 = 100;

/// How much to measure, and in which order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The maximum number of rounds.
    pub(super) rounds: usize,
    /// No round begins after this.
    pub(super) time: Option<Duration>,
    pub(super) seed: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Limit,
    This,
    That,
    Control,
}

/// One repeat: the logarithm of nanoseconds of an operation, as the mean of two samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repeat {
    pub(super) limit: f64,
    pub(super) this: f64,
    pub(super) that: f64,
    pub(super) control: f64,
}

impl Repeat {
    const fn of(&mut self, role: Role) -> &mut f64 {
        match role {
            Role::Limit => &mut self.limit,
            Role::This => &mut self.this,
            Role::That => &mut self.that,
            Role::Control => &mut self.control,
        }
    }
}

/// The repeats of a round by metric.
type Repeats = BTreeMap<Metric, Vec<Repeat>>;

/// By metric, for each round, its repeats.
pub(super) type Measured = BTreeMap<Metric, Vec<Vec<Repeat>>>;

/// The measurements of a run.
pub(super) struct Outcome {
    pub(super) measured: Measured,
    /// Whether both builds' programs have the same instructions.
    pub(super) same_programs: bool,
}

/// Measures sets as they arrive, and gives them back.
pub(super) fn run(
    mut links: Links,
    (sets, give_back): (&Receiver<Result<Set>>, &Sender<Set>),
    metrics: &[Metric],
    plan: Plan,
) -> Result<Outcome> {
    let cpu = cpu::pin_to_last()?;
    let mut streams = Streams::open(&links.twin)?;
    streams.try_out(&mut links)?;
    let clock = clock(&mut streams, &mut links)?;
    let mut bench = Bench {
        rng: Rng(plan.seed),
        links,
        streams,
        clock,
    };
    let (name, seed) = (clock.name(), plan.seed);
    eprintln!("against: seed {seed}, {name} of both ends on CPU {cpu}; starting agents");
    let begin = Instant::now();
    let mut measured = Measured::new();
    let mut set = sets.recv().context("no agents")??;
    let same_programs = set.this.is_like(&set.that)?;
    for round in 1.. {
        let late = || {
            let over = plan.time.is_some_and(|time| begin.elapsed() >= time);
            round >= FEWEST_ROUNDS && over
        };
        let (repeats, next) = bench.round(&set, sets, metrics, late)?;
        let most = repeats.values().map(Vec::len).max().unwrap_or_default();
        let took = begin.elapsed();
        eprintln!("against: round {round}, {most} repeats, {took:.0?} so far");
        for (metric, repeats) in repeats {
            measured.entry(metric).or_default().push(repeats);
        }
        let Some(next) = next else { break };
        // At the end there is no receiver.
        let _ = give_back.send(std::mem::replace(&mut set, next));
    }
    Ok(Outcome {
        measured,
        same_programs,
    })
}

/// The clock of these measurements.
fn clock(streams: &mut Streams, links: &mut Links) -> Result<Clock> {
    let metric = Metric {
        kind: Kind::Established,
        v6: false,
    };
    let part = Part {
        number: 0,
        count: TRIAL,
    };
    links.put(On::Noop)?;
    links.sink(true)?;
    Clock::choose(|| streams.sample(metric, part, Clock::Wall).map(|_| ()))
}

struct Bench {
    rng: Rng,
    links: Links,
    streams: Streams,
    clock: Clock,
}

impl Bench {
    /// Measures a set until the next one arrives or it is too `late` for one. Returns its repeats
    /// and the next set.
    fn round(
        &mut self,
        set: &Set,
        sets: &Receiver<Result<Set>>,
        metrics: &[Metric],
        late: impl Fn() -> bool,
    ) -> Result<(Repeats, Option<Set>)> {
        self.links.sink(true)?;
        for subject in [&set.this, &set.that, &set.control] {
            self.links.put(On::Subject(subject))?;
            for v6 in [false, true] {
                if metrics.contains(&Metric {
                    kind: Kind::Flows,
                    v6,
                }) {
                    self.streams.establish_many(v6)?;
                }
            }
        }
        let mut repeats = Repeats::new();
        for number in 1.. {
            interrupt::check()?;
            for metric in self.rng.shuffled(metrics.to_vec()) {
                let repeat = self.repeat(set, metric, 2 * number)?;
                repeats.entry(metric).or_default().push(repeat);
            }
            if number < FEWEST {
                continue;
            }
            if late() {
                return Ok((repeats, None));
            }
            match sets.try_recv() {
                Ok(next) => return Ok((repeats, Some(next?))),
                Err(TryRecvError::Disconnected) => return Ok((repeats, None)),
                Err(TryRecvError::Empty) if number < MOST => {}
                Err(TryRecvError::Empty) => break,
            }
        }
        Ok((repeats, sets.recv().ok().transpose()?))
    }

    /// All subjects by one metric, twice, from this part of its traffic on.
    fn repeat(&mut self, set: &Set, metric: Metric, part: u32) -> Result<Repeat> {
        let roles = vec![Role::Limit, Role::This, Role::That, Role::Control];
        let there = self.rng.shuffled(roles);
        let back = there.iter().rev().copied().collect();
        let mut repeat = Repeat::default();
        for (number, order) in (part..).zip([there, back]) {
            let part = Part::new(number, metric);
            for role in order {
                self.links.put(match role {
                    Role::Limit if metric.kind == Kind::Denied => On::Drop,
                    Role::Limit => On::Noop,
                    Role::This => On::Subject(&set.this),
                    Role::That => On::Subject(&set.that),
                    Role::Control => On::Subject(&set.control),
                })?;
                self.links.sink(!has_sockets(metric.kind))?;
                let sample = self.streams.sample(metric, part, self.clock);
                let sample = sample.with_context(|| format!("{metric}, {role:?}"))?;
                *repeat.of(role) += sample.ln() / 2.0;
            }
        }
        Ok(repeat)
    }
}
