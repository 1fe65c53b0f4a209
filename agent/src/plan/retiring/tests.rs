use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    policy::{PolicyKey, PolicyRow},
};

use super::*;

const START: u64 = 1_000 * GRACE;
/// Passes of a busy agent.
const QUICK: u64 = GRACE / 10;

/// Removals of rows of some tables.
fn of(tables: &[u32]) -> Vec<Action> {
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
fn a_row_is_ripe_after_the_grace_period() {
    let mut retiring = Retiring::default();
    assert_eq!(retiring.ripens(), None);
    retiring.left_by_pass(START, &of(&[1]));
    assert_eq!(retiring.ripens(), Some(START + GRACE));
    assert!(retiring.take_ripe(START + GRACE - 1).is_empty());
    assert_eq!(retiring.take_ripe(START + GRACE), of(&[1]));
    assert_eq!(retiring.ripens(), None);
    assert!(retiring.take_ripe(START + 9 * GRACE).is_empty());
}

#[test]
fn what_is_referred_to_again_begins_anew() {
    let mut retiring = Retiring::default();
    retiring.left_by_pass(START, &of(&[1]));
    retiring.left_by_pass(START + QUICK, &of(&[2]));
    retiring.left_by_pass(START + 2 * QUICK, &of(&[1, 2]));
    assert!(retiring.take_ripe(START + GRACE).is_empty());
    assert_eq!(retiring.take_ripe(START + QUICK + GRACE), of(&[2]));
    assert_eq!(retiring.ripens(), Some(START + 2 * QUICK + GRACE));
    assert_eq!(retiring.take_ripe(START + 2 * QUICK + GRACE), of(&[1]));
}

#[test]
fn a_busy_agent_leaves_no_more_than_two_grace_periods_behind() {
    let mut retiring = Retiring::default();
    let mut held: Vec<u32> = Vec::new();
    let mut most = 0;
    for pass in 0..1_000_u32 {
        let now = START + u64::from(pass) * QUICK;
        let ripe = retiring.take_ripe(now);
        held.retain(|table| !ripe.contains(&of(&[*table])[0]));
        held.push(pass);
        retiring.left_by_pass(now, &of(&held));
        most = most.max(held.len());
    }
    let passes = usize::try_from(GRACE / QUICK).unwrap();
    assert!((passes..=2 * passes + 1).contains(&most), "{most}");
}
