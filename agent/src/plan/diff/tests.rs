//! Plans, replayed write by write.
//!
//! States are random, but have the compiler's invariants: every endpoint's table exists, and its
//! rows include one that matches every lookup.

use std::collections::BTreeSet;

use proptest::{
    collection::{btree_map, btree_set},
    prelude::*,
    sample::select,
};
use ringfence_common::{
    endpoint::Endpoint,
    ids::{ClassId, IdentityId, NamespaceSlot, RuleSlot},
    maps,
    mode::{Mode, Verdict},
    net::Port,
    policy::{PolicyKey, PolicyRow},
};

use super::*;
use crate::plan::{Capacities, check};

fn table(number: u32) -> impl Strategy<Value = (TableId, Arc<TableRows>)> {
    let ports = btree_set(1..6u16, 0..4);
    (ports, 16..19u32).prop_map(move |(ports, rule)| {
        let key = |port| PolicyKey {
            table: TableId(number),
            class: ClassId::ANY,
            direction: 1,
            protocol: 6,
            port: Port::new(port),
        };
        let row = PolicyRow::lasting(Verdict::Allow, RuleSlot(rule));
        let exact = ports
            .into_iter()
            .map(|port| ((PolicyKey::FULL_BITS, key(port)), row));
        let rows = exact.chain([((PolicyKey::PROTOCOL_BITS, key(0)), row)]);
        (TableId(number), Arc::new(rows.collect()))
    })
}

fn state() -> impl Strategy<Value = State> {
    let tables = (table(1), table(2), table(3), table(4));
    let classes = btree_map(
        (16..22u32).prop_map(IdentityId),
        (0..4u32).prop_map(ClassId),
        0..6,
    );
    let nets = select(vec!["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8"]);
    let identity = || (16..22u32).prop_map(IdentityId);
    let prefixes = btree_map(nets.prop_map(|net| net.parse().unwrap()), identity(), 0..4);
    let hosts = select(vec!["10.0.0.1", "10.0.0.2", "10.1.0.3", "fd00::1"]);
    let addresses = btree_map(
        hosts.prop_map(|host| host.parse().unwrap()),
        identity(),
        0..4,
    );
    let endpoints = btree_map(1..5u32, (1..5u32, identity()), 0..4);
    let modes = btree_map(
        (0..3u32).prop_map(NamespaceSlot),
        select(vec![Mode::Observe, Mode::Enforce]),
        0..3,
    );
    (tables, classes, prefixes, addresses, endpoints, modes).prop_map(
        |(tables, classes, prefixes, addresses, endpoints, modes)| {
            let endpoint = |(table, identity)| Endpoint {
                table: TableId(table),
                identity,
                ..Endpoint::default()
            };
            let endpoints = endpoints
                .into_iter()
                .map(|(ifindex, drawn)| (ifindex, endpoint(drawn)))
                .collect::<std::collections::BTreeMap<u32, Endpoint>>();
            let used: BTreeSet<TableId> = endpoints.values().map(|e| e.table).collect();
            let tables = [tables.0, tables.1, tables.2, tables.3];
            State {
                tables: tables
                    .into_iter()
                    .filter(|(table, _)| used.contains(table))
                    .collect(),
                modes: modes.into_iter().collect(),
                classes: classes.into_iter().collect(),
                prefixes: prefixes.into_iter().collect(),
                addresses: addresses.into_iter().collect(),
                endpoints,
                ..State::default()
            }
        },
    )
}

fn phase(action: &Action) -> u8 {
    match action {
        Action::PutRow(_) => 0,
        Action::SetMode(..) => 1,
        Action::SetClass(..) => 2,
        Action::PutPrefix(..) | Action::DeletePrefix(_) => 3,
        Action::PutAddress(..) | Action::DeleteAddress(_) => 4,
        Action::NewOwner(_) | Action::BumpEpoch(_) | Action::BumpAllEpochs => 5,
        Action::SetPickup(..) | Action::PutEndpoint(..) | Action::DeleteEndpoint(_) => 6,
        Action::DeleteRow(_) => 7,
    }
}

