//! Schedules: outcomes that change with time, and the policy rows that hold them.
//!
//! Invariants: equal schedules have equal numbers within one table, so outcomes are compared as
//! numbers. A row holds one change; a schedule with more changes has one row for each further
//! period. A schedule with more changes than the kernel follows ends in a row whose next period is
//! missing, which denies.

use std::collections::HashMap;

use ringfence_common::policy::{FOREVER, MAX_PERIODS, PolicyRow, row};

use super::outcome::{Decider, Timeline};

/// The number of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ScheduleId(usize);

/// The schedules of a table.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    known: HashMap<Timeline, ScheduleId>,
    all: Vec<Timeline>,
}

impl Schedules {
    /// The number of a timeline, which is never empty.
    pub(crate) fn of(&mut self, timeline: Timeline) -> ScheduleId {
        if let Some(known) = self.known.get(&timeline) {
            return *known;
        }
        let schedule = ScheduleId(self.all.len());
        self.all.push(timeline.clone());
        self.known.insert(timeline, schedule);
        schedule
    }

    /// The timeline of a schedule.
    pub(crate) fn timeline(&self, schedule: ScheduleId) -> Timeline {
        self.all.get(schedule.0).cloned().unwrap_or_default()
    }

    /// The rows of a schedule, one per period.
    pub(crate) fn periods(&self, schedule: ScheduleId) -> impl Iterator<Item = PolicyRow> {
        let timeline = self.all.get(schedule.0).map_or(&[][..], Vec::as_slice);
        let last = timeline.len().saturating_sub(1);
        let rows = if timeline.len() == 1 { 1 } else { last };
        (0..rows)
            .take(usize::from(MAX_PERIODS))
            .filter_map(move |step| {
                let (_, now) = timeline.get(step)?;
                let Some((until, then)) = timeline.get(step + 1) else {
                    return Some(row_of(*now, FOREVER, *now));
                };
                let row = row_of(*now, *until, *then);
                Some(if step + 1 < last {
                    row.with(row::NEXT_PERIOD)
                } else {
                    row
                })
            })
    }
}

fn row_of(now: Decider, until: u64, then: Decider) -> PolicyRow {
    let row = PolicyRow::until((now.verdict, now.slot), until, (then.verdict, then.slot));
    let flags = [(now, row::REJECT), (then, row::THEN_REJECT)];
    flags
        .into_iter()
        .filter(|(decider, _)| decider.reject)
        .fold(row, |row, (_, flag)| row.with(flag))
}

#[cfg(test)]
mod tests {
    use ringfence_common::{ids::RuleSlot, mode::Verdict};

    use super::*;

    fn decider(slot: u32) -> Decider {
        Decider::of(Verdict::Allow, RuleSlot(slot))
    }

    fn periods(changes: u32) -> Vec<PolicyRow> {
        let mut schedules = Schedules::default();
        let timeline = (0..=changes)
            .map(|n| (u64::from(n) * 100, decider(16 + n)))
            .collect();
        let schedule = schedules.of(timeline);
        schedules.periods(schedule).collect()
    }

    #[test]
    fn each_further_change_takes_one_more_row() {
        assert_eq!(
            periods(0),
            [PolicyRow::lasting(Verdict::Allow, RuleSlot(16))]
        );
        assert_eq!(periods(1).len(), 1);
        assert_eq!(periods(1)[0].flags & row::NEXT_PERIOD, 0);
        let rows = periods(3);
        assert_eq!(rows.len(), 3);
        assert_eq!(
            rows.iter()
                .map(|row| (row.valid_until, row.rule.0))
                .collect::<Vec<_>>(),
            [(100, 16), (200, 17), (300, 18)]
        );
        assert_eq!(rows[1].flags & row::NEXT_PERIOD, row::NEXT_PERIOD);
        assert_eq!(rows[2].flags & row::NEXT_PERIOD, 0);
    }

    #[test]
    fn a_schedule_beyond_the_last_period_denies() {
        let rows = periods(20);
        assert_eq!(rows.len(), usize::from(MAX_PERIODS));
        assert!(rows.iter().all(|row| row.flags & row::NEXT_PERIOD != 0));
    }
}
