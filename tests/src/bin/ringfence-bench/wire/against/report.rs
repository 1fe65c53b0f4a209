//! The result of a comparison, as a table and as JSON.

use serde::Serialize;

use super::estimate::{CONFIDENCE, Estimate};
use super::signed_rank::Interval;
use super::verdict::{self, Verdict};
use crate::report::{heading, line, table};

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// This build, by its commit.
    pub(super) this: String,
    /// The other build.
    pub(super) that: String,
    /// Whether both builds' programs have the same instructions.
    pub(super) same_programs: bool,
    pub(super) rounds: usize,
    pub(super) peers: u32,
    pub(super) metrics: Vec<Row>,
    /// Whether the control is within its bounds.
    pub(super) counts: bool,
}

/// One metric.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) estimate: Estimate,
    pub(super) verdict: Verdict,
}

impl Report {
    /// The table, and the summary as the last line.
    pub(super) fn print(&self) {
        let Self {
            this,
            that,
            rounds,
            peers,
            ..
        } = self;
        heading(&format!("This build ({this}) against {that}"));
        let rows: Vec<Vec<String>> = self.metrics.iter().map(Row::cells).collect();
        let percent = format!("{:.0} %", CONFIDENCE * 100.0);
        let head = [
            "", "limit", "new", "old", "new/old", &percent, "", "control", &percent, "",
        ];
        table(&head, &rows);
        line(&format!(
            "  {rounds} rounds at {peers} peers; new and old: to the limit; control: two starts of this build"
        ));
        if self.same_programs {
            line("  the kernel programs of both builds have the same instructions");
        }
        let outcomes = self.metrics.iter();
        let outcomes: Vec<_> = outcomes
            .map(|row| (row.estimate.ratio, row.estimate.control))
            .collect();
        line(&verdict::summary(that, &outcomes));
    }

    /// The names of the metrics that are slower.
    pub(super) fn slower(&self) -> Vec<&str> {
        let slower = self.metrics.iter();
        let slower = slower.filter(|row| row.verdict == Verdict::Slower);
        slower.map(|row| row.name.as_str()).collect()
    }
}

impl Row {
    pub(super) fn new(name: String, estimate: Estimate) -> Self {
        Self {
            name,
            estimate,
            verdict: Verdict::of(estimate.ratio),
        }
    }

    fn cells(&self) -> Vec<String> {
        let Estimate {
            limit,
            this,
            that,
            ratio,
            control,
        } = self.estimate;
        let within = |Interval { low, high, .. }| format!("{low:.3}–{high:.3}");
        let outside = if verdict::is_one(control) {
            ""
        } else {
            "outside 0.99–1.01"
        };
        vec![
            self.name.clone(),
            format!("{limit:.0} ns"),
            format!("{this:.3}"),
            format!("{that:.3}"),
            format!("{:.3}", ratio.centre),
            within(ratio),
            self.verdict.to_string(),
            format!("{:.3}", control.centre),
            within(control),
            outside.to_owned(),
        ]
    }
}
