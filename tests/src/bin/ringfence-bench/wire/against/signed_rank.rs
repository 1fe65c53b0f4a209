//! The centre of a few values and its confidence interval: the Hodges-Lehmann estimate with the
//! interval of Wilcoxon's signed-rank test.
//!
//! The values must be independent and come from one distribution that is symmetric about its
//! centre; nothing else is assumed, so a few outliers do little harm. The interval then contains
//! the centre with at least the wanted confidence, for any number of values that allows it at all.
//! Pure computation.

use serde::Serialize;

/// An estimate and the interval around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) centre: f64,
    pub(super) high: f64,
}

impl Interval {
    /// The interval after applying an increasing function to each value.
    pub(super) fn map(self, function: fn(f64) -> f64) -> Self {
        Self {
            low: function(self.low),
            centre: function(self.centre),
            high: function(self.high),
        }
    }
}

/// The estimate: the median of the means of all pairs, each value with itself included. None without
/// values.
pub(super) fn centre(values: &[f64]) -> Option<f64> {
    median(&pair_means(values))
}

/// The estimate and its interval; none if there are too few values for that confidence.
pub(super) fn interval(values: &[f64], confidence: f64) -> Option<Interval> {
    let means = pair_means(values);
    let cut = cut(values.len(), confidence)?;
    Some(Interval {
        low: *means.get(cut)?,
        centre: median(&means)?,
        high: *means.get(means.len().checked_sub(cut + 1)?)?,
    })
}

/// The means of all pairs in ascending order.
fn pair_means(values: &[f64]) -> Vec<f64> {
    let from = |(index, first): (usize, &f64)| -> Vec<f64> {
        let others = values.get(index..).unwrap_or_default();
        others.iter().map(|other| first.midpoint(*other)).collect()
    };
    let mut means: Vec<f64> = values.iter().enumerate().flat_map(from).collect();
    means.sort_unstable_by(f64::total_cmp);
    means
}

/// Of ascending values.
fn median(sorted: &[f64]) -> Option<f64> {
    let (below, above) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some(sorted.get(below)?.midpoint(*sorted.get(above)?))
}

/// How many of the pairs' means are outside the interval at each end: the largest rank sum that is
/// not exceeded with a probability of at most half of one minus the confidence.
fn cut(count: usize, confidence: f64) -> Option<usize> {
    let tail = (1.0 - confidence) / 2.0;
    let mut below = 0.0;
    let mut cut = None;
    for (sum, probability) in rank_sums(count).into_iter().enumerate() {
        below += probability;
        if below > tail {
            break;
        }
        cut = Some(sum);
    }
    cut
}

/// The distribution of the sum of the ranks from 1 to `count` with positive sign, if both signs are
/// equally likely.
fn rank_sums(count: usize) -> Vec<f64> {
    let mut sums = vec![1.0];
    for rank in 1..=count {
        let mut next = vec![0.0; sums.len() + rank];
        for (sum, probability) in sums.iter().enumerate() {
            for with in [sum, sum + rank] {
                if let Some(place) = next.get_mut(with) {
                    *place += probability / 2.0;
                }
            }
        }
        sums = next;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn rank_sums_are_those_of_the_tables() {
        let below = |count, most: usize| -> f64 { rank_sums(count)[..=most].iter().sum() };
        // Critical values of the signed-rank test.
        assert!((below(6, 0) - 1.0 / 64.0).abs() < 1e-12);
        assert!((below(10, 8) - 0.024_414).abs() < 1e-6);
        assert!((below(20, 52) - 0.024_220).abs() < 1e-6);
        assert!((rank_sums(30).iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_interval_leaves_out_what_the_tables_say() {
        assert_eq!(cut(5, 0.95), None);
        assert_eq!(cut(6, 0.95), Some(0));
        assert_eq!(cut(10, 0.95), Some(8));
        assert_eq!(cut(20, 0.95), Some(52));
        assert_eq!(interval(&[1.0; 5], 0.95), None);
    }

    #[test]
    fn the_estimate_is_between_the_values() {
        assert_eq!(centre(&[]), None);
        assert_eq!(centre(&[3.0]), Some(3.0));
        assert_eq!(centre(&[1.0, 2.0, 6.0]), Some(2.75));
        let of_six = interval(&[6.0, 1.0, 5.0, 2.0, 4.0, 3.0], 0.95).unwrap();
        assert_eq!((of_six.low, of_six.centre, of_six.high), (1.0, 3.5, 6.0));
    }

    /// A number between 0 and 1.
    fn uniform(rng: &mut Rng) -> f64 {
        (f64::from(u32::try_from(rng.below(1 << 30)).unwrap()) + 0.5) / f64::from(1 << 30)
    }

    /// The share of intervals that contain the centre, and their mean width.
    fn coverage(draw: impl Fn(&mut Rng) -> f64, count: usize) -> (f64, f64) {
        const TRIALS: u32 = 2000;
        let mut rng = Rng(7);
        let (mut held, mut width) = (0, 0.0);
        for _ in 0..TRIALS {
            let values: Vec<f64> = (0..count).map(|_| 1.0 + draw(&mut rng)).collect();
            let found = interval(&values, 0.95).unwrap();
            held += u32::from((found.low..=found.high).contains(&1.0));
            width += found.high - found.low;
        }
        (
            f64::from(held) / f64::from(TRIALS),
            width / f64::from(TRIALS),
        )
    }

    fn normal(rng: &mut Rng) -> f64 {
        (-2.0 * uniform(rng).ln()).sqrt() * (std::f64::consts::TAU * uniform(rng)).cos()
    }

    #[test]
    fn the_interval_holds_the_centre_as_often_as_it_says() {
        let laplace = |rng: &mut Rng| uniform(rng).ln() - uniform(rng).ln();
        // One in ten is an outlier.
        let spoiled = |rng: &mut Rng| {
            let far = if rng.below(10) == 0 { 10.0 } else { 1.0 };
            far * normal(rng)
        };
        for count in [6, 9, 16, 24] {
            for (name, (share, _)) in [
                ("normal", coverage(normal, count)),
                ("uniform", coverage(|rng| uniform(rng) - 0.5, count)),
                ("laplace", coverage(laplace, count)),
                ("spoiled", coverage(spoiled, count)),
            ] {
                // Three standard errors of 2,000 trials are 0.015.
                assert!(share > 0.935, "{name}, {count} values: {share}");
            }
        }
    }

    #[test]
    fn the_interval_is_hardly_wider_than_the_one_for_normal_values() {
        let (share, width) = coverage(normal, 24);
        // Student's interval for 24 values is 2 x 2.069 / sqrt(24) wide.
        assert!(share < 0.965 && width < 1.1 * 0.845, "{share} {width}");
    }

    #[test]
    fn a_few_values_far_away_do_little_harm() {
        let mut values = vec![
            1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0, 1.0, 1.0,
        ];
        let before = interval(&values, 0.95).unwrap();
        values[0] = 50.0;
        let after = interval(&values, 0.95).unwrap();
        assert!((after.centre - before.centre).abs() < 0.01);
        assert!(after.high < 1.05, "{after:?}");
    }
}
