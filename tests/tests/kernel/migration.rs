//! A fence that finds another ABI's on its interfaces: which flows it copies, and what it leaves.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::{SchedClassifier, TcAttachType};
use ringfence::datapath::{Datapath as _, KernelDatapath, LoadOptions};
use ringfence::plan::Action;
use ringfence_common::{
    SECOND,
    conntrack::{
        CtEntry, CtKey4, StateBytes, flags,
        unreplied::{CtSet4, WayWord},
    },
    endpoint::Endpoint,
    ids::TableId,
    maps,
    mode::Verdict,
    net::{Ip4, Port},
    policy::FOREVER,
};
use ringfence_testbed::other_layout::{OtherLayout, disguise};
use ringfence_testbed::{NetNs, eventually};

use crate::loaded::Pinned;

const DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);
const INTERFACES: [&str; 2] = ["one", "two"];

/// Two interfaces with a fence of another layout, and what is pinned of it.
struct Predecessor {
    ns: NetNs,
    indices: [u32; 2],
    pinned: Pinned,
    now: u64,
    version: u32,
}

fn options() -> LoadOptions {
    LoadOptions {
        capacities: vec![(maps::CT4, 1024), (maps::CT6, 1024)],
        ..LoadOptions::default()
    }
}

fn key(ifindex: u32, port: u16) -> CtKey4 {
    CtKey4 {
        local: Ip4::from_wire([10, 0, 0, 2]),
        peer: Ip4::from_wire([10, 0, 0, 3]),
        ifindex,
        local_port: Port::new(port),
        peer_port: Port::new(80),
        protocol: 6,
        reserved: [0; 3],
    }
}

/// An entry that allows until further notice.
fn allowed(key: &CtKey4, expires: u64) -> CtEntry {
    let mut entry = CtEntry {
        expires,
        state: StateBytes::of(3),
        table: TableId(7),
        recheck: FOREVER,
        verdicts: Verdict::Allow as u8,
        flags: flags::FROM_WORKLOAD | flags::WAS_ALLOWED | flags::ASSURED,
        ..CtEntry::default()
    };
    entry.seal = entry.seal_for(key);
    entry
}

fn pinned_map<T: TryFrom<Map, Error: std::fmt::Debug>>(pinned: &Pinned, name: &str) -> T {
    let map = MapData::from_pin(pinned.pins.map(name)).unwrap();
    T::try_from(Map::from_map_data(map).unwrap()).unwrap()
}

fn assured(pinned: &Pinned) -> HashMap<MapData, CtKey4, CtEntry> {
    pinned_map(pinned, maps::CT4)
}

impl Predecessor {
    /// Each interface has an assured flow (port 1), an unreplied one (2), one that is dead (3) and
    /// one whose way is free again (4).
    fn new(layout: OtherLayout) -> Self {
        let ns = NetNs::new().unwrap();
        let [one, two] = INTERFACES;
        ns.ip(&format!("link add {one} type veth peer name {two}"))
            .unwrap();
        let index = |name| {
            ns.run(|| nix::net::if_::if_nametoindex(name))
                .unwrap()
                .unwrap()
        };
        let indices = INTERFACES.map(index);
        let pinned = Pinned::new();
        let (mut old, _telemetry) = pinned.load(&options());
        for (ifindex, interface) in indices.into_iter().zip(INTERFACES) {
            attach(&ns, &mut old, ifindex, interface);
        }
        let now = old.clocks().unwrap().ticks;
        let mut flows = assured(&pinned);
        let mut sets: Array<MapData, CtSet4> = pinned_map(&pinned, maps::CT_UNREPLIED4);
        let mut set = CtSet4::default();
        for (at, ifindex) in indices.into_iter().enumerate() {
            let put = |port, expires| (key(ifindex, port), allowed(&key(ifindex, port), expires));
            for (key, entry) in [put(1, now + 300 * SECOND), put(3, now)] {
                flows.insert(key, entry, 0).unwrap();
            }
            (set.ways[at].key, set.ways[at].entry) = put(2, now + 300 * SECOND);
            set.words[at] = WayWord(1);
            (set.ways[at + 4].key, set.ways[at + 4].entry) = put(4, now + 300 * SECOND);
        }
        sets.set(9, set, 0).unwrap();
        drop(old);
        let bpffs = pinned.bpffs();
        disguise(bpffs, layout).unwrap();
        Self {
            ns,
            indices,
            pinned,
            now,
            version: layout.version(),
        }
    }

    fn load(&self) -> KernelDatapath {
        self.pinned.load(&options()).0
    }

    fn is_pinned(&self) -> bool {
        self.pinned
            .bpffs()
            .join(format!("v{}", self.version))
            .exists()
    }

    /// Polls, because the kernel frees a link some time after its last reference.
    fn expect_programs(&self, expected: [usize; 2]) {
        let expected = expected.map(|count| [count; 2]);
        let mut counts = [[0; 2]; 2];
        let found = eventually(DEADLINE, "the programs at the hooks", || {
            counts = INTERFACES.map(|interface| {
                [TcAttachType::Ingress, TcAttachType::Egress].map(|hook| {
                    let query = || SchedClassifier::query_tcx(interface, hook);
                    self.ns.run(query).unwrap().unwrap().1.len()
                })
            });
            Ok((counts == expected).then_some(()))
        });
        assert!(found.is_ok(), "{counts:?} instead of {expected:?}");
    }
}

