//! A node full of workloads: the time until a start with nothing in the kernel enforces, with and without
//! filters that are the fence until links are attached.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ringfence_testbed::interrupt;

use super::LINKS_ONLY;
use super::starts::{AgentProcess, clean_up, wait_for_socket};
use crate::bench_node::{BenchNode, Size};
use crate::figures::{Figure, Unit};
use crate::report::{distribution, heading, table};

/// Local workloads: the goal for a start is for so many.
const ENDPOINTS: u32 = 100;
const FILTERS_FIRST: &str = "attach-bridge = true\n";

/// Measures and prints.
pub(super) fn measure(peers: u32, times: usize) -> Result<Vec<Figure>> {
    let size = Size {
        peers,
        endpoints: ENDPOINTS,
    };
    let mut bench = BenchNode::start_with(size, FILTERS_FIRST)?;
    bench.agent.kill()?;
    let filters_first = time_starts(&bench, times)?;
    let config = bench.agent.config_path();
    let text = fs::read_to_string(&config).context("reading the configuration")?;
    let text = text.replace(FILTERS_FIRST, LINKS_ONLY);
    fs::write(&config, text).context("writing the configuration")?;
    let links_only = time_starts(&bench, times)?;
    let measured = [("filters-first", filters_first), ("links-only", links_only)];
    heading("Start with 100 workloads on the node and nothing in the kernel, until `enforcing`");
    let row = |(name, samples): &(&str, Vec<Duration>)| {
        let mut row = vec![(*name).to_owned(), samples.len().to_string()];
        row.extend(distribution(samples));
        row
    };
    let rows: Vec<_> = measured.iter().map(row).collect();
    table(&["", "times", "p50", "p90", "p99", "worst"], &rows);
    let figure = |(name, samples): &(&str, Vec<Duration>)| {
        let samples: Vec<f64> = samples.iter().map(|it| it.as_secs_f64() * 1e3).collect();
        Figure::of(
            format!("control/full-start/{name}@{peers}"),
            Unit::Ms,
            &samples,
        )
    };
    Ok(measured.iter().map(figure).collect())
}

fn time_starts(bench: &BenchNode, times: usize) -> Result<Vec<Duration>> {
    let mut samples = Vec::new();
    for _ in 0..times {
        interrupt::check()?;
        clean_up(&bench.agent)?;
        let at = Instant::now();
        let started = AgentProcess::agent(&bench.agent)?;
        wait_for_socket(&bench.agent)?;
        bench.wait_enforcing()?;
        samples.push(at.elapsed());
        drop(started);
    }
    Ok(samples)
}
