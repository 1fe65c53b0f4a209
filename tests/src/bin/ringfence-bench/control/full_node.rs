//! A node full of workloads, with and without filters that are the fence until links are attached: the time
//! until a start with nothing in the kernel enforces, and until a new endpoint is fenced.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ringfence_testbed::interrupt;

use super::requests;
use super::series::Series;
use super::starts::{AgentProcess, clean_up, wait_for_socket};
use crate::bench_node::{BenchNode, Size};
use crate::figures::{Figure, Unit};
use crate::report::{distribution, heading, table};

/// Local workloads: the goal for a start is for so many.
const ENDPOINTS: u32 = 100;
/// What a configuration begins with, by variant.
const VARIANTS: [(&str, &str); 2] = [
    ("filters-first", "attach-bridge = true\n"),
    ("links-only", "attach-bridge = false\n"),
];

/// Measures and prints. Returns also the series of new endpoints.
pub(super) fn measure(
    peers: u32,
    starts: usize,
    requests: usize,
) -> Result<(Vec<Figure>, Vec<Series>)> {
    let mut bench = BenchNode::start(Size {
        peers,
        endpoints: ENDPOINTS,
    })?;
    let config = bench.agent.config_path();
    let rest = fs::read_to_string(&config).context("reading the configuration")?;
    let (mut rows, mut figures, mut series) = (Vec::new(), Vec::new(), Vec::new());
    for (name, first) in VARIANTS {
        bench.agent.kill()?;
        fs::write(&config, format!("{first}{rest}")).context("writing the configuration")?;
        let samples = time_starts(&bench, starts)?;
        let variant = format!("{name}@{peers}");
        let mut row = vec![variant.clone(), samples.len().to_string()];
        row.extend(distribution(&samples));
        rows.push(row);
        let samples: Vec<f64> = samples.iter().map(|it| it.as_secs_f64() * 1e3).collect();
        let figure = format!("control/full-start/{variant}");
        figures.push(Figure::of(figure, Unit::Ms, &samples));
        bench.agent.restart()?;
        bench.wait_enforcing()?;
        series.push(requests::endpoint(&bench, requests)?.of_variant(variant));
    }
    heading("Start with 100 workloads on the node and nothing in the kernel, until `enforcing`");
    table(&["", "times", "p50", "p90", "p99", "worst"], &rows);
    Ok((figures, series))
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
