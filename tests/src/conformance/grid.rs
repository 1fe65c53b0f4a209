//! The grid: all probes, and the expected result of each.

use std::fmt;

use super::cluster::Cluster;
use super::name::End;
use super::pattern::Patterns;
use super::port::{Family, Port};

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Cell {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) port: Port,
    pub(super) family: Family,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            port,
            family,
        } = self;
        write!(f, "{from} {to} {port} {family}")
    }
}

/// The verdict of an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
    /// Not checked.
    Any,
}

/// One entry of `expect`.
#[derive(Clone, Debug)]
pub(super) struct Expectation {
    pub(super) from: Patterns,
    pub(super) to: Patterns,
    pub(super) port: Patterns,
    pub(super) family: Patterns,
    pub(super) verdict: Verdict,
}

impl Expectation {
    fn covers(&self, cell: &Cell) -> bool {
        self.from.matches(cell.from.as_str())
            && self.to.matches(cell.to.as_str())
            && self.port.matches(&cell.port.to_string())
            && self.family.matches(cell.family.digit())
    }

    /// Whether it covers a cell from an end to itself and names that end in full on both sides.
    fn names_itself(&self, cell: &Cell) -> bool {
        let name = cell.from.as_str();
        self.from.is_exactly(name) && self.to.is_exactly(name) && self.covers(cell)
    }
}

/// The expected result of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    Allow,
    Deny,
}

/// A cell that is checked, with its expected result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpectedCell {
    pub(super) cell: Cell,
    pub(super) want: Want,
}

/// The observed result of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// The payload came back.
    Allow,
    /// No answer, and the server received nothing.
    Deny,
    /// The server received the payload, but no answer came back: neither allowed nor denied.
    Delivered,
}

impl Want {
    /// Whether the observed result is the expected one.
    pub(super) fn matches(self, got: Got) -> bool {
        match self {
            Self::Allow => got == Got::Allow,
            Self::Deny => got == Got::Deny,
        }
    }
}

/// A cell whose observed result differs from the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) expected: ExpectedCell,
    pub(super) got: Got,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let want = match self.expected.want {
            Want::Allow => "allow",
            Want::Deny => "deny",
        };
        let got = match self.got {
            Got::Allow => "allow",
            Got::Deny => "deny",
            Got::Delivered => "delivered",
        };
        write!(f, "{} {want} {got}", self.expected.cell)
    }
}

/// All cells of a cluster that are checked. A cell is expected to be allowed, unless entries of
/// `expect` cover it: then the last of them decides.
pub(super) fn expected_cells(cluster: &Cluster, expect: &[Expectation]) -> Vec<ExpectedCell> {
    let mut all = Vec::new();
    let ends = cluster.all_ends();
    for from in &ends {
        for to in &ends {
            if from.workload().is_none() && to.workload().is_none() {
                continue;
            }
            for port in &cluster.grid {
                for family in Family::ALL {
                    let cell = Cell {
                        from: from.clone(),
                        to: to.clone(),
                        port: *port,
                        family,
                    };
                    all.extend(expected_cell(cell, expect));
                }
            }
        }
    }
    all
}

fn expected_cell(cell: Cell, expect: &[Expectation]) -> Option<ExpectedCell> {
    if cell.from == cell.to && !expect.iter().any(|entry| entry.names_itself(&cell)) {
        return None;
    }
    let last = expect.iter().rev().find(|entry| entry.covers(&cell));
    let want = match last.map_or(Verdict::Allow, |entry| entry.verdict) {
        Verdict::Allow => Want::Allow,
        Verdict::Deny => Want::Deny,
        Verdict::Any => return None,
    };
    Some(ExpectedCell { cell, want })
}

#[cfg(test)]
mod tests;
