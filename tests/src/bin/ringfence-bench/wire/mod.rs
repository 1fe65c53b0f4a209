//! What a packet costs on the wire, against the limit and against what would be used instead.
//!
//! Every figure is a ratio to a program of two instructions on the same hooks of the same interfaces,
//! taken just before and just after, with the same packets. Rounds take all of them in random order;
//! the figure is the median over rounds. Each packet must arrive, or, denied, must not.

pub(crate) mod against;
mod hooks;
mod ipset;
mod metric;
mod nftables;
mod rounds;
mod stopwatch;
mod table;
mod traffic;
mod variant;
mod world;

use std::thread;

use anyhow::{Result, anyhow};
use ringfence_testbed::interrupt;

use self::metric::Metric;
use self::nftables::Lookup;
use self::rounds::Plan;
use self::variant::Variant;
use crate::arguments::Options;
use crate::figures::Figure;

/// Rounds unless told otherwise.
const ROUNDS: usize = 24;
const QUICK_ROUNDS: usize = 6;
/// What no goal is about is measured in one round of so many, unless it was asked for.
const SELDOM: usize = 4;
/// The most peers with a rule each: at 10,000 of them a single packet takes a millisecond.
const LINEAR: u32 = 1000;

/// Measures, and prints tables unless figures are wanted instead.
pub(crate) fn measure(options: &Options) -> Result<Vec<Figure>> {
    let metrics: Vec<Metric> = Metric::all()
        .into_iter()
        .filter(|metric| options.wants(&format!("wire/{metric}")))
        .collect();
    if metrics.is_empty() {
        return Ok(Vec::new());
    }
    let mut variants = variants(options, &metrics)?;
    let narrowed = metrics.len() < Metric::all().len() || options.has_variants();
    let plan = Plan {
        rounds: options.rounds(ROUNDS, QUICK_ROUNDS),
        seldom: if narrowed { 1 } else { SELDOM },
        seed: options.seed(),
    };
    // No other thread is to stay where that one stays.
    let measured = thread::scope(|scope| {
        let run = || rounds::run(&mut variants, &metrics, plan);
        let joined = scope.spawn(run).join();
        joined.map_err(|_| anyhow!("the measurement panicked"))?
    })?;
    table::print(&metrics, &measured);
    Ok(table::figures(&metrics, &measured, &options.peers))
}

/// Every fence that is wanted.
fn variants(options: &Options, metrics: &[Metric]) -> Result<Vec<Variant>> {
    let mut variants = Vec::new();
    let most = options.peers.iter().copied().max().unwrap_or_default();
    if options.wants_variant("none") {
        variants.push(Variant::open_way()?);
    }
    let everywhere = options.has_variants();
    let tracks_flows = everywhere || metrics.iter().any(|metric| metric.kind.opens_flows());
    for (name, all_maps) in [("flow-table", false), ("all-maps", true)] {
        if options.wants_variant(name) && tracks_flows {
            variants.push(Variant::flow_table(name, all_maps, everywhere)?);
        }
    }
    if options.wants_variant("nft-sets") {
        variants.push(Variant::nftables("nft-sets", Lookup::Sets, most)?);
    }
    if options.wants_variant("nft-linear") {
        let peers = most.min(LINEAR);
        let name = format!("nft-linear@{peers}");
        variants.push(Variant::nftables(&name, Lookup::Linear, peers)?);
    }
    if options.wants_variant("ipset") {
        variants.push(Variant::ipset(most)?);
    }
    let agents: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = options
            .peers
            .iter()
            .map(|peers| scope.spawn(|| Variant::ringfence(*peers)))
            .collect();
        starts
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    for agent in agents {
        let pair = agent.map_err(|_| anyhow!("starting an agent panicked"))??;
        let wanted = |variant: &Variant| options.wants_variant(&variant.name);
        variants.extend(pair.into_iter().filter(wanted));
    }
    interrupt::check()?;
    Ok(variants)
}
