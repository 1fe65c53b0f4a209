//! Policy metadata: owner, justification and review date.

use super::code::LintCode;
use super::finding::Finding;
use super::window::{DAY, PATIENCE};
use crate::model::{Policy, WallTime};

pub(super) fn lint(policy: &Policy, now: WallTime) -> Vec<Finding> {
    let is_blank = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
    let mut findings = Vec::new();
    if is_blank(&policy.about.owner) {
        let found = Finding::about(policy, LintCode::MissingOwner, "has no owner");
        findings.push(found);
    }
    if is_blank(&policy.about.justification) {
        let code = LintCode::MissingJustification;
        findings.push(Finding::about(policy, code, "has no justification"));
    }
    findings.extend(overdue(policy, now));
    findings
}

/// A review is due by the end of its day, UTC.
fn overdue(policy: &Policy, now: WallTime) -> Option<Finding> {
    let day = policy.about.review_by.as_deref()?;
    let end = (day_number(day)? + 1).saturating_mul(DAY);
    let late = i128::from(now.0).saturating_sub(end);
    if late < 0 {
        return None;
    }
    let what = if late > PATIENCE {
        let days = late.div_euclid(DAY);
        format!("was to be reviewed by {day}, {days} days ago")
    } else {
        format!("was to be reviewed by {day}")
    };
    Some(Finding::about(policy, LintCode::ReviewOverdue, &what))
}

/// Days since 1970-01-01 of an ISO date in the Gregorian calendar.
///
/// Years begin in March here, so that the leap day comes last; 719 468 days lie between 1 March of
/// the year 0 and 1970.
fn day_number(date: &str) -> Option<i128> {
    let mut parts = date.rsplitn(3, '-');
    let day: i128 = parts.next()?.parse().ok()?;
    let month: i128 = parts.next()?.parse().ok()?;
    let year: i128 = parts.next()?.parse().ok()?;
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leaps + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_calendars_do() {
        for (date, number) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11016),
            ("2000-03-01", 11017),
            ("2026-11-22", 20779),
            ("2100-03-01", 47541),
        ] {
            assert_eq!(day_number(date), Some(number), "{date}");
        }
        assert_eq!(day_number("soon"), None);
    }
}
