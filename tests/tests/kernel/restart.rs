//! A second start on the same pins: it keeps the programs of the first one if they are what it would
//! load, and loads them again in every other case.

use std::fs;

use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::{SchedClassifier, TcAttachType};
use ringfence::datapath::{Datapath as _, KernelDatapath, LoadOptions};
use ringfence::plan::Action;
use ringfence_common::{conntrack::Timeout, endpoint::Endpoint, maps};
use ringfence_testbed::NetNs;

use crate::loaded::Pinned;

const HOOKS: [(&str, TcAttachType); 2] = [
    ("from_workload", TcAttachType::Ingress),
    ("to_workload", TcAttachType::Egress),
];
const PROGRAMS: [&str; 3] = ["from_workload", "to_workload", "clocks"];
const INTERFACE: &str = "one";

/// An interface with a fence, and the pins of the agent that has ended since.
struct Former {
    ns: NetNs,
    ifindex: u32,
    pinned: Pinned,
    programs: [u32; 3],
}

fn options() -> LoadOptions {
    LoadOptions {
        capacities: vec![(maps::CT4, 1024), (maps::CT6, 1024)],
        ..LoadOptions::default()
    }
}

fn ids(datapath: &mut KernelDatapath) -> [u32; 3] {
    PROGRAMS.map(|name| datapath.program(name).unwrap().info().unwrap().id())
}

impl Former {
    fn new() -> Self {
        let ns = NetNs::new().unwrap();
        ns.ip(&format!("link add {INTERFACE} type veth peer name two"))
            .unwrap();
        let ifindex = ns
            .run(|| nix::net::if_::if_nametoindex(INTERFACE))
            .unwrap()
            .unwrap();
        let pinned = Pinned::new();
        let mut former = Self {
            ns,
            ifindex,
            pinned,
            programs: [0; 3],
        };
        let mut datapath = former.load();
        let action = Action::PutEndpoint(ifindex, Endpoint::default());
        datapath.write(&action).unwrap();
        former.attach(&mut datapath);
        former.programs = ids(&mut datapath);
        assert_eq!(former.attached(), former.programs[..2]);
        former
    }

    fn load(&self) -> KernelDatapath {
        self.load_with(&options())
    }

    fn load_with(&self, options: &LoadOptions) -> KernelDatapath {
        self.pinned.load(options).0
    }

    fn attach(&self, datapath: &mut KernelDatapath) {
        let attach = || datapath.attach(self.ifindex, INTERFACE);
        self.ns.run(attach).unwrap().unwrap();
    }

    /// The IDs of the programs at the hooks.
    fn attached(&self) -> Vec<u32> {
        let query = |hook| {
            let query = || SchedClassifier::query_tcx(INTERFACE, hook);
            self.ns.run(query).unwrap().unwrap().1
        };
        let programs = HOOKS.into_iter().flat_map(|(_, hook)| query(hook));
        programs.map(|program| program.id()).collect()
    }

    /// None of the former programs is in use, and the new ones are in place and work.
    fn expect_loaded_again(&self, options: &LoadOptions) {
        let mut datapath = self.load_with(options);
        let loaded = ids(&mut datapath);
        for id in loaded {
            assert!(!self.programs.contains(&id), "{id} of {:?}", self.programs);
        }
        assert!(datapath.clocks().unwrap().ticks > 0);
        self.attach(&mut datapath);
        assert_eq!(self.attached(), loaded[..2]);
        if options.debug {
            return;
        }
        // What was loaded again is taken over by the next start.
        drop(datapath);
        assert_eq!(ids(&mut self.load_with(options)), loaded);
    }

    fn record(&self) -> Array<MapData, [u8; 32]> {
        let map = MapData::from_pin(self.pinned.pins.map(maps::LOADED_PROGRAMS)).unwrap();
        Array::try_from(Map::from_map_data(map).unwrap()).unwrap()
    }
}

#[test]
fn programs_that_would_be_loaded_again_are_kept() {
    let former = Former::new();
    let mut datapath = former.load();
    assert_eq!(ids(&mut datapath), former.programs);
    assert_eq!(datapath.attached(), [former.ifindex].into());
    former.attach(&mut datapath);
    assert_eq!(former.attached(), former.programs[..2]);

    // The programs and the agent use the same maps.
    let before = datapath.clocks().unwrap();
    let after = datapath.clocks().unwrap();
    assert!(after.boot > before.boot, "{before:?}, {after:?}");
    let record = Endpoint {
        ifindex: former.ifindex,
        pickup_until: 7,
        ..Endpoint::default()
    };
    let action = Action::PutEndpoint(former.ifindex, record);
    datapath.write(&action).unwrap();
    let read = datapath.read().unwrap().endpoints;
    assert_eq!(read.get(&former.ifindex), Some(&record));
    let used = datapath.program("from_workload").unwrap().info().unwrap();
    let used = used.map_ids().unwrap().unwrap();
    for name in [maps::ENDPOINTS, maps::POLICY, maps::CT4] {
        let pinned = MapInfo::from_pin(former.pinned.pins.map(name)).unwrap();
        assert!(used.contains(&pinned.id()), "{name}");
    }
}

