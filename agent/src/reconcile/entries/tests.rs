//! Rounds over the entries, and what puts them right.

use std::{collections::HashSet, sync::Arc};

use ringfence_common::{
    ids::{ClassId, NamespaceSlot},
    mode::Mode,
    policy::{PolicyKey, PolicyRow},
};
use zerocopy::FromZeros as _;

use super::*;

fn row(table: u32, class: u32) -> Row {
    Row {
        bits: 72,
        key: PolicyKey {
            table: TableId(table),
            class: ClassId(class),
            ..PolicyKey::new_zeroed()
        },
        row: PolicyRow::new_zeroed(),
    }
}

fn state() -> State {
    let mut state = State::default();
    for n in 0..50_u32 {
        let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        state.record(&Action::PutAddress(address, IdentityId(300 + n)));
        let class = Action::SetClass(IdentityId(300 + n), ClassId(n));
        state.record(&class);
        state.record(&Action::PutRow(row(1 + n % 3, n)));
    }
    state.record(&Action::PutPrefix(
        "10.0.0.0/8".parse().unwrap(),
        IdentityId(9),
    ));
    state.record(&Action::SetPickup(7, 70));
    state
}

fn names(writes: &[Action]) -> HashSet<String> {
    writes.iter().map(|write| format!("{write:?}")).collect()
}

#[test]
fn a_round_visits_every_entry_whatever_the_size_of_its_steps() {
    let state = state();
    for most in [1, 7, 16, 1000] {
        let mut round = EntryRound::default();
        let mut visited = Vec::new();
        let mut steps = 0;
        loop {
            visited.extend(round.next(&state, most));
            steps += 1;
            if round.0 == Next::Address(None) {
                break;
            }
        }
        // Addresses with their epochs, classes, rows, a prefix, a pick-up window.
        assert_eq!(visited.len(), 50 * 2 + 50 + 50 + 1 + 1, "{most}");
        assert_eq!(names(&visited).len(), visited.len(), "{most}");
        assert!(steps <= 5 + 3 + 152 / most, "{steps} steps of {most}");
    }
}

#[test]
fn a_round_continues_while_entries_come_and_go() {
    let mut state = state();
    let mut round = EntryRound::default();
    round.next(&state, 10);
    let next: IpAddr = "10.0.0.10".parse().unwrap();
    state.record(&Action::DeleteAddress(next));
    let visited = round.next(&state, 10);
    let expected = Action::PutAddress("10.0.0.11".parse().unwrap(), IdentityId(311));
    assert_eq!(visited.first(), Some(&expected));
    // The table in which the round is.
    round.0 = Next::Row(Some(TableId(1)), 4);
    state.tables.remove(&TableId(1));
    assert_eq!(
        round.next(&state, 100).len(),
        state.tables[&TableId(2)].len()
    );
    assert_eq!(round.0, Next::Row(Some(TableId(3)), 0));
    state.tables.clear();
    assert!(round.next(&state, 100).is_empty());
    assert_eq!(round.0, Next::Pickup(None));
}

#[test]
fn a_round_takes_less_than_ten_minutes() {
    let mut state = State::default();
    assert_eq!(step_size(&state), LEAST);
    for n in 0..20_000_u32 {
        let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        state.record(&Action::PutAddress(address, IdentityId(300)));
    }
    let rows: crate::plan::TableRows = (0..20_000)
        .map(|class| row(1, class))
        .map(|row| ((row.bits, row.key), row.row))
        .collect();
    state.tables.insert(TableId(1), Arc::new(rows));
    let (mut round, mut steps) = (EntryRound::default(), 0);
    let most = step_size(&state);
    loop {
        round.next(&state, most);
        steps += 1;
        if round.0 == Next::Address(None) {
            break;
        }
    }
    assert!((300..600).contains(&steps), "{steps}");
}

#[test]
fn entries_are_put_right_with_the_epochs_of_what_they_decided() {
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let put = Action::PutAddress(address, IdentityId(300));
    assert_eq!(put_right(put), [put, Action::BumpEpoch(address)]);
    let row = Action::PutRow(row(1, 1));
    assert_eq!(put_right(row), [row, Action::BumpAllEpochs]);
    let mode = Action::SetMode(NamespaceSlot(1), Mode::Enforce);
    assert_eq!(put_right(mode), [mode]);
}

#[test]
fn only_what_is_not_known_is_removed() {
    let state = state();
    let known: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(
        removal(&state, &Action::PutAddress(known, IdentityId(1))),
        None
    );
    let stray: IpAddr = "10.9.0.1".parse().unwrap();
    assert_eq!(
        removal(&state, &Action::PutAddress(stray, IdentityId(1))),
        Some(vec![Action::DeleteAddress(stray), Action::BumpEpoch(stray)])
    );
    assert_eq!(removal(&state, &Action::PutRow(row(1, 0))), None);
    for unknown in [row(1, 1), row(9, 0)] {
        let removed = removal(&state, &Action::PutRow(unknown)).unwrap();
        assert_eq!(removed.first(), Some(&Action::DeleteRow(unknown)));
    }
    let net = Action::PutPrefix("10.0.0.0/9".parse().unwrap(), IdentityId(9));
    assert!(removal(&state, &net).is_some());
}
