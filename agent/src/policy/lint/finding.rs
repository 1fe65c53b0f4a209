//! Lint findings and their locations.
//!
//! Invariant: findings are sorted by file, line and code, so the output for the same files is the
//! same.

use std::fmt;
use std::sync::Arc;

use ringfence_common::mode::Direction;

use super::code::LintCode;
use crate::model::quote::sanitise;
use crate::model::{Policy, Rule};

/// Something about a policy that its author should check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
    /// The lint code.
    pub code: LintCode,
    /// What was found.
    pub message: String,
    /// The remedy.
    pub remedy: &'static str,
}

impl Finding {
    /// A finding about a policy as a whole.
    pub(super) fn about(policy: &Policy, code: LintCode, what: &str) -> Self {
        Self {
            file: policy.origin.file.clone(),
            line: policy.origin.line,
            code,
            message: format!("policy {} {what}", policy.id()),
            remedy: code.remedy_in(policy.kind),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = sanitise(&self.file);
        let Self {
            line,
            code,
            message,
            remedy,
            ..
        } = self;
        write!(out, "{file}:{line}: {code}: {message} — {remedy}")
    }
}

/// One rule and its location.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) policy: &'a Policy,
    pub(super) direction: Direction,
    pub(super) index: usize,
    pub(super) rule: &'a Rule,
}

impl Place<'_> {
    /// A finding about this rule.
    pub(super) fn finding(&self, code: LintCode, what: &str) -> Finding {
        Finding {
            line: self.rule.line,
            message: format!("{self} {what}"),
            ..Finding::about(self.policy, code, "")
        }
    }

    /// Its name, its policy, and both locations.
    pub(super) fn with_origin(&self) -> String {
        let file = sanitise(&self.policy.origin.file);
        format!("{self} ({file}:{})", self.rule.line)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, index) = (self.direction.name(), self.index);
        write!(out, "{direction}[{index}] of {}", self.policy.id())
    }
}

/// Every rule of a policy in one direction.
pub(super) fn places_in(policy: &Policy, direction: Direction) -> impl Iterator<Item = Place<'_>> {
    let rules = policy.rules(direction).unwrap_or_default();
    rules.iter().enumerate().map(move |(index, rule)| Place {
        policy,
        direction,
        index,
        rule,
    })
}

/// Both directions.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// Every rule of a policy.
pub(super) fn places(policy: &Policy) -> impl Iterator<Item = Place<'_>> {
    DIRECTIONS
        .into_iter()
        .flat_map(move |direction| places_in(policy, direction))
}
