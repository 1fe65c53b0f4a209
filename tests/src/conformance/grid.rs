//! The grid: every probe there is, and what expectations make of each.

use std::fmt;

use super::name::End;
use super::pattern::Patterns;
use super::port::{Family, Port};
use super::world::World;

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

/// What an expectation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
    /// Not judged.
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

    /// Whether it covers a cell from an end to itself and names that end, in full, on both sides.
    fn names_itself(&self, cell: &Cell) -> bool {
        let name = cell.from.as_str();
        self.from.is_exactly(name) && self.to.is_exactly(name) && self.covers(cell)
    }
}

/// What must be seen of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    Allow,
    Deny,
}

/// A cell that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) cell: Cell,
    pub(super) want: Want,
}

/// What was seen of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// The payload came back.
    Allow,
    /// No answer, and the server saw nothing.
    Deny,
    /// The server saw it, but no answer came back: neither allowed nor denied.
    Delivered,
}

impl Want {
    /// Whether that is what was wanted.
    pub(super) fn is(self, got: Got) -> bool {
        match self {
            Self::Allow => got == Got::Allow,
            Self::Deny => got == Got::Deny,
        }
    }
}

/// A cell of which something else was seen than wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miss {
    pub(super) judged: Judged,
    pub(super) got: Got,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let want = match self.judged.want {
            Want::Allow => "allow",
            Want::Deny => "deny",
        };
        let got = match self.got {
            Got::Allow => "allow",
            Got::Deny => "deny",
            Got::Delivered => "delivered",
        };
        write!(f, "{} {want} {got}", self.judged.cell)
    }
}

/// Every cell of a world that `expect` judges. Each starts as allowed, the last entry that covers
/// it decides.
pub(super) fn judged(world: &World, expect: &[Expectation]) -> Vec<Judged> {
    let mut all = Vec::new();
    let ends = world.all_ends();
    for from in &ends {
        for to in &ends {
            if from.workload().is_none() && to.workload().is_none() {
                continue;
            }
            for port in &world.grid {
                for family in Family::ALL {
                    let cell = Cell {
                        from: from.clone(),
                        to: to.clone(),
                        port: *port,
                        family,
                    };
                    all.extend(judge(cell, expect));
                }
            }
        }
    }
    all
}

fn judge(cell: Cell, expect: &[Expectation]) -> Option<Judged> {
    if cell.from == cell.to && !expect.iter().any(|entry| entry.names_itself(&cell)) {
        return None;
    }
    let last = expect.iter().rev().find(|entry| entry.covers(&cell));
    let want = match last.map_or(Verdict::Allow, |entry| entry.verdict) {
        Verdict::Allow => Want::Allow,
        Verdict::Deny => Want::Deny,
        Verdict::Any => return None,
    };
    Some(Judged { cell, want })
}

#[cfg(test)]
mod tests;
