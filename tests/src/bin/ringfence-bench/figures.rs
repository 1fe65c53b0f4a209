//! Figures: the results of measurements, for tables, JSON and the goals.
//!
//! A figure is a median with its quartiles. Its name says what was measured, starting with the
//! group: `wire/established-udp4/enforce@10000`. Nothing is measured or compared here.

use serde::Serialize;

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// A ratio to the no-op program, or to what the name says, within one run.
    Ratio,
    /// Nanoseconds.
    Ns,
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Instructions, rows, entries.
    Count,
}

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured: `group/metric/variant`, with `@peers` where they matter.
    pub(crate) name: String,
    /// Its unit.
    pub(crate) unit: Unit,
    /// The median.
    pub(crate) median: f64,
    /// The first quartile.
    pub(crate) low: f64,
    /// The third quartile.
    pub(crate) high: f64,
    /// The 99th percentile.
    pub(crate) p99: f64,
    /// Number of samples.
    pub(crate) samples: usize,
}

impl Figure {
    /// The figure of these samples; all zero without samples.
    pub(crate) fn of(name: impl Into<String>, unit: Unit, samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Self {
            name: name.into(),
            unit,
            median: at(&sorted, 0.5),
            low: at(&sorted, 0.25),
            high: at(&sorted, 0.75),
            p99: at(&sorted, 0.99),
            samples: sorted.len(),
        }
    }
}

/// The percentile by nearest rank.
fn at(sorted: &[f64], share: f64) -> f64 {
    let count = f64::from(u32::try_from(sorted.len()).unwrap_or(u32::MAX));
    let below = sorted
        .iter()
        .zip(1_u32..)
        .find(|(_, rank)| f64::from(*rank) >= share * count);
    below.map_or(0.0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_the_median_quartiles_and_p99_of_its_samples() {
        let figure = Figure::of("group/metric/variant", Unit::Ns, &[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(
            (figure.low, figure.median, figure.high, figure.p99),
            (2.0, 3.0, 4.0, 5.0)
        );
        assert_eq!(figure.samples, 5);
        assert_eq!(Figure::of("nothing", Unit::Ratio, &[]).median, 0.0);
    }
}
