//! The output of a run: a line for each failing cell, one for each failed case, and the count last.
//!
//! Cases are reported in order, regardless of how many run in parallel, each as soon as all earlier
//! ones are done.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::case_run::Outcome;

/// Collects outcomes and writes them in order.
#[derive(Debug)]
pub(super) struct Report<W> {
    out: W,
    next: usize,
    early: BTreeMap<usize, Finished>,
    passed: usize,
    failed: usize,
}

/// A completed case.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

impl<W: Write> Report<W> {
    /// An empty report.
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            next: 0,
            early: BTreeMap::new(),
            passed: 0,
            failed: 0,
        }
    }

    /// Adds the outcome of the case with this number.
    pub(super) fn finished(&mut self, number: usize, finished: Finished) -> io::Result<()> {
        self.early.insert(number, finished);
        while let Some(finished) = self.early.remove(&self.next) {
            self.next += 1;
            if finished.outcome.passed() {
                self.passed += 1;
            } else {
                self.failed += 1;
                self.write_case(&finished)?;
            }
        }
        self.out.flush()
    }

    fn write_case(&mut self, finished: &Finished) -> io::Result<()> {
        let Finished { name, outcome } = finished;
        for (step, mismatch) in &outcome.mismatches {
            writeln!(self.out, "FAIL {name} {step} {mismatch}")?;
        }
        let mut reasons: Vec<String> = outcome.errors.iter().map(|it| one_line(it)).collect();
        let mut steps: Vec<&str> = outcome
            .mismatches
            .iter()
            .map(|(step, _)| step.as_str())
            .collect();
        steps.dedup();
        if !steps.is_empty() {
            let count = outcome.mismatches.len();
            let steps = steps.join(", ");
            reasons.push(format!("cells not as expected: {count}, in step {steps}"));
        }
        writeln!(self.out, "FAILED {name}: {}", reasons.join("; "))
    }

    /// Writes the count; true if nothing failed.
    pub(super) fn close(mut self) -> io::Result<bool> {
        writeln!(self.out, "{} passed, {} failed", self.passed, self.failed)?;
        self.out.flush()?;
        Ok(self.failed == 0)
    }
}

/// Makes one line without control characters, whatever the agent printed.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .join(" | ")
        .chars()
        .map(|char| {
            if char.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                char
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_reported_in_order_and_the_count_last() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        let failing = Outcome {
            mismatches: Vec::new(),
            errors: vec!["went\nwrong\x1b[31m".to_owned()],
        };
        for (number, name, outcome) in [(1, "b", failing), (0, "a", Outcome::default())] {
            let name = name.to_owned();
            report.finished(number, Finished { name, outcome }).unwrap();
        }
        assert!(!report.close().unwrap());
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "FAILED b: went | wrong\u{fffd}[31m\n1 passed, 1 failed\n"
        );
    }
}
