//! Rules that have ended, or whose end is far ahead.

use super::code::LintCode;
use super::finding::{Finding, Place};
use crate::model::WallTime;

/// A day in nanoseconds.
pub(super) const DAY: i128 = 86_400 * 1_000_000_000;

/// How long an exception may last, and how late a review may be, before it is reported.
pub(super) const PATIENCE: i128 = 90 * DAY;

pub(super) fn lint(place: &Place<'_>, now: WallTime) -> Option<Finding> {
    let end = place.rule.window.expires?;
    let ahead = i128::from(end.0) - i128::from(now.0);
    if ahead <= 0 {
        let what = "has expired and matches nothing";
        return Some(place.finding(LintCode::ExpiredRule, what));
    }
    (ahead > PATIENCE).then(|| {
        let what = format!("expires only in {} days", ahead.div_euclid(DAY));
        place.finding(LintCode::LongExpiry, &what)
    })
}
