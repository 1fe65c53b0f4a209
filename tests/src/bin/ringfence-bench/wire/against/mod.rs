//! Compares this build of the agent with another one, packet by packet on the same links.
//!
//! Both builds' agents run on nodes that look the same to the kernel programs; their programs are
//! put on the links of one more such node in turn. Every figure is a ratio within one round. The
//! control compares this build with itself: if it is not 1, the run does not count. `cargo xtask
//! bench` builds the other agent; nothing is built here.

mod connections;
mod estimate;
mod frames;
mod links;
mod report;
mod rounds;
mod signed_rank;
mod starter;
mod streams;
mod subject;
mod twin;
mod verdict;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use self::estimate::Estimate;
use self::links::Links;
use self::report::{Report, Row};
use self::rounds::{FEWEST_ROUNDS, Outcome, Plan};
use self::starter::Builds;
use super::metric::Metric;
use crate::arguments::{Options, Output};

/// Default number of rounds, and the time after which no round begins.
const ROUNDS: usize = 32;
const TIME: Duration = Duration::from_secs(300);

/// Measures and prints the result; an error if it does not count.
pub(crate) fn measure(options: &Options, revision: &str) -> Result<()> {
    let this = ringfence_testbed::agent::binary()?;
    let that = options.against_agent.as_deref().with_context(|| {
        format!(
            "the agent of {revision} is not built: run `cargo xtask bench --against {revision}`"
        )
    })?;
    let metrics: Vec<Metric> = streams::KINDS
        .into_iter()
        .flat_map(|kind| [false, true].map(|v6| Metric { kind, v6 }))
        .filter(|metric| options.wants(&format!("wire/{metric}")))
        .collect();
    ensure!(
        !metrics.is_empty(),
        "none of the metrics is measured between builds"
    );
    let peers = options.peers.iter().copied().max().unwrap_or_default();
    let plan = Plan {
        rounds: options.rounds(ROUNDS, FEWEST_ROUNDS),
        time: options.rounds.is_none().then_some(TIME),
        seed: options.seed(),
    };
    ensure!(
        plan.rounds >= FEWEST_ROUNDS,
        "{} rounds are too few for an interval: --rounds {FEWEST_ROUNDS}",
        plan.rounds
    );
    let builds = Builds {
        this: &this,
        that,
        peers,
    };
    let outcome = run(builds, &metrics, plan)?;
    let name = |given: &Option<String>, otherwise: &str| {
        let given = given.as_deref();
        given.unwrap_or(otherwise).to_owned()
    };
    let names = (
        name(&options.this_name, "as it is"),
        name(&options.against_name, revision),
    );
    let report = report(outcome, names, peers)?;
    report.print();
    if options.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    ensure!(
        report.counts,
        "the control shows that this run does not count; repeat it on a less busy machine"
    );
    let slower = report.slower();
    ensure!(
        !options.check || slower.is_empty(),
        "slower than {}: {}",
        report.that,
        slower.join(", ")
    );
    Ok(())
}

/// Starts agents on one thread and measures them on another.
fn run(builds: Builds<'_>, metrics: &[Metric], plan: Plan) -> Result<Outcome> {
    let links = Links::attach()?;
    let (give, sets) = mpsc::sync_channel(0);
    let (give_back, take_back) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || starter::run(builds, plan.rounds, &give, &take_back));
        // When this thread ends, the other one's next set has no receiver.
        let measure = move || rounds::run(links, (&sets, &give_back), metrics, plan);
        let measured = scope.spawn(measure).join();
        measured.map_err(|_| anyhow!("the measurement panicked"))?
    })
}

fn report(outcome: Outcome, (this, that): (String, String), peers: u32) -> Result<Report> {
    let Outcome {
        measured,
        same_programs,
    } = outcome;
    let rounds = measured.values().map(Vec::len).max().unwrap_or_default();
    let row = |(metric, rounds): (Metric, Vec<_>)| -> Result<Row> {
        let estimate = Estimate::of(&rounds);
        let estimate = estimate.with_context(|| format!("too few rounds of {metric}"))?;
        Ok(Row::new(format!("wire/{metric}"), estimate))
    };
    let metrics: Vec<Row> = measured.into_iter().map(row).collect::<Result<_>>()?;
    let controls = metrics.iter().map(|row| row.estimate.control);
    let counts = controls.into_iter().all(verdict::is_one);
    Ok(Report {
        this,
        that,
        same_programs,
        rounds,
        peers,
        metrics,
        counts,
    })
}
