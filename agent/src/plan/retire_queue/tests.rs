use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    policy::{PolicyKey, PolicyRow},
};

use super::*;

const START: u64 = 1_000 * GRACE;
/// The interval between the passes of a busy agent.
const QUICK: u64 = GRACE / 10;

/// Removals of one row in each of these tables.
fn removals(tables: &[u32]) -> Vec<Action> {
    let removal = |table: &u32| {
        Action::DeleteRow(Row {
            bits: PolicyKey::FULL_BITS,
            key: PolicyKey {
                table: TableId(*table),
                class: ClassId::ANY,
                direction: Direction::Ingress as u8,
                protocol: 6,
                port: Port::new(80),
            },
            row: PolicyRow::lasting(Verdict::Allow, RuleSlot(9)),
        })
    };
    tables.iter().map(removal).collect()
}

#[test]
fn a_row_is_due_after_the_grace_period() {
    let mut queue = RetireQueue::default();
    assert_eq!(queue.next_due(), None);
    queue.record_pass(START, &removals(&[1]));
    assert_eq!(queue.next_due(), Some(START + GRACE));
    assert!(queue.take_due(START + GRACE - 1).is_empty());
    assert_eq!(queue.take_due(START + GRACE), removals(&[1]));
    assert_eq!(queue.next_due(), None);
    assert!(queue.take_due(START + 9 * GRACE).is_empty());
}

#[test]
fn a_row_that_is_referenced_again_waits_for_another_grace_period() {
    let mut queue = RetireQueue::default();
    queue.record_pass(START, &removals(&[1]));
    queue.record_pass(START + QUICK, &removals(&[2]));
    queue.record_pass(START + 2 * QUICK, &removals(&[1, 2]));
    assert!(queue.take_due(START + GRACE).is_empty());
    assert_eq!(queue.take_due(START + QUICK + GRACE), removals(&[2]));
    assert_eq!(queue.next_due(), Some(START + 2 * QUICK + GRACE));
    assert_eq!(queue.take_due(START + 2 * QUICK + GRACE), removals(&[1]));
}

#[test]
fn a_busy_agent_holds_rows_of_at_most_two_grace_periods() {
    let mut queue = RetireQueue::default();
    let mut held: Vec<u32> = Vec::new();
    let mut most = 0;
    for pass in 0..1_000_u32 {
        let now = START + u64::from(pass) * QUICK;
        let due = queue.take_due(now);
        held.retain(|table| !due.contains(&removals(&[*table])[0]));
        held.push(pass);
        queue.record_pass(now, &removals(&held));
        most = most.max(held.len());
    }
    let passes = usize::try_from(GRACE / QUICK).unwrap();
    assert!((passes..=2 * passes + 1).contains(&most), "{most}");
}
