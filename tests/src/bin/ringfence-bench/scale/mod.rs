//! Scaling of the policy engine: compile and plan, up to the first map write; and of an event, from an
//! object to the map writes.
//!
//! Pure computation on a generated cluster: no kernel, no privileges. A change is measured as the
//! agent handles it, from its new inputs to the list of writes; between changes the previous result
//! is taken as published and settled, so that no part of it is measured again. Times are CPU times
//! of the one computing thread.

mod events;
mod measure;
mod recording;
mod world;

use std::time::Duration;

use anyhow::Result;

use self::measure::Figures;
use crate::report::{heading, percentile, table};

/// Numbers of workloads in the cluster.
const SIZES: [usize; 2] = [10_000, 100_000];
/// The maximum number of rows, and the allowed difference between the sizes in thousandths.
const ROWS: usize = 20_000;
const SPREAD: usize = 10;
/// The minimum number of queries per second.
const QUERIES: u64 = 100_000;

/// Measures and prints.
pub(crate) fn measure(rounds: usize) -> Result<()> {
    let [small, large] = SIZES;
    println!("Ringfence's policy engine at {small} and {large} workloads");
    let (small, large) = (
        measure::figures(small, rounds)?,
        measure::figures(large, rounds)?,
    );
    heading("Compile and plan, median and p99 of the CPU time");
    let columns = [
        "",
        "10,000 workloads",
        "p99",
        "100,000 workloads",
        "p99",
        "goal",
        "",
    ];
    table(&columns, &durations(&small, &large));
    heading("Compiled state");
    table(
        &["", "10,000 workloads", "100,000 workloads", "goal", ""],
        &sizes(&small, &large),
    );
    events::measure(rounds)
}

fn durations(small: &Figures, large: &Figures) -> Vec<Vec<String>> {
    let pairs = small.durations.iter().zip(&large.durations);
    pairs
        .map(|(small, large)| {
            let at = |samples: &[Duration], share| shown(percentile(samples, share));
            let (goal, ok) = match large.goal {
                Some(goal) => {
                    let met = percentile(&large.samples, 0.5) < goal;
                    (format!("under {}", shown(goal)), verdict(met))
                }
                None => (String::new(), String::new()),
            };
            vec![
                large.what.to_owned(),
                at(&small.samples, 0.5),
                at(&small.samples, 0.99),
                at(&large.samples, 0.5),
                at(&large.samples, 0.99),
                goal,
                ok,
            ]
        })
        .collect()
}

fn sizes(small: &Figures, large: &Figures) -> Vec<Vec<String>> {
    let row = |what: &str, small: String, large: String, goal: String, met: Option<bool>| {
        vec![
            what.to_owned(),
            small,
            large,
            goal,
            met.map_or_else(String::new, verdict),
        ]
    };
    let steady = small.rows.abs_diff(large.rows) * 1000 <= small.rows * SPREAD;
    let mut rows = vec![row(
        "policy rows",
        small.rows.to_string(),
        large.rows.to_string(),
        format!("under {ROWS}, same within {} %", SPREAD / 10),
        Some(small.rows.max(large.rows) < ROWS && steady),
    )];
    let other = small.counts.iter().zip(&large.counts);
    rows.extend(other.map(|((what, small), (_, large))| {
        row(
            what,
            small.to_string(),
            large.to_string(),
            String::new(),
            None,
        )
    }));
    rows.push(row(
        "queries per second",
        small.queries.to_string(),
        large.queries.to_string(),
        format!("at least {QUERIES}"),
        Some(small.queries.min(large.queries) >= QUERIES),
    ));
    rows
}

fn verdict(met: bool) -> String {
    if met { "ok" } else { "MISSED" }.to_owned()
}

fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 0.1 {
        format!("{seconds:.2} s")
    } else if seconds >= 0.001 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} µs", seconds * 1e6)
    }
}