fn attach(ns: &NetNs, datapath: &mut KernelDatapath, ifindex: u32, interface: &'static str) {
    let action = Action::PutEndpoint(ifindex, Endpoint::default());
    datapath.write(&action).unwrap();
    ns.run(|| datapath.attach(ifindex, interface))
        .unwrap()
        .unwrap();
}

fn check_takes_over(layout: OtherLayout) {
    let old = Predecessor::new(layout);
    let [one, two] = old.indices;
    let mut new = old.load();
    assert_eq!(new.attached(), [one, two].into());
    assert!(old.is_pinned());
    old.expect_programs([1, 1]);

    attach(&old.ns, &mut new, one, INTERFACES[0]);
    assert!(old.is_pinned(), "the other interface has its fence still");
    let flows: BTreeMap<_, _> = assured(&old.pinned)
        .iter()
        .map(|flow| flow.unwrap())
        .map(|(key, entry)| ((key.ifindex, key.local_port.number()), (key, entry)))
        .collect();
    let ports: Vec<_> = flows.keys().copied().collect();
    assert_eq!(ports, [(one, 1), (one, 2)]);
    for (key, entry) in flows.values() {
        assert!(entry.is_sealed_for(key), "{entry:?}");
        for table in [TableId::NONE, TableId(7)] {
            assert!(!entry.is_fresh(table, 0, || 1), "{entry:?}");
        }
        let kept = flags::FROM_WORKLOAD | flags::WAS_ALLOWED | flags::ASSURED;
        assert_eq!((entry.flags, entry.state), (kept, StateBytes::of(3)));
        assert_eq!(entry.expires, old.now + 300 * SECOND);
    }
    old.expect_programs([1, 1]);

    attach(&old.ns, &mut new, two, INTERFACES[1]);
    assert!(!old.is_pinned());
    assert_eq!(assured(&old.pinned).iter().count(), 4);
    old.expect_programs([1, 1]);
}

#[test]
fn an_interface_is_taken_over_with_its_flows_from_abi_6() {
    check_takes_over(OtherLayout::Six);
}

#[test]
fn an_interface_is_taken_over_with_its_flows_from_a_newer_abi() {
    check_takes_over(OtherLayout::NewerMoved);
}

#[test]
fn flows_that_were_used_stay_and_others_are_renewed() {
    let old = Predecessor::new(OtherLayout::NewerUnchanged);
    let [one, _] = old.indices;
    let mut new = old.load();
    let mut flows = assured(&old.pinned);
    // A start that died after copying: one flow was used since, the other was not.
    let used = allowed(&key(one, 1), old.now + 100 * SECOND);
    flows.insert(key(one, 1), used, 0).unwrap();
    let mut unused = CtEntry {
        recheck: 0,
        table: TableId::NONE,
        ..allowed(&key(one, 2), old.now + 100 * SECOND)
    };
    unused.seal = unused.seal_for(&key(one, 2));
    flows.insert(key(one, 2), unused, 0).unwrap();
    attach(&old.ns, &mut new, one, INTERFACES[0]);
    assert_eq!(flows.get(&key(one, 1), 0).unwrap(), used);
    let renewed = flows.get(&key(one, 2), 0).unwrap();
    assert_eq!(renewed.expires, old.now + 300 * SECOND);
    let left = flows.get(&key(one, 4), 0);
    assert!(left.is_err(), "its way is free: {left:?}");
}

#[test]
fn an_interface_without_an_endpoint_is_left_by_both() {
    let old = Predecessor::new(OtherLayout::NewerMoved);
    let mut new = old.load();
    for (ifindex, left) in old.indices.into_iter().zip([[0, 1], [0, 0]]) {
        old.ns.run(|| new.detach(ifindex)).unwrap().unwrap();
        old.expect_programs(left);
    }
    assert!(!old.is_pinned() && new.attached().is_empty());
}

#[test]
fn what_has_no_description_is_taken_over_without_flows() {
    let old = Predecessor::new(OtherLayout::NewerMoved);
    let dir = old.pinned.bpffs().join(format!("v{}", old.version));
    std::fs::remove_file(dir.join("maps").join(maps::CT_DESCRIPTION)).unwrap();
    let mut new = old.load();
    for (ifindex, interface) in old.indices.into_iter().zip(INTERFACES) {
        attach(&old.ns, &mut new, ifindex, interface);
    }
    assert!(!old.is_pinned());
    assert_eq!(assured(&old.pinned).iter().count(), 0);
    old.expect_programs([1, 1]);
}

#[test]
fn pins_without_a_fence_are_removed() {
    let old = Predecessor::new(OtherLayout::NewerMoved);
    let links = old
        .pinned
        .bpffs()
        .join(format!("v{}", old.version))
        .join("links");
    for link in std::fs::read_dir(links).unwrap() {
        std::fs::remove_file(link.unwrap().path()).unwrap();
    }
    let new = old.load();
    assert!(!old.is_pinned() && new.attached().is_empty());
}
