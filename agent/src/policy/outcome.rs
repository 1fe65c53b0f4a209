//! Who decides at one point of a table: the first rule that matches, now and next.
//!
//! Invariants: times are converted to the boot clock here and nowhere else; a row holds at most one
//! change ahead, and the time of the change is reported so that the agent can write the one after.

use ringfence_common::{
    ids::RuleSlot,
    mode::Verdict,
    policy::{FOREVER, PolicyRow},
};

use super::{
    desired::Clock,
    table::{Fence, FenceRule},
};
use crate::model::WallTime;

type Decider = (Verdict, RuleSlot);

/// Who decides among rules that all match a point, in order, given the default.
pub(crate) fn decide<'a>(
    matching: &(impl Iterator<Item = &'a FenceRule> + Clone),
    default: Decider,
    clock: &Clock,
) -> PolicyRow {
    let at = |time: WallTime| {
        matching
            .clone()
            .find(|rule| rule.window.holds(time))
            .map_or(default, |rule| (rule.verdict, rule.slot))
    };
    let now = at(clock.now);
    let mut changes: Vec<WallTime> = matching
        .clone()
        .flat_map(|rule| [rule.window.not_before, rule.window.expires])
        .flatten()
        .filter(|time| *time > clock.now)
        .collect();
    changes.sort_unstable();
    match changes.into_iter().find(|time| at(*time) != now) {
        Some(time) => PolicyRow::until(now, clock.boot(time), at(time)),
        None => PolicyRow::lasting(now.0, now.1),
    }
}

/// The default of a direction.
pub(crate) fn default_of(fence: &Fence) -> Decider {
    if fence.isolated {
        (Verdict::Deny, RuleSlot::DEFAULT_DENY)
    } else {
        (Verdict::Allow, RuleSlot::DEFAULT_ALLOW)
    }
}

/// The earlier of two boot-clock times at which something changes.
pub(crate) fn next_change(rows: impl Iterator<Item = PolicyRow>) -> Option<u64> {
    rows.map(|row| row.valid_until)
        .filter(|time| *time != FOREVER)
        .min()
}
