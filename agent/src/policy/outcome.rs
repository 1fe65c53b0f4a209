//! The deciding rule at one point of a table: tier by tier, now and at every later edge.
//!
//! Invariants: in the Admin and Baseline tiers, policies of one priority are combined, each with
//! its first matching rule, and the strongest action wins. In the namespace tier all matching rules
//! are combined. Times are converted to the boot clock here and nowhere else.

use ringfence_common::{ids::RuleSlot, mode::Verdict};

use super::table::{Edge, Fence, FenceRule, Stage};
use crate::model::{RuleAction, WallTime};

/// The deciding rule, and whether it rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Decider {
    pub(crate) verdict: Verdict,
    pub(crate) slot: RuleSlot,
    pub(crate) reject: bool,
}

impl Decider {
    pub(crate) const fn of(verdict: Verdict, slot: RuleSlot) -> Self {
        let reject = false;
        Self {
            verdict,
            slot,
            reject,
        }
    }
}

/// The deciding rule from each boot-clock time on; the first entry has no start.
pub(crate) type Timeline = Vec<(u64, Decider)>;

/// The default of a direction, if no rule decides.
pub(crate) fn default_of(fence: &Fence) -> Decider {
    if fence.isolated {
        Decider::of(Verdict::Deny, RuleSlot::DEFAULT_DENY)
    } else {
        Decider::of(Verdict::Allow, RuleSlot::DEFAULT_ALLOW)
    }
}

/// The deciding rules over time, among rules that all match a point, in the order of the fence.
pub(crate) fn timeline(matching: &[&FenceRule], default: Decider, edge: Option<Edge>) -> Timeline {
    let Some(edge) = edge else {
        return vec![(0, at(matching, default, None))];
    };
    let before = WallTime(edge.wall.0.saturating_sub(1));
    let mut timeline = vec![(0, at(matching, default, Some(before)))];
    let mut edges: Vec<WallTime> = matching
        .iter()
        .flat_map(|rule| [rule.window.not_before, rule.window.expires])
        .flatten()
        .collect();
    edges.sort_unstable();
    edges.dedup();
    for time in edges {
        let decider = at(matching, default, Some(time));
        if timeline.last().is_some_and(|(_, last)| *last != decider) {
            timeline.push((edge.boot_of(time), decider));
        }
    }
    timeline
}

/// The deciding rule at a time; without a time, no rule has a window.
fn at(matching: &[&FenceRule], default: Decider, time: Option<WallTime>) -> Decider {
    let mut rules = matching
        .iter()
        .copied()
        .filter(|rule| time.is_none_or(|time| rule.window.holds(time)))
        .peekable();
    while let Some(first) = rules.peek().copied() {
        let mut strongest = first;
        let mut last_policy = None;
        while let Some(rule) = rules.next_if(|rule| rule.stage == first.stage) {
            let one_each = first.stage != Stage::Namespace;
            if one_each && last_policy == Some(rule.policy) {
                continue;
            }
            last_policy = Some(rule.policy);
            let stronger = rule.action > strongest.action;
            if stronger {
                strongest = rule;
            }
        }
        match strongest.action.verdict() {
            Some(verdict) => {
                return Decider {
                    verdict,
                    slot: strongest.slot,
                    reject: strongest.action == RuleAction::Reject,
                };
            }
            None => {
                while rules
                    .next_if(|rule| rule.stage.same_tier(first.stage))
                    .is_some()
                {}
            }
        }
    }
    default
}
