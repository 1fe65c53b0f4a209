//! The rules of one direction in evaluation order, and which of them decides.
//!
//! Invariants: agrees with the compiled rows, but works on the model alone. Admin and Baseline:
//! policies of one priority are combined, each with its first matching rule, and the strongest
//! action wins. Namespace tier: all matching rules are combined. Baseline is not evaluated after an
//! isolating policy.

use std::collections::BTreeSet;

use ringfence_common::mode::{Direction, Verdict};

use super::{
    super::table::Stage,
    flow_side::{FlowSide, is_raw},
    miss::{Miss, misses},
    report::Standing,
};
use crate::model::{Policy, PolicySet, Rule, RuleAction};

/// A policy that selects the subject and has the direction.
pub(super) struct ApplicablePolicy<'a> {
    pub(super) policy: &'a Policy,
    pub(super) stage: Stage,
}

/// A rule and its misses.
pub(super) struct RankedRule<'a> {
    /// Its index in evaluation order.
    pub(super) rank: usize,
    pub(super) policy: &'a Policy,
    /// The index of its policy among the applicable ones.
    policy_index: usize,
    pub(super) stage: Stage,
    pub(super) index: usize,
    pub(super) rule: &'a Rule,
    pub(super) misses: Vec<Miss>,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The rule at this index.
    Rule(usize, Verdict),
    DefaultDeny,
    DefaultAllow,
    RawProtocol,
    NodeTunnel,
}

impl Outcome {
    pub(super) const fn verdict(self) -> Verdict {
        match self {
            Self::Rule(_, verdict) => verdict,
            Self::DefaultAllow => Verdict::Allow,
            Self::DefaultDeny | Self::RawProtocol | Self::NodeTunnel => Verdict::Deny,
        }
    }
}

/// A hypothetical change: rules that are removed, and one that matches.
#[derive(Default)]
pub(super) struct Hypothesis {
    pub(super) removed: BTreeSet<usize>,
    pub(super) matching: Option<usize>,
}

/// All policies and rules that apply to one direction of a flow.
pub(super) struct RuleOrder<'a> {
    pub(super) flow_side: FlowSide<'a>,
    pub(super) policies_in_order: Vec<ApplicablePolicy<'a>>,
    pub(super) rules: Vec<RankedRule<'a>>,
    pub(super) isolated: bool,
}

impl<'a> RuleOrder<'a> {
    pub(super) fn of(flow_side: FlowSide<'a>, policies: &'a PolicySet) -> Self {
        let mut policies_in_order: Vec<ApplicablePolicy<'a>> = policies
            .iter()
            .filter(|policy| policy.rules(flow_side.direction).is_some())
            .filter(|policy| flow_side.inventory.is_subject(policy, flow_side.subject))
            .map(|policy| ApplicablePolicy {
                policy,
                stage: Stage::of(policy),
            })
            .collect();
        let isolated = policies_in_order
            .iter()
            .any(|s| s.stage == Stage::Namespace);
        // The sort is stable: within a stage, policies stay ordered by name.
        policies_in_order.sort_by_key(|policy| policy.stage);
        let mut rules = Vec::new();
        for (number, applicable) in policies_in_order.iter().enumerate() {
            if isolated && matches!(applicable.stage, Stage::Baseline(_)) {
                continue;
            }
            let policy_rules = applicable
                .policy
                .rules(flow_side.direction)
                .unwrap_or_default();
            for (index, rule) in policy_rules.iter().enumerate() {
                rules.push(RankedRule {
                    rank: rules.len(),
                    policy: applicable.policy,
                    policy_index: number,
                    stage: applicable.stage,
                    index,
                    rule,
                    misses: misses(&flow_side, rule),
                });
            }
        }
        Self {
            flow_side,
            policies_in_order,
            rules,
            isolated,
        }
    }

    /// What decides, and the standing of each rule.
    pub(super) fn decide(&self, hypothesis: &Hypothesis) -> (Outcome, Vec<Standing>) {
        let mut standings = vec![Standing::NotEvaluated; self.rules.len()];
        let mut passed: Option<Stage> = None;
        for stage in self.rules.chunk_by(|one, other| one.stage == other.stage) {
            let here = stage.first().map(|ranked| ranked.stage);
            if passed
                .zip(here)
                .is_some_and(|(one, other)| one.same_tier(other))
            {
                continue;
            }
            let Some(strongest) = strongest(stage, hypothesis, &mut standings) else {
                continue;
            };
            let standing = match strongest.rule.action.verdict() {
                Some(_) => Standing::Decides,
                None => Standing::Passes,
            };
            note(&mut standings, strongest, standing);
            match strongest.rule.action.verdict() {
                Some(verdict) => return (Outcome::Rule(strongest.rank, verdict), standings),
                None => passed = here,
            }
        }
        (self.by_default(), standings)
    }

    fn by_default(&self) -> Outcome {
        if self.isolated {
            Outcome::DefaultDeny
        } else if self.flow_side.direction == Direction::Egress
            && is_raw(self.flow_side.flow.protocol)
        {
            Outcome::RawProtocol
        } else if self.flow_side.enters_tunnel() {
            Outcome::NodeTunnel
        } else {
            Outcome::DefaultAllow
        }
    }

    /// The rule at an index.
    pub(super) fn at(&self, rank: usize) -> Option<&RankedRule<'a>> {
        self.rules.get(rank)
    }
}

/// The first of the strongest matching rules of one stage.
fn strongest<'s, 'a>(
    stage: &'s [RankedRule<'a>],
    hypothesis: &Hypothesis,
    standings: &mut [Standing],
) -> Option<&'s RankedRule<'a>> {
    let mut strongest: Option<&RankedRule<'a>> = None;
    let mut last_policy = None;
    for ranked in stage {
        let matches = (ranked.misses.is_empty() || hypothesis.matching == Some(ranked.rank))
            && !hypothesis.removed.contains(&ranked.rank);
        if !matches {
            note(standings, ranked, Standing::NoMatch);
        } else if ranked.stage != Stage::Namespace && last_policy == Some(ranked.policy_index) {
            note(standings, ranked, Standing::Superseded);
        } else {
            last_policy = Some(ranked.policy_index);
            note(standings, ranked, Standing::Outweighed);
            if strongest.is_none_or(|best| ranked.rule.action > best.rule.action) {
                strongest = Some(ranked);
            }
        }
    }
    strongest
}

fn note(standings: &mut [Standing], ranked: &RankedRule<'_>, standing: Standing) {
    if let Some(slot) = standings.get_mut(ranked.rank) {
        *slot = standing;
    }
}

impl RankedRule<'_> {
    /// `ingress[0]`.
    pub(super) fn name(&self, direction: Direction) -> String {
        format!("{}[{}]", direction.name(), self.index)
    }

    /// `file:line`.
    pub(super) fn origin(&self) -> String {
        format!("{}:{}", self.policy.origin.file, self.rule.line)
    }

    /// `ingress[0] of shop/orders (file:line)`.
    pub(super) fn title(&self, direction: Direction) -> String {
        format!(
            "{} of {} ({})",
            self.name(direction),
            self.policy.id(),
            self.origin()
        )
    }

    pub(super) fn allows(&self) -> bool {
        self.rule.action == RuleAction::Allow
    }
}

/// `admin 10`, `namespace` or `baseline 5`.
pub(super) fn tier_text(stage: Stage) -> String {
    match stage {
        Stage::Admin(priority) => format!("admin {priority}"),
        Stage::Namespace => "namespace".to_owned(),
        Stage::Baseline(priority) => format!("baseline {priority}"),
    }
}
