//! From repeats to ratios.
//!
//! The repeats of a round give one value, because they share the round's agents. The values of the
//! rounds are independent of each other; the intervals come from their spread. Both agents of this
//! build count towards its ratio to the other build. Pure computation.

use serde::Serialize;

use super::rounds::Repeat;
use super::signed_rank::{Interval, centre, interval};

/// Confidence of the intervals.
pub(super) const CONFIDENCE: f64 = 0.95;

/// The result for one metric.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Estimate {
    /// Nanoseconds of one operation at the limit.
    pub(super) limit: f64,
    /// Ratio of this build to the limit.
    pub(super) this: f64,
    /// Ratio of the other build to the limit.
    pub(super) that: f64,
    /// Ratio of this build to the other one.
    pub(super) ratio: Interval,
    /// Ratio of this build to itself, from another start.
    pub(super) control: Interval,
}

impl Estimate {
    /// From the repeats of each round; none if there are too few rounds for an interval.
    pub(super) fn of(rounds: &[Vec<Repeat>]) -> Option<Self> {
        let values = |value: fn(&Repeat) -> f64| -> Vec<f64> {
            let of_round = |repeats: &Vec<Repeat>| -> Option<f64> {
                let values: Vec<f64> = repeats.iter().map(value).collect();
                centre(&values)
            };
            rounds.iter().filter_map(of_round).collect()
        };
        let single = |value| Some(centre(&values(value))?.exp());
        let between = |value| Some(interval(&values(value), CONFIDENCE)?.map(f64::exp));
        Some(Self {
            limit: single(|repeat| repeat.limit)?,
            this: single(|repeat| new(repeat) - repeat.limit)?,
            that: single(|repeat| repeat.that - repeat.limit)?,
            ratio: between(|repeat| new(repeat) - repeat.that)?,
            control: between(|repeat| repeat.control - repeat.this)?,
        })
    }
}

/// Both agents of this build.
fn new(repeat: &Repeat) -> f64 {
    repeat.this.midpoint(repeat.control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Rounds of a build that is slower by this factor: agents differ by some percent from start to
    /// start, samples by some more.
    fn rounds(slower: f64, seed: u64) -> Vec<Vec<Repeat>> {
        let mut rng = Rng(seed);
        let mut noise = |most: f64| -> f64 {
            let drawn = f64::from(u32::try_from(rng.below(2001)).unwrap());
            most * (drawn / 1000.0 - 1.0)
        };
        let round = |_| {
            let [this, that, control] = [0; 3].map(|_| noise(0.02));
            let repeat = |_| Repeat {
                limit: 2000_f64.ln() + noise(0.05),
                this: 2600_f64.ln() + this + noise(0.05),
                that: (2600.0 / slower).ln() + that + noise(0.05),
                control: 2600_f64.ln() + control + noise(0.05),
            };
            (0..16).map(repeat).collect()
        };
        (0..16).map(round).collect()
    }

    #[test]
    fn ratios_are_of_new_to_old_and_of_each_to_the_limit() {
        let estimate = Estimate::of(&rounds(1.05, 1)).unwrap();
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.01;
        assert!(near(estimate.limit, 2000.0), "{estimate:?}");
        assert!(near(estimate.this, 1.3) && near(estimate.that, 1.3 / 1.05));
        assert!(near(estimate.ratio.centre, 1.05) && near(estimate.control.centre, 1.0));
        assert!(estimate.ratio.low > 1.03 && estimate.ratio.high < 1.07);
        assert!(Estimate::of(&rounds(1.0, 1)[..5]).is_none());
    }

    #[test]
    fn intervals_hold_what_they_are_about_although_agents_differ() {
        let held = |slower: f64, part: fn(Estimate) -> Interval, wanted: f64| {
            let estimates = (0..200).map(|seed| part(Estimate::of(&rounds(slower, seed)).unwrap()));
            estimates
                .filter(|found| (found.low..=found.high).contains(&wanted))
                .count()
        };
        // 190 of 200 are expected; fewer than 180 has a probability of one in a thousand.
        assert!(held(1.03, |estimate| estimate.ratio, 1.03) >= 180);
        assert!(held(1.03, |estimate| estimate.control, 1.0) >= 180);
    }
}
