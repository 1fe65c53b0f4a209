//! Lists of writes: made in batches, with an exact count of writes made when the kernel refuses
//! one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence::{
    datapath::{Datapath as _, LoadOptions},
    plan::{Action, Row, State},
};
use ringfence_common::{
    endpoint::Endpoint,
    ids::{ClassId, IdentityId, RuleSlot, TableId},
    maps,
    mode::Verdict,
    net::Port,
    policy::{PolicyKey, PolicyRow},
};

use crate::loaded::Pinned;

/// Map capacity, small so that a list does not fit.
const ROOM: u32 = 64;

fn row(port: u16) -> Action {
    let key = PolicyKey {
        table: TableId(7),
        class: ClassId(3),
        direction: 1,
        protocol: 6,
        port: Port::new(port),
    };
    Action::PutRow(Row {
        bits: PolicyKey::FULL_BITS,
        key,
        row: PolicyRow::lasting(Verdict::Allow, RuleSlot(16)),
    })
}

fn address(v6: bool, number: u32) -> Action {
    let address = if v6 {
        IpAddr::V6(Ipv6Addr::from(u128::from(number) | 0xfd << 120))
    } else {
        IpAddr::V4(Ipv4Addr::from(number | 10 << 24))
    };
    Action::PutAddress(address, IdentityId(16 + number % 5))
}

/// The state that the kernel should hold after these writes, as far as it can be read back.
fn after(actions: &[Action]) -> State {
    let mut state = State::default();
    actions.iter().for_each(|action| state.record(action));
    state
}

fn endpoint(ifindex: u32) -> Action {
    let endpoint = Endpoint {
        ifindex,
        ..Endpoint::default()
    };
    Action::PutEndpoint(ifindex, endpoint)
}

#[test]
fn a_list_has_the_same_effect_as_its_single_writes() {
    let pinned = Pinned::new();
    let (mut datapath, _telemetry) = pinned.load(&LoadOptions::default());
    let identities = (16..21).map(|identity| (IdentityId(identity), ClassId(identity * 2)));
    let mut actions: Vec<Action> = (1..300).map(row).collect();
    actions.extend(identities.map(|(identity, class)| Action::SetClass(identity, class)));
    actions.extend((0..300).map(|number| address(false, number)));
    actions.extend((0..300).map(|number| address(true, number)));
    actions.push(Action::BumpAllEpochs);
    actions.push(endpoint(5));
    datapath.write_all(&actions).unwrap();
    let (held, wanted) = (datapath.read().unwrap(), after(&actions));
    assert_eq!(held.tables, wanted.tables);
    assert_eq!(held.addresses, wanted.addresses);
    assert_eq!(held.classes, wanted.classes);
    assert_eq!(held.endpoints, wanted.endpoints);
}

#[test]
fn only_the_writes_before_a_refused_one_are_made() {
    let pinned = Pinned::new();
    let (mut datapath, _telemetry) = pinned.load(&LoadOptions {
        capacities: [maps::IPCACHE4, maps::IPCACHE6, maps::POLICY]
            .map(|map| (map, ROOM))
            .to_vec(),
        ..LoadOptions::default()
    });
    let rows = (1..).map(row);
    let v4 = (0..).map(|number| address(false, number));
    let v6 = (0..).map(|number| address(true, number));
    let lists: [(&str, Vec<Action>); 3] = [
        ("POLICY", rows.take(300).collect()),
        ("IPCACHE4", v4.take(300).collect()),
        ("IPCACHE6", v6.take(300).collect()),
    ];
    let mut expected = Vec::new();
    for (map, list) in lists {
        // A write before the list and one after it that cannot be part of its batch.
        let list = [vec![endpoint(5)], list, vec![endpoint(6)]].concat();
        let refused = datapath.write_all(&list).unwrap_err();
        assert!(refused.error.to_string().contains(map), "{}", refused.error);
        let made = refused.made - 1;
        // The kernel counts the entries of large maps only approximately.
        assert!((1..=2 * ROOM as usize).contains(&made), "{map}: {made}");
        expected.extend_from_slice(&list[..refused.made]);
        let (held, wanted) = (datapath.read().unwrap(), after(&expected));
        assert_eq!(held.tables, wanted.tables, "{map}");
        assert_eq!(held.addresses, wanted.addresses, "{map}");
        assert_eq!(held.endpoints, wanted.endpoints, "{map}");
    }
}

#[test]
fn bumping_all_epochs_increments_every_slot() {
    let pinned = Pinned::new();
    let (mut datapath, _telemetry) = pinned.load(&LoadOptions::default());
    let read = || {
        let map = aya::maps::MapData::from_pin(pinned.pins.map(maps::IDENTITY_EPOCH)).unwrap();
        let map = aya::maps::Array::<_, u32>::try_from(aya::maps::Map::Array(map)).unwrap();
        map.iter().collect::<Result<Vec<u32>, _>>().unwrap()
    };
    let all = |epoch| vec![epoch; maps::EPOCHS as usize];
    assert_eq!(read(), all(0));
    let address = "10.0.0.1".parse().unwrap();
    datapath.write(&Action::BumpEpoch(address)).unwrap();
    let [bumped] = (0..)
        .zip(read())
        .filter(|(_, epoch)| *epoch == 1)
        .map(|(slot, _)| slot)
        .collect::<Vec<usize>>()[..]
    else {
        panic!("one slot for one address");
    };
    datapath.write_all(&[Action::BumpAllEpochs]).unwrap();
    let mut expected = all(1);
    expected[bumped] = 2;
    assert_eq!(read(), expected);
    // A new load continues from the pinned values.
    let (mut datapath, _telemetry) = pinned.load(&LoadOptions::default());
    datapath.write(&Action::BumpAllEpochs).unwrap();
    expected.iter_mut().for_each(|epoch| *epoch += 1);
    assert_eq!(read(), expected);
}
