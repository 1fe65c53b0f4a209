//! Rounds: the order of measurements.
//!
//! A round measures every metric on every variant once, in random order. Each measurement of a
//! fence is between two of the limit on the same variant; the ratio is to their mean, so that slow
//! changes of a shared machine cancel out. Variants that are slow to switch have all their metrics
//! measured between two switches.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use ringfence_testbed::interrupt;

use super::hooks::{Limits, On};
use super::metric::{Kind, Metric};
use super::stopwatch::Clock;
use super::variant::Variant;
use crate::cpu;
use crate::goals;
use crate::rng::Rng;

/// The usual length of a sample, in nanoseconds.
const SAMPLE: f64 = 4e6;
/// Length of a sample of connections: there are few in that time, and memory that is freed later
/// makes them uneven.
const LONG_SAMPLE: f64 = 12e6;
/// The most operations of a sample, limited by a workload's share of unreplied entries.
const MOST: f64 = 4000.0;
/// Operations of the trial that determines the length of a sample.
const TRIAL: u32 = 200;

/// How often to measure, and in which order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Metrics without a goal are measured in one round of this many.
    pub(crate) seldom: usize,
    pub(crate) seed: u64,
}

/// The cost of one fence in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Nanoseconds of one operation at the limit: the mean of before and after.
    pub(crate) limit: f64,
    /// Nanoseconds of one operation with the fence.
    pub(crate) fence: f64,
}

impl Taken {
    pub(crate) fn ratio(self) -> f64 {
        self.fence / self.limit
    }
}

/// By metric and fence, a value per round.
pub(crate) type Measured = BTreeMap<(Metric, String), Vec<Taken>>;

/// Opens the traffic and measures.
pub(crate) fn run(variants: &mut [Variant], metrics: &[Metric], plan: Plan) -> Result<Measured> {
    let Plan {
        rounds,
        seldom,
        seed,
    } = plan;
    let cpu = cpu::pin_to_last()?;
    let limits = Limits::load()?;
    let mut counts = BTreeMap::new();
    for variant in variants.iter_mut() {
        let opened = variant.open(metrics, &limits);
        opened.with_context(|| format!("preparing {}", variant.name))?;
        for metric in variant.metrics() {
            variant.switch(limit(metric), &limits)?;
            let took = variant.sample(metric, TRIAL, Clock::Wall)?;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "at most MOST"
            )]
            let count = (length(metric) / took).clamp(20.0, MOST) as u32;
            counts.entry(metric).or_insert(count);
        }
    }
    let clock = clock(variants, &limits)?;
    let name = clock.name();
    eprintln!("wire: {rounds} rounds, seed {seed}, {name} of both ends on CPU {cpu}");
    let (wall, thread) = (Clock::Wall.now()?, Clock::Thread.now()?);
    let mut rng = Rng(seed);
    let mut measured = Measured::new();
    for round in 0..rounds {
        let everything = round % seldom == 0;
        for (index, metrics) in rng.shuffled(blocks(variants, everything)) {
            interrupt::check()?;
            let variant = variants.get_mut(index).context("a variant")?;
            let block = block(variant, &metrics, &counts, (&limits, clock));
            let block = block.with_context(|| format!("measuring {}", variant.name))?;
            for (metric, taken) in block {
                let key = (metric, variant.name.clone());
                measured.entry(key).or_default().push(taken);
            }
        }
    }
    let (wall, thread) = (Clock::Wall.now()? - wall, Clock::Thread.now()? - thread);
    eprintln!("wire: took {wall:.0?}, of which {thread:.0?} were processor time of this thread");
    Ok(measured)
}

/// The best clock for these measurements, determined by a trial.
fn clock(variants: &mut [Variant], limits: &Limits) -> Result<Clock> {
    let variant = variants.first_mut().context("nothing to measure")?;
    let metric = *variant.metrics().first().context("nothing to measure")?;
    variant.switch(limit(metric), limits)?;
    Clock::choose(|| variant.sample(metric, TRIAL, Clock::Wall).map(|_| ()))
}

/// How long a sample should take, in nanoseconds.
const fn length(metric: Metric) -> f64 {
    match metric.kind {
        Kind::TcpConnectReset => LONG_SAMPLE,
        _ => SAMPLE,
    }
}

/// The limit that a fence is compared with.
const fn limit(metric: Metric) -> On {
    match metric.kind {
        Kind::Denied => On::Drop,
        _ => On::Noop,
    }
}

/// What is measured between the same switches: everything, or only metrics with goals.
fn blocks(variants: &[Variant], everything: bool) -> Vec<(usize, Vec<Metric>)> {
    let of = |(index, variant): (usize, &Variant)| {
        let fence = &variant.name;
        let has_goal = |metric: &Metric| {
            fence.starts_with("enforce") && goals::has(&format!("wire/{metric}/peers"))
        };
        let mut metrics = variant.metrics();
        metrics.retain(|metric| everything || has_goal(metric));
        if variant.is_slow_to_switch() {
            return vec![(index, metrics)];
        }
        let alone = metrics.into_iter().map(|metric| (index, vec![metric]));
        alone.collect()
    };
    let all = variants.iter().enumerate().flat_map(of);
    all.filter(|(_, metrics)| !metrics.is_empty()).collect()
}

fn block(
    variant: &mut Variant,
    metrics: &[Metric],
    counts: &BTreeMap<Metric, u32>,
    (limits, clock): (&Limits, Clock),
) -> Result<Vec<(Metric, Taken)>> {
    let mut measure = |fence: bool| -> Result<Vec<f64>> {
        let mut on = None;
        let mut samples = Vec::new();
        for metric in metrics {
            let wanted = if fence { On::Subject } else { limit(*metric) };
            if on.replace(wanted) != Some(wanted) {
                variant.switch(wanted, limits)?;
            }
            let count = counts.get(metric).copied().unwrap_or(TRIAL);
            let sample = variant.sample(*metric, count, clock);
            samples.push(sample.with_context(|| format!("{metric}, {wanted:?}"))?);
        }
        Ok(samples)
    };
    let (before, fence, after) = (measure(false)?, measure(true)?, measure(false)?);
    let taken = before.iter().zip(&after).zip(&fence);
    let taken = taken.map(|((before, after), fence)| Taken {
        limit: f64::midpoint(*before, *after),
        fence: *fence,
    });
    Ok(metrics.iter().copied().zip(taken).collect())
}
