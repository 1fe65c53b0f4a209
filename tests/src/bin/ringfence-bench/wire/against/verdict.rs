//! What the intervals mean, and whether a run counts.
//!
//! A build is not slower if the interval of its ratio to the other build reaches 1.01 or lower. A
//! run counts if the control, two starts of one build, is between 0.99 and 1.01 for every metric.
//! Pure; nothing is measured or printed here.

use std::fmt;

use serde::Serialize;

use super::signed_rank::Interval;

/// A ratio must differ from one by more than this to matter.
const TOLERANCE: f64 = 0.01;

/// How one build compares with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    NotSlower,
    Slower,
    Faster,
}

impl Verdict {
    /// By the interval of the ratio new to old.
    pub(super) fn of(ratio: Interval) -> Self {
        if ratio.low > 1.0 + TOLERANCE {
            Self::Slower
        } else if ratio.high < 1.0 - TOLERANCE {
            Self::Faster
        } else {
            Self::NotSlower
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSlower => "not slower",
            Self::Slower => "slower",
            Self::Faster => "faster",
        })
    }
}

/// Whether a control is within its bounds.
pub(super) fn is_one(control: Interval) -> bool {
    (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&control.centre)
}

/// The last line of the output: how many metrics have which verdict, and whether the run counts.
/// The arguments are the ratios and controls of each metric.
pub(super) fn summary(against: &str, outcomes: &[(Interval, Interval)]) -> String {
    let number = |verdict: Verdict| {
        let verdicts = outcomes.iter().map(|(ratio, _)| Verdict::of(*ratio));
        (verdicts.filter(|found| *found == verdict).count(), verdict)
    };
    let all = [Verdict::NotSlower, Verdict::Slower, Verdict::Faster].map(number);
    let counts = all.into_iter().filter(|(number, _)| *number > 0);
    let counts: Vec<String> = counts
        .map(|(number, verdict)| format!("{number} {verdict}"))
        .collect();
    let outside = outcomes.iter().filter(|(_, control)| !is_one(*control));
    let control = match outside.count() {
        0 => "control within 0.99–1.01".to_owned(),
        number => format!("control outside 0.99–1.01 for {number}: this run does not count"),
    };
    let metrics = match outcomes.len() {
        1 => "1 metric".to_owned(),
        number => format!("{number} metrics"),
    };
    format!(
        "{metrics} against {against}: {}; {control}",
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: f64, centre: f64, high: f64) -> Interval {
        Interval { low, centre, high }
    }

    #[test]
    fn the_interval_bound_decides_the_verdict() {
        for (low, high, verdict) in [
            (1.011, 1.05, Verdict::Slower),
            (1.01, 1.05, Verdict::NotSlower),
            (0.97, 1.03, Verdict::NotSlower),
            (0.97, 0.99, Verdict::NotSlower),
            (0.97, 0.989, Verdict::Faster),
        ] {
            assert_eq!(Verdict::of(interval(low, 1.0, high)), verdict);
        }
    }

    #[test]
    fn the_estimate_decides_whether_a_control_counts() {
        assert!(is_one(interval(0.98, 0.99, 1.0)));
        assert!(is_one(interval(1.0, 1.01, 1.02)));
        assert!(!is_one(interval(0.98, 0.985, 0.99)));
        assert!(!is_one(interval(1.0, 1.011, 1.02)));
    }

    #[test]
    fn the_summary_counts_verdicts_and_says_whether_they_count() {
        let same = interval(0.995, 1.0, 1.005);
        let more = interval(1.02, 1.03, 1.04);
        assert_eq!(
            summary("c4d115e", &[(same, same), (same, same)]),
            "2 metrics against c4d115e: 2 not slower; control within 0.99–1.01"
        );
        assert_eq!(
            summary("c4d115e", &[(more, same)]),
            "1 metric against c4d115e: 1 slower; control within 0.99–1.01"
        );
        assert_eq!(
            summary("c4d115e", &[(same, same), (more, more)]),
            "2 metrics against c4d115e: 1 not slower, 1 slower; \
             control outside 0.99–1.01 for 1: this run does not count"
        );
    }
}
