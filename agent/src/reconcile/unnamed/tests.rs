//! What stays while a source has not named its objects.

use std::{collections::HashMap, sync::Arc};

use ringfence_common::{
    endpoint::Endpoint,
    ids::{NamespaceSlot, TableId},
};

use super::*;

const THERE: u32 = 7;
const GONE: u32 = 9;

fn state(endpoints: &[(u32, u32)], addresses: &[(&str, u32)]) -> State {
    let mut state = State::default();
    for (ifindex, table) in endpoints {
        let endpoint = Endpoint {
            table: TableId(*table),
            ..Endpoint::default()
        };
        state.endpoints.insert(*ifindex, endpoint);
        state
            .tables
            .insert(TableId(*table), Arc::new(HashMap::new()));
    }
    for (address, identity) in addresses {
        let address = address.parse().unwrap();
        state.addresses.insert(address, IdentityId(*identity));
    }
    state
}

#[test]
fn what_stays_is_locked_down_where_it_is_enforced() {
    let links = Links::ethernet([("rf-a".into(), THERE)]);
    for (mode, of_endpoint) in [
        (Mode::Observe, 0),
        (Mode::Enforce, Mode::Lockdown as u8),
        (Mode::Lockdown, 0),
    ] {
        for is_known in [false, true] {
            let slot = NamespaceSlot(5);
            let mut actual = state(&[(THERE, 1)], &[]);
            actual.endpoints.get_mut(&THERE).unwrap().namespace = 5;
            actual.modes.insert(slot, mode);
            let mut desired = State::default();
            if is_known {
                // What is to be goes before what is.
                desired.modes.insert(slot, mode);
                actual.modes.insert(slot, Mode::Lockdown);
            }
            keep(&actual, &mut desired, &links);
            let kept = desired.endpoints[&THERE];
            assert_eq!(kept.mode_override, of_endpoint, "{mode:?}");
        }
    }
}

#[test]
fn what_the_state_does_not_know_stays_or_is_unknown_and_the_rest_is_as_it_says() {
    let links = Links::ethernet([("rf-a".into(), THERE)]);
    let actual = state(
        &[(THERE, 1), (GONE, 2)],
        &[("10.0.0.1", 300), ("10.0.0.2", 301)],
    );
    let mut desired = state(&[], &[("10.0.0.2", 400), ("10.0.0.3", 401)]);
    keep(&actual, &mut desired, &links);
    let expected = state(
        &[(THERE, 1)],
        &[
            ("10.0.0.1", IdentityId::UNKNOWN.0),
            ("10.0.0.2", 400),
            ("10.0.0.3", 401),
        ],
    );
    assert_eq!(desired, expected);
    let mut known = state(&[(THERE, 5)], &[]);
    keep(&actual, &mut known, &links);
    let table = known.endpoints[&THERE].table;
    assert_eq!((table, known.tables.len()), (TableId(5), 1));
}
