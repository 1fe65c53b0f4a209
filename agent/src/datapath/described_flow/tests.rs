use ringfence_common::{
    SECOND,
    conntrack::{
        description::MAGIC,
        unreplied::{CtSet4, WayWord},
    },
    policy::FOREVER,
};
use zerocopy::IntoBytes as _;

use super::*;

const NOW: u64 = 1000 * SECOND;
const LATER: u64 = NOW + 30 * SECOND;

fn key(port: u16) -> CtKey4 {
    CtKey4 {
        local: Ip4::from_wire([10, 0, 0, 2]),
        peer: Ip4::from_wire([10, 0, 0, 3]),
        ifindex: 7,
        local_port: Port::new(port),
        peer_port: Port::new(80),
        protocol: 6,
        reserved: [0; 3],
    }
}

/// An entry of this layout with an allow that would be in force.
fn allowed(key: &CtKey4, flags: u8) -> CtEntry {
    let mut entry = CtEntry {
        expires: LATER,
        state: StateBytes::of(0b1000_0011),
        recheck: FOREVER,
        table: TableId(9),
        originator_seen: 77,
        verdicts: 1,
        rule: 20,
        peer: 17,
        flags,
        ..CtEntry::default()
    };
    entry.seal = entry.seal_for(key);
    entry
}

fn flows(
    description: &Description,
    map: &DescribedMap,
    key: &[u8],
    value: &[u8],
) -> Vec<(CtKey4, CtEntry)> {
    let mut flows = Vec::new();
    read(description, map, (key, value), NOW, |key, entry| {
        flows.push((key, entry));
    });
    flows
}

/// What every entry that was read must be, whatever it was before.
fn check_decides_nothing(entry: &CtEntry, key: &CtKey4) {
    assert!(entry.is_sealed_for(key) && entry.is_in_assured() && is_unused(entry));
    for table in [TableId::NONE, TableId(9)] {
        assert!(!entry.is_fresh(table, 0, || 1), "{table:?}");
    }
    let verdict = ringfence_common::mode::Verdict::Deny;
    assert_eq!((entry.verdict(), entry.reverse()), (verdict, None));
    assert_eq!(
        (entry.peer, entry.epoch),
        (0, 0),
        "numbers of another agent"
    );
}

#[test]
fn an_own_entry_keeps_what_it_knows_of_the_flow_and_loses_its_verdict() {
    let own = Description::OWN;
    let kept = flags::FROM_WORKLOAD | flags::PICKED_UP | flags::WAS_ALLOWED;
    let before = allowed(&key(1), kept | flags::REJECTED);
    let read = flows(&own, &own.assured[0], key(1).as_bytes(), before.as_bytes());
    let [(found, entry)] = read.as_slice() else {
        panic!("{read:?}");
    };
    assert_eq!(*found, key(1));
    check_decides_nothing(entry, &key(1));
    assert_eq!(entry.flags, kept | flags::ASSURED);
    assert_eq!((entry.expires, entry.state), (LATER, before.state));
    assert_eq!((entry.originator_seen, entry.rule), (77, 0));
}

#[test]
fn a_flow_of_the_host_stays_one() {
    let own = Description::OWN;
    let before = allowed(&key(1), flags::HOST_INGRESS);
    let read = flows(&own, &own.assured[0], key(1).as_bytes(), before.as_bytes());
    assert_eq!(read[0].1.rule(), RuleSlot::HOST_INGRESS);
    assert!(read[0].1.flags & flags::HOST_INGRESS != 0);
}

#[test]
fn dead_entries_and_free_ways_are_no_flows() {
    let own = Description::OWN;
    let dead = CtEntry {
        expires: NOW,
        ..allowed(&key(1), 0)
    };
    assert!(flows(&own, &own.assured[0], key(1).as_bytes(), dead.as_bytes()).is_empty());

    let mut set = CtSet4::default();
    for (way, port) in set.ways.iter_mut().zip(1..) {
        way.key = key(port);
        way.entry = allowed(&key(port), 0);
    }
    // A removed entry stays in its way.
    set.words[7] = WayWord(5);
    set.words[2] = WayWord(5);
    let read = flows(&own, &own.unreplied[0], &[0; 4], set.as_bytes());
    let keys: Vec<_> = read.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [key(3), key(8)]);
    check_decides_nothing(&read[0].1, &key(3));
}

/// An entry of ABI version 6, written as that version's source lays it out.
fn entry6(verdict: u8, state: u8, flags: u8) -> [u8; 64] {
    let mut bytes = [0xee; 64];
    bytes[0..8].copy_from_slice(&LATER.to_ne_bytes());
    bytes[8..16].copy_from_slice(&FOREVER.to_ne_bytes());
    bytes[56..60].copy_from_slice(&[verdict, state, flags, 0]);
    bytes
}

#[test]
fn entries_of_abi_6_are_read() {
    let six = Description::ABI6;
    for map in [six.assured[0], six.unreplied[0]] {
        let bytes = entry6(1, 0b1000_0011, flags::FROM_WORKLOAD | 16);
        let read = flows(&six, &map, key(1).as_bytes(), &bytes);
        check_decides_nothing(&read[0].1, &key(1));
        let all = flags::FROM_WORKLOAD | flags::WAS_ALLOWED | flags::ASSURED;
        assert_eq!(read[0].1.flags, all);
        assert_eq!(read[0].1.state.bits(), 0b1000_0011);
        assert_eq!(
            read[0].1.originator_seen,
            originator::coarse(NOW),
            "not recorded"
        );
    }
    let denied = flows(&six, &six.assured[0], key(1).as_bytes(), &entry6(2, 1, 0));
    assert_eq!(denied[0].1.flags, flags::ASSURED);
}

#[test]
fn bytes_that_do_not_fit_their_description_are_no_flow() {
    let own = Description::OWN;
    let entry = allowed(&key(1), 0);
    let (whole, bytes) = (key(1), entry.as_bytes());
    for length in 0..bytes.len() - 2 {
        let short = flows(&own, &own.assured[0], whole.as_bytes(), &bytes[..length]);
        assert!(short.is_empty(), "{length}");
    }
    let short = flows(&own, &own.assured[0], &whole.as_bytes()[..16], bytes);
    assert!(short.is_empty());
    let mut odd = own;
    odd.entry.expires.size = 3;
    assert!(flows(&odd, &odd.assured[0], whole.as_bytes(), bytes).is_empty());
    let mut far = own;
    far.unreplied[0].first = u16::MAX;
    assert!(flows(&far, &far.unreplied[0], &[0; 4], &[1; 768]).is_empty());
}

#[test]
fn an_entry_that_a_packet_was_evaluated_by_is_used() {
    let used = allowed(&key(1), 0);
    assert!(!is_unused(&used) && own_magic());
    let stale = CtEntry { recheck: 0, ..used };
    assert!(!is_unused(&stale), "its table is that of an evaluation");
    assert!(
        is_newer(
            &CtEntry {
                expires: LATER + 1,
                ..used
            },
            &used
        ) && !is_newer(&used, &used)
    );
}

fn own_magic() -> bool {
    Description::OWN.magic == MAGIC
}