#[test]
fn another_constant_loads_them_again() {
    let former = Former::new();
    former.expect_loaded_again(&LoadOptions {
        timeouts: vec![(Timeout::TcpEstablished, 4_000)],
        ..options()
    });
}

#[test]
fn another_map_loads_them_again() {
    let former = Former::new();
    let elsewhere = Pinned::new();
    drop(elsewhere.load(&options()));
    let pin = former.pinned.pins.map(maps::DENIES);
    fs::remove_file(&pin).unwrap();
    let other = MapData::from_pin(elsewhere.pins.map(maps::DENIES)).unwrap();
    other.pin(&pin).unwrap();
    former.expect_loaded_again(&options());
    let mut datapath = former.load();
    let used = datapath.program("to_workload").unwrap().info().unwrap();
    let used = used.map_ids().unwrap().unwrap();
    let pinned = MapInfo::from_pin(former.pinned.pins.map(maps::DENIES)).unwrap();
    assert!(used.contains(&pinned.id()));
    drop(datapath);

    let former = Former::new();
    fs::remove_file(former.pinned.pins.map(maps::DENIES)).unwrap();
    former.expect_loaded_again(&options());
}

#[test]
fn a_record_that_is_wrong_or_missing_loads_them_again() {
    let former = Former::new();
    let mut record = former.record();
    let mut fingerprint = record.get(&0, 0).unwrap();
    fingerprint[31] ^= 1;
    record.set(0, fingerprint, 0).unwrap();
    former.expect_loaded_again(&options());

    let former = Former::new();
    former.record().set(0, [0; 32], 0).unwrap();
    former.expect_loaded_again(&options());

    let former = Former::new();
    fs::remove_file(former.pinned.pins.map(maps::LOADED_PROGRAMS)).unwrap();
    former.expect_loaded_again(&options());
}

/// As after a start that ended between pinning the programs and recording them.
#[test]
fn a_record_of_other_programs_loads_them_again() {
    let former = Former::new();
    let recorded = former.record().get(&0, 0).unwrap();
    let other = LoadOptions {
        timeouts: vec![(Timeout::TcpEstablished, 4_000)],
        ..options()
    };
    let others = ids(&mut former.load_with(&other));
    former.record().set(0, recorded, 0).unwrap();
    let loaded = ids(&mut former.load());
    assert!(
        loaded.iter().all(|id| !others.contains(id)),
        "{loaded:?} of {others:?}"
    );
}

#[test]
fn a_pin_that_is_gone_or_another_program_loads_them_again() {
    let former = Former::new();
    fs::remove_file(former.pinned.pins.program("clocks")).unwrap();
    former.expect_loaded_again(&options());

    let former = Former::new();
    let pin = former.pinned.pins.program("from_workload");
    fs::remove_file(&pin).unwrap();
    let other = former.pinned.pins.program("to_workload");
    SchedClassifier::from_pin(&other)
        .unwrap()
        .pin(&pin)
        .unwrap();
    former.expect_loaded_again(&options());
}

#[test]
fn the_debug_log_loads_them_again() {
    let options = LoadOptions {
        debug: true,
        ..options()
    };
    let former = Former::new();
    former.expect_loaded_again(&options);
    let mut datapath = former.load_with(&options);
    datapath.take_log().unwrap();
}

/// As after an older build ran in between, which knows no pinned programs.
#[test]
fn a_link_with_another_program_gets_the_one_that_was_kept() {
    let former = Former::new();
    let elsewhere = Pinned::new();
    let (mut other, _telemetry) = elsewhere.load(&options());
    for (name, _) in HOOKS {
        let pin = former.pinned.pins.link(former.ifindex, name);
        let link = FdLink::from(PinnedLink::from_pin(pin).unwrap());
        let link = SchedClassifierLink::try_from(link).unwrap();
        let program = other.program(name).unwrap();
        let id = program.attach_to_link(link).unwrap();
        drop(program.take_link(id).unwrap());
    }
    assert_eq!(former.attached(), ids(&mut other)[..2]);
    let mut datapath = former.load();
    assert_eq!(ids(&mut datapath), former.programs);
    former.attach(&mut datapath);
    assert_eq!(former.attached(), former.programs[..2]);
}
