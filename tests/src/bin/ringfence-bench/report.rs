//! Text output: percentiles and aligned tables.
//!
//! Text goes to stdout, or to stderr if stdout is reserved for figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static STDOUT_RESERVED: AtomicBool = AtomicBool::new(false);

/// Reserves stdout for figures; from now on text goes to stderr.
pub(crate) fn keep_stdout() {
    STDOUT_RESERVED.store(true, Ordering::Relaxed);
}

/// Prints a line.
pub(crate) fn line(text: &str) {
    if STDOUT_RESERVED.load(Ordering::Relaxed) {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}

/// The percentile `share` (0 to 1) of the samples; zero without samples.
pub(crate) fn percentile<T: Copy + Ord + Default>(samples: &[T], share: f64) -> T {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    // Nearest rank.
    let below = sorted
        .iter()
        .zip(1_u32..)
        .find(|(_, rank)| f64::from(*rank) >= share * samples.len().min(u32::MAX as usize) as f64);
    below.map_or_else(T::default, |(value, _)| *value)
}

/// Milliseconds with two decimals.
pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// p50, p90, p99 and maximum of some durations.
pub(crate) fn distribution(samples: &[Duration]) -> Vec<String> {
    let at = |share| milliseconds(percentile(samples, share));
    vec![at(0.5), at(0.9), at(0.99), at(1.0)]
}

/// Prints a heading.
pub(crate) fn heading(text: &str) {
    line(&format!("\n{text}"));
}

/// Prints a table; every column but the first is right-aligned.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in &all {
        let cell = |(column, cell): (usize, &String)| {
            let width = width(column);
            if column == 0 {
                format!("{cell:width$}")
            } else {
                format!("{cell:>width$}")
            }
        };
        let cells: Vec<_> = row.iter().enumerate().map(cell).collect();
        line(&format!("  {}", cells.join("   ").trim_end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let samples = [5, 1, 4, 2, 3];
        assert_eq!(percentile(&samples, 0.5), 3);
        assert_eq!(percentile(&samples, 0.9), 5);
        assert_eq!(percentile(&samples, 0.2), 1);
        assert_eq!(percentile::<u32>(&[], 0.5), 0);
    }
}
