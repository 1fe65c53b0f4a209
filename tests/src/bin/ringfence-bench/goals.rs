//! The goals of the design as data, and the comparison with figures.
//!
//! A figure meets its goal if it is at most the goal. A requested figure that was not measured
//! misses it.

use crate::figures::{Figure, Unit};

/// The part of a figure that a goal limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Median,
    P99,
}

/// An upper limit for a figure.
#[derive(Clone, Copy, Debug)]
struct Goal {
    figure: &'static str,
    part: Part,
    goal: f64,
    stretch: Option<f64>,
}

const fn median(figure: &'static str, goal: f64, stretch: f64) -> Goal {
    Goal {
        figure,
        part: Part::Median,
        goal,
        stretch: Some(stretch),
    }
}

const fn growth(figure: &'static str) -> Goal {
    Goal {
        figure,
        part: Part::Median,
        goal: 1.04,
        stretch: None,
    }
}

/// The goals of design §9, in the unit of each figure.
const GOALS: [Goal; 20] = [
    median("wire/established-udp4/enforce@10000", 1.09, 1.06),
    median("wire/established-udp6/enforce@10000", 1.09, 1.06),
    median("wire/new-udp4/enforce@10000", 1.38, 1.28),
    median("wire/new-udp6/enforce@10000", 1.38, 1.28),
    median("wire/denied-udp4/enforce@10000", 1.35, 1.25),
    median("wire/denied-udp6/enforce@10000", 1.35, 1.25),
    median("wire/tcp-connect-reset4/enforce@10000", 1.06, 1.04),
    median("wire/tcp-connect-reset6/enforce@10000", 1.06, 1.04),
    growth("wire/established-udp4/peers"),
    growth("wire/established-udp6/peers"),
    growth("wire/new-udp4/peers"),
    growth("wire/new-udp6/peers"),
    growth("wire/denied-udp4/peers"),
    growth("wire/denied-udp6/peers"),
    growth("wire/tcp-connect-reset4/peers"),
    growth("wire/tcp-connect-reset6/peers"),
    median("control/policy-change/ringfence@10000", 5.0, 1.0),
    Goal {
        figure: "control/policy-change/ringfence@10000",
        part: Part::P99,
        goal: 20.0,
        stretch: None,
    },
    median("control/from-empty/ringfence@10000", 150.0, 60.0),
    median("memory/policy/30-endpoints@10000", 16e6, 2e6),
];

/// The comparison of a figure with a goal.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The name of the figure, with the part if it is not the median.
    pub(crate) name: String,
    /// The measured value, the goal and the stretch goal.
    pub(crate) row: [String; 3],
    /// Whether the goal is met.
    pub(crate) met: bool,
    /// Whether the stretch goal is met, if there is one.
    pub(crate) stretched: Option<bool>,
}

/// Whether a figure of this name has a goal.
pub(crate) fn has(figure: &str) -> bool {
    GOALS.iter().any(|goal| goal.figure == figure)
}

/// Compares figures with every goal whose figure was requested.
pub(crate) fn compare(figures: &[Figure], requested: impl Fn(&str) -> bool) -> Vec<Outcome> {
    let goals = GOALS.iter().filter(|goal| requested(goal.figure));
    goals.map(|goal| goal.compare(figures)).collect()
}

impl Goal {
    fn compare(&self, figures: &[Figure]) -> Outcome {
        let figure = figures.iter().find(|figure| figure.name == self.figure);
        let value = figure.map(|figure| match self.part {
            Part::Median => figure.median,
            Part::P99 => figure.p99,
        });
        let within = |most: f64| value.is_some_and(|value| value <= most);
        let unit = figure.map_or(Unit::Count, |figure| figure.unit);
        Outcome {
            name: match self.part {
                Part::Median => self.figure.to_owned(),
                Part::P99 => format!("{} (p99)", self.figure),
            },
            row: [
                value.map_or_else(|| "not measured".to_owned(), |value| shown(value, unit)),
                shown(self.goal, unit),
                self.stretch
                    .map_or_else(String::new, |stretch| shown(stretch, unit)),
            ],
            met: within(self.goal),
            stretched: self.stretch.map(within),
        }
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ratio => format!("{value:.3}"),
        Unit::Ns => format!("{value:.0} ns"),
        Unit::Ms => format!("{value:.2} ms"),
        Unit::Bytes => format!("{:.1} MB", value / 1e6),
        Unit::Count => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "wire/established-udp4/enforce@10000";

    fn compared(value: f64) -> Outcome {
        let figures = [Figure::of(NAME, Unit::Ratio, &[value])];
        let mut outcomes = compare(&figures, |name| name == NAME);
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    #[test]
    fn figures_are_compared_with_goal_and_stretch_goal() {
        for (value, met, stretched) in
            [(1.05, true, true), (1.08, true, false), (1.1, false, false)]
        {
            let outcome = compared(value);
            assert_eq!((outcome.met, outcome.stretched), (met, Some(stretched)));
        }
    }

    #[test]
    fn a_figure_that_was_not_measured_misses_its_goal() {
        let outcomes = compare(&[], |name| name.starts_with("wire/new-udp4/"));
        assert_eq!(outcomes.len(), 2);
        assert!(outcomes.iter().all(|outcome| !outcome.met));
    }
}