/// Whether every endpoint has all the rows that one of the states gives to the same endpoint.
fn all_rows_present(now: &State, promised: [&State; 2]) -> bool {
    now.endpoints.iter().all(|(ifindex, endpoint)| {
        promised.into_iter().any(|state| {
            let same = state.endpoints.get(ifindex) == Some(endpoint);
            let rows = state.tables.get(&endpoint.table).filter(|_| same);
            let held = now.tables.get(&endpoint.table);
            rows.zip(held)
                .is_some_and(|(rows, held)| rows.keys().all(|key| held.contains_key(key)))
        })
    })
}

fn assert_same(held: &State, desired: &State) -> Result<(), TestCaseError> {
    prop_assert_eq!(&held.tables, &desired.tables);
    prop_assert_eq!(&held.prefixes, &desired.prefixes);
    prop_assert_eq!(&held.addresses, &desired.addresses);
    prop_assert_eq!(&held.endpoints, &desired.endpoints);
    // Classes and modes of unused numbers are left: arrays do not shrink.
    for (identity, class) in &desired.classes {
        prop_assert_eq!(
            held.classes.get(identity).copied().unwrap_or_default(),
            *class
        );
    }
    for (slot, mode) in &desired.modes {
        prop_assert_eq!(held.modes.get(slot), Some(mode));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_plan_leads_from_one_state_to_the_other((actual, desired) in (state(), state())) {
        let plan = plan(&actual, &desired);
        let phases: Vec<u8> = plan.publish.iter().map(phase).collect();
        prop_assert!(phases.is_sorted(), "{phases:?}");
        prop_assert!(!phases.contains(&7));

        let mut held = actual.clone();
        for action in &plan.publish {
            held.record(action);
            prop_assert!(all_rows_present(&held, [&desired, &actual]), "after {action:?}");
        }
        let mut at_once = actual.clone();
        at_once.overlay(&desired);
        prop_assert_eq!(&at_once.tables, &held.tables);
        assert_same(&State { tables: desired.tables.clone(), ..at_once.clone() }, &desired)?;
        let after = super::plan(&at_once, &desired);
        prop_assert!(after.publish.is_empty() && after.retire.len() == plan.retire.len());
        for action in &plan.retire {
            let Action::DeleteRow(row) = action else {
                return Err(TestCaseError::fail(format!("{action:?} does not remove a row")));
            };
            let wanted = desired.tables.get(&row.key.table);
            prop_assert!(!wanted.is_some_and(|rows| rows.contains_key(&(row.bits, row.key))));
            held.record(action);
            prop_assert!(all_rows_present(&held, [&desired, &desired]), "after {action:?}");
        }
        assert_same(&held, &desired)?;
        prop_assert!(super::plan(&held, &desired).is_empty());
    }

    #[test]
    fn a_plan_from_a_state_to_itself_is_empty(state in state()) {
        prop_assert!(plan(&state, &state).is_empty());
        // Equal, but without shared parts.
        let apart = State {
            tables: state.tables.iter().map(|(t, rows)| (*t, Arc::new((**rows).clone()))).collect(),
            addresses: state.addresses.iter().map(|(a, id)| (*a, *id)).collect(),
            ..state.clone()
        };
        prop_assert!(plan(&state, &apart).is_empty());
    }

    #[test]
    fn exactly_the_peak_must_fit((actual, desired) in (state(), state())) {
        let mut held = actual.clone();
        let mut peak = [0, 0, 0];
        for action in &plan(&actual, &desired).publish {
            held.record(action);
            let now = [held.rows(), held.endpoints.len(), held.prefixes.len()];
            peak = [0, 1, 2].map(|at| peak[at].max(now[at]));
        }
        let exact = Capacities { policy: peak[0], ..Capacities::default() };
        let changes = held.tables != actual.tables;
        prop_assert!(!changes || check(&actual, &desired, &exact).is_ok());
        if let Some(policy) = peak[0].checked_sub(1) && changes {
            let error = check(&actual, &desired, &Capacities { policy, ..exact }).unwrap_err();
            prop_assert_eq!((error.key, error.needed), ("policy", peak[0]));
        }
        let enough = Capacities { endpoints: peak[1].max(8), cidr: peak[2].max(8), ..exact };
        prop_assert!(!changes || check(&actual, &desired, &enough).is_ok());
    }
}

#[test]
fn removed_addresses_count_towards_capacity_until_they_are_removed() {
    for (old, new, map) in [
        ("10.0.0.1", "10.0.0.2", maps::IPCACHE4),
        ("fd00::1", "fd00::2", maps::IPCACHE6),
    ] {
        let with = |address: &str| State {
            addresses: [(address.parse().unwrap(), IdentityId(16))].into(),
            ..State::default()
        };
        let limits = |ipcache| Capacities {
            ipcache,
            ..Capacities::default()
        };
        assert!(check(&with(old), &with(new), &limits(2)).is_ok());
        let error = check(&with(old), &with(new), &limits(1)).unwrap_err();
        assert_eq!((error.map, error.needed), (map, 2));
        assert!(check(&with(old), &with(old), &limits(1)).is_ok());
    }
}

#[test]
fn epochs_start_only_for_changed_peers() {
    let mut before = State::default();
    before.endpoints.insert(1, Endpoint::default());
    before.addresses = [("10.0.0.1".parse().unwrap(), IdentityId(16))].into();
    let mut after = before.clone();
    after.addresses = [("10.0.0.1".parse().unwrap(), IdentityId(17))].into();
    let moved = plan(&before, &after).publish;
    assert_eq!(
        moved.last(),
        Some(&Action::BumpEpoch("10.0.0.1".parse().unwrap()))
    );

    after
        .prefixes
        .insert("10.0.0.0/8".parse().unwrap(), IdentityId(18));
    let widened = plan(&before, &after).publish;
    assert_eq!(widened.last(), Some(&Action::BumpAllEpochs));
    assert_eq!(
        widened.iter().filter(|action| phase(action) == 5).count(),
        1
    );

    before.endpoints.clear();
    after.endpoints.clear();
    let idle = plan(&before, &after).publish;
    assert!(
        idle.iter().all(|action| phase(action) != 5),
        "without an endpoint there is no flow"
    );
}

#[test]
fn only_another_owner_of_an_address_is_told_to_the_kernel() {
    let address: IpAddr = "10.0.0.9".parse().unwrap();
    let state = |identity: u32, owner: Option<u64>| State {
        addresses: [(address, IdentityId(identity))].into_iter().collect(),
        owners: owner.into_iter().map(|owner| (address, owner)).collect(),
        endpoints: [(1, Endpoint::default())].into_iter().collect(),
        ..State::default()
    };
    let told = |actual: &State, desired: &State| {
        let publish = plan(actual, desired).publish;
        let told = publish
            .iter()
            .position(|it| *it == Action::NewOwner(address));
        let epoch = publish
            .iter()
            .position(|it| *it == Action::BumpEpoch(address));
        assert!(told.is_none() || told < epoch, "the owner before the epoch");
        told.is_some()
    };
    assert!(
        told(&state(20, Some(1)), &state(21, Some(2))),
        "another owner"
    );
    assert!(
        !told(&state(20, Some(1)), &state(21, Some(1))),
        "other labels"
    );
    assert!(
        told(
            &State {
                endpoints: state(1, None).endpoints,
                ..State::default()
            },
            &state(20, Some(1))
        ),
        "a free address"
    );
    assert!(
        !told(&state(20, None), &state(21, Some(1))),
        "found in the kernel: unknown"
    );
}
