//! The numbers that the kernel's maps hold, the clearing of rules, and the mark of table numbers.

use std::collections::HashSet;

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use ringfence::datapath::{Datapath as _, HeldNumbers, LoadOptions};
use ringfence::plan::Action;
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6,
        unreplied::{CtSet4, CtSet6},
    },
    deny_aggregate::{DenyCount, DenyKey},
    endpoint::Endpoint,
    ids::{IdentityId, RuleSlot},
    maps::{self, RuleHit},
    net::{Ip4, Ip6},
};
use zerocopy::FromZeros as _;

use crate::fence::{IFINDEX, TABLE};
use crate::loaded::{Pinned, pinned_map};

/// An entry that holds three different numbers derived from one.
fn entry(number: u32) -> CtEntry {
    CtEntry {
        expires: u64::MAX,
        table: TABLE,
        rule: u16::try_from(number + 30_000).unwrap(),
        reverse_rule: u16::try_from(number + 30_000).unwrap(),
        peer: u16::try_from(number + 40_000).unwrap(),
        ..CtEntry::default()
    }
}

fn key4(number: u32) -> CtKey4 {
    CtKey4 {
        ifindex: IFINDEX,
        peer: Ip4(number),
        ..CtKey4::new_zeroed()
    }
}

fn key6(number: u32) -> CtKey6 {
    CtKey6 {
        ifindex: IFINDEX,
        peer: Ip6 {
            first: 0,
            last: number.into(),
        },
        ..CtKey6::new_zeroed()
    }
}

fn fill<K: Pod>(
    pinned: &Pinned,
    map: &str,
    numbers: std::ops::Range<u32>,
    key: fn(u32) -> K,
) -> HashMap<MapData, K, CtEntry> {
    let mut entries: HashMap<_, K, CtEntry> = pinned_map(&pinned.pins, map);
    for number in numbers {
        entries.insert(key(number), entry(number), 0).unwrap();
    }
    entries
}

fn aggregate(rule: u32, ifindex: u32) -> DenyKey {
    DenyKey {
        rule: RuleSlot(rule),
        ifindex,
        ..DenyKey::default()
    }
}

#[test]
fn every_number_that_an_entry_holds_is_found() {
    let pinned = Pinned::new();
    let (mut datapath, _) = pinned.load(&LoadOptions::default());
    assert_eq!(datapath.held_numbers()().unwrap(), HeldNumbers::default());
    let endpoint = Endpoint {
        table: TABLE,
        ..Endpoint::default()
    };
    datapath
        .write(&Action::PutEndpoint(IFINDEX, endpoint))
        .unwrap();
    // More than a few batches.
    let mut assured = fill(&pinned, maps::CT4, 0..20_000, key4);
    fill(&pinned, maps::CT6, 20_000..20_100, key6);
    let mut unreplied4: Array<_, CtSet4> = pinned_map(&pinned.pins, maps::CT_UNREPLIED4);
    let mut unreplied6: Array<_, CtSet6> = pinned_map(&pinned.pins, maps::CT_UNREPLIED6);
    for number in 20_100..20_200 {
        let mut set = CtSet4::default();
        set.ways[3].key = key4(number);
        set.ways[3].entry = entry(number);
        // With another epoch, and of an interface without an endpoint: neither is used as it is.
        set.ways[6].key = key4(number);
        set.ways[6].entry = CtEntry {
            epoch: 1,
            ..entry(20_350)
        };
        set.ways[5].key.ifindex = IFINDEX + 1;
        set.ways[5].entry = entry(20_450);
        set.ways[4].key = key4(number);
        set.ways[4].entry = CtEntry {
            expires: 1,
            ..entry(20_400)
        };
        unreplied4.set(number - 20_000, set, 0).unwrap();
        let mut set = CtSet6::default();
        set.ways[7].key = key6(number);
        set.ways[7].entry = entry(number + 100);
        unreplied6.set(number - 20_000, set, 0).unwrap();
    }
    let mut denies: HashMap<_, DenyKey, DenyCount> = pinned_map(&pinned.pins, maps::DENIES);
    for rule in 0..50 {
        denies
            .insert(aggregate(rule, 7), DenyCount::default(), 0)
            .unwrap();
    }
    let all = HeldNumbers {
        rules: (30_000..50_300).map(RuleSlot).collect(),
        identities: (40_000..60_300).map(IdentityId).collect(),
        denying: (0..50).map(RuleSlot).collect(),
    };
    assert!(
        datapath.held_numbers()().unwrap() == all,
        "not every number was found"
    );
    for number in 1..20_000 {
        assured.remove(&key4(number)).unwrap();
    }
    let left = datapath.held_numbers()().unwrap();
    assert_eq!(left.identities.len(), 301);
}

#[test]
fn a_cleared_rule_has_no_aggregates_and_no_hits() {
    let pinned = Pinned::new();
    let (mut datapath, telemetry) = pinned.load(&LoadOptions::default());
    let mut denies: HashMap<_, DenyKey, DenyCount> = pinned_map(&pinned.pins, maps::DENIES);
    let mut hits: PerCpuArray<_, RuleHit> = pinned_map(&pinned.pins, maps::RULE_HITS);
    for (rule, ifindex) in [(20, 1), (20, 2), (21, 1), (22, 1)] {
        let count = DenyCount::default();
        denies.insert(aggregate(rule, ifindex), count, 0).unwrap();
        let hit = RuleHit { hits: 5, last: 9 };
        let values = vec![hit; nr_cpus().unwrap()];
        hits.set(rule, PerCpuValues::try_from(values).unwrap(), 0)
            .unwrap();
    }
    datapath.clear_rules(&HashSet::new()).unwrap();
    let cleared = [20, 22].map(RuleSlot).into();
    datapath.clear_rules(&cleared).unwrap();
    let left = datapath.held_numbers()().unwrap().denying;
    assert_eq!(left, [RuleSlot(21)].into());
    let hits = |rule| telemetry.readings.rule_hits(RuleSlot(rule)).unwrap().hits;
    assert_eq!((hits(20), hits(22)), (0, 0));
    assert!(hits(21) > 0, "the control");
}

#[test]
fn the_table_mark_lives_as_long_as_the_pins() {
    let pinned = Pinned::new();
    let (mut datapath, _) = pinned.load(&LoadOptions::default());
    assert_eq!(datapath.table_mark().unwrap(), None);
    datapath.set_table_mark(70_000).unwrap();
    drop(datapath);
    let (mut adopted, _) = pinned.load(&LoadOptions::default());
    assert_eq!(adopted.table_mark().unwrap(), Some(70_000));
}
