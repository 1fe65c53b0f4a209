//! How the policy engine grows: compile and plan, as far as the first map write.
//!
//! Pure computation on a drawn cluster: no kernel, no privileges. A change is measured as the agent
//! meets it, from the inputs it has just been handed to the list of writes; in between the last
//! result is taken as published and settled, so that nothing of it is measured again. Times are those
//! of the one thread that computes.

mod measure;
mod world;

use std::time::Duration;

use anyhow::Result;

use self::measure::Figures;
use crate::report::{heading, percentile, table};

/// Workloads in the cluster.
const SIZES: [usize; 2] = [10_000, 100_000];
/// The most rows, and how many thousandths their number may differ between the sizes.
const ROWS: usize = 20_000;
const SPREAD: usize = 10;
/// The fewest queries in a second.
const QUERIES: u64 = 100_000;

/// Measures and prints.
pub(crate) fn measure(rounds: usize) -> Result<()> {
    let [small, large] = SIZES;
    println!("Ringfence's policy engine at {small} and {large} workloads");
    let (small, large) = (
        measure::figures(small, rounds)?,
        measure::figures(large, rounds)?,
    );
    heading("Compile and plan, median and p99 of the processor time");
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
    heading("What comes out");
    table(
        &["", "10,000 workloads", "100,000 workloads", "goal", ""],
        &sizes(&small, &large),
    );
    Ok(())
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
        "queries a second",
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
