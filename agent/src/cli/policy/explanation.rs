//! Why a flow is judged as it is, for people who did not expect it.
//!
//! Invariant: says of both ends which rule of which policy decided, and where that was written.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ringfence_common::mode::Direction;

use crate::model::quote::sanitise;
use crate::model::{Policy, PolicySet};
use crate::policy::{Evaluator, Query, Side};

/// What explanations are taken from.
pub(super) struct Explainer<'a> {
    evaluator: &'a Evaluator,
    policies: BTreeMap<String, &'a Policy>,
}

impl<'a> Explainer<'a> {
    pub(super) fn new(evaluator: &'a Evaluator, policies: &'a PolicySet) -> Self {
        let policies = policies
            .iter()
            .map(|policy| (policy.id().to_string(), &**policy));
        Self {
            evaluator,
            policies: policies.collect(),
        }
    }

    /// Some lines that end with a line break, safe for a terminal.
    pub(super) fn explain(&self, query: &Query) -> String {
        let answer = match self.evaluator.ask(query) {
            Ok(answer) => answer,
            Err(error) => return format!("    {}\n", sanitise(&error.to_string())),
        };
        let mut text = String::new();
        for (direction, owner, side) in [
            (Direction::Egress, &query.from, &answer.egress),
            (Direction::Ingress, &query.to, &answer.ingress),
        ] {
            let (direction_name, verdict) = (direction.name(), side.verdict.name());
            let decider = self.decider(side, direction);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "    {direction_name} of {owner}: {verdict} by {decider}"
            );
        }
        text
    }

    fn decider(&self, side: &Side, direction: Direction) -> String {
        let Some(name) = &side.policy else {
            return side.rule.clone();
        };
        let Some(policy) = self.policies.get(name) else {
            return format!("{} of {name}", side.rule);
        };
        let index = side.rule.split_once('[').and_then(|(_, rest)| {
            let digits = rest.strip_suffix(']')?;
            digits.parse::<usize>().ok()
        });
        let rules = policy.rules(direction).unwrap_or_default();
        let rule = index.and_then(|index| rules.get(index));
        let line = rule.map_or(policy.origin.line, |rule| rule.line);
        let file = sanitise(&policy.origin.file);
        format!("{} of {name} ({file}:{line})", side.rule)
    }
}
