//! Loaded programs and maps, used by one test after another.
//!
//! Loading takes seconds on a small machine, because the verifier walks every path. So what was
//! loaded once goes back to a pool, and whoever takes it out finds empty maps. Pins are needed for
//! a moment only: to get at the maps that the datapath keeps to itself.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use ringfence::datapath::{
    Conntrack, Datapath as _, KernelDatapath, LoadOptions, Pins, Sweep, Telemetry,
};
use ringfence::plan::{Action, State, plan};
use ringfence_common::{
    conntrack::{CtEntry, CtKey4, CtKey6},
    deny_aggregate::{DenyCount, DenyKey},
    drop_reason::DropReason,
    fragment::{FragmentKey4, FragmentKey6, FragmentPorts},
    ids::{ClassId, IdentityId},
    maps::{self, RuleHit},
    mode::Action as Outcome,
    quota::Usage,
    stats::{STATS, of_reason},
};
use ringfence_testbed::Bpffs;

/// Capacity of conntrack: a test may leave thousands of attempts unanswered.
pub(crate) const CONNTRACK: u32 = 16_384;
/// Numbers of identities and rules stay below this in tests.
const NUMBERS: u32 = 64;

static POOL: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

pub(crate) struct Loaded {
    pub(crate) datapath: KernelDatapath,
    pub(crate) telemetry: Telemetry,
    ct4: HashMap<MapData, CtKey4, CtEntry>,
    ct6: HashMap<MapData, CtKey6, CtEntry>,
    attempts4: HashMap<MapData, CtKey4, CtEntry>,
    attempts6: HashMap<MapData, CtKey6, CtEntry>,
    conntrack: Conntrack,
    usages: HashMap<MapData, u32, Usage>,
    swept: HashMap<MapData, u32, u64>,
    fragments4: HashMap<MapData, FragmentKey4, FragmentPorts>,
    fragments6: HashMap<MapData, FragmentKey6, FragmentPorts>,
    denies: HashMap<MapData, DenyKey, DenyCount>,
    stats: PerCpuArray<MapData, u64>,
    hits: PerCpuArray<MapData, RuleHit>,
}

/// A private bpffs and its directory.
pub(crate) struct Pinned {
    pub(crate) pins: Pins,
    bpffs: Bpffs,
    // Last: a mounted directory cannot be removed.
    _dir: tempfile::TempDir,
}

impl Pinned {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ringfence-kernel-")
            .tempdir()
            .unwrap();
        let bpffs = Bpffs::mount(dir.path().to_owned()).unwrap();
        Self {
            pins: Pins::below(bpffs.path()),
            bpffs,
            _dir: dir,
        }
    }

    pub(crate) fn load(&self, options: &LoadOptions) -> (KernelDatapath, Telemetry) {
        KernelDatapath::load(self.bpffs.path(), options).unwrap()
    }
}

impl Loaded {
    /// One from the pool, or a new one; its maps are empty.
    pub(crate) fn take() -> Self {
        let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut loaded = pooled.unwrap_or_else(Self::load);
        loaded.wipe();
        loaded
    }

    /// For the next test.
    pub(crate) fn give_back(self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push(self);
    }

    fn load() -> Self {
        let capacities = [
            (maps::CT4, CONNTRACK),
            (maps::CT6, CONNTRACK),
            (maps::FRAG4, 1024),
            (maps::FRAG6, 1024),
            (maps::DENIES, 512),
        ];
        let pinned = Pinned::new();
        let (mut datapath, telemetry) = pinned.load(&LoadOptions {
            capacities: capacities.to_vec(),
            ..LoadOptions::default()
        });
        let pins = &pinned.pins;
        Self {
            conntrack: datapath.take_conntrack().unwrap(),
            datapath,
            telemetry,
            ct4: opened(pins, maps::CT4),
            ct6: opened(pins, maps::CT6),
            attempts4: opened(pins, maps::CT_UNREPLIED4),
            attempts6: opened(pins, maps::CT_UNREPLIED6),
            usages: opened(pins, maps::CT_USAGE),
            swept: opened(pins, maps::CT_USAGE_SWEEP),
            fragments4: opened(pins, maps::FRAG4),
            fragments6: opened(pins, maps::FRAG6),
            denies: opened(pins, maps::DENIES),
            stats: opened(pins, maps::STATS),
            hits: opened(pins, maps::RULE_HITS),
        }
    }

    fn wipe(&mut self) {
        let plan = plan(&self.datapath.read().unwrap(), &State::default());
        for action in plan.publish.iter().chain(&plan.retire) {
            self.datapath.write(action).unwrap();
        }
        for number in 0..NUMBERS {
            let unclassed = Action::SetClass(IdentityId(number), ClassId::ANY);
            self.datapath.write(&unclassed).unwrap();
        }
        self.forget_flows();
        self.forget_fragments();
        reset(&mut self.stats, STATS, 0);
        reset(&mut self.hits, NUMBERS, RuleHit::default());
        self.telemetry.drain(usize::MAX, |_| {});
    }

    /// How many proven flows there are.
    pub(crate) fn assured(&self) -> usize {
        self.ct4.keys().count() + self.ct6.keys().count()
    }

    /// Up to when an endpoint's attempts are booked.
    pub(crate) fn charged_until(&self, ifindex: u32) -> u64 {
        let usage = self.usages.get(&ifindex, 0);
        usage.map_or(0, |usage| usage.charged_until)
    }

    pub(crate) fn sweep(&mut self, now: u64, endpoints: &BTreeSet<u32>) -> Sweep {
        self.conntrack.sweep(now, endpoints).unwrap()
    }

    /// Empties conntrack, and the table of what denials were reported.
    pub(crate) fn forget_flows(&mut self) {
        forget(&mut self.ct4);
        forget(&mut self.ct6);
        forget(&mut self.attempts4);
        forget(&mut self.attempts6);
        forget(&mut self.usages);
        forget(&mut self.swept);
        forget(&mut self.denies);
    }

    pub(crate) fn forget_fragments(&mut self) {
        forget(&mut self.fragments4);
        forget(&mut self.fragments6);
    }

    pub(crate) fn make_reports_due(&mut self) -> Vec<DenyKey> {
        let kinds: Vec<_> = self.denies.iter().collect::<Result<_, _>>().unwrap();
        for (key, count) in &kinds {
            let due = DenyCount {
                reported: 0,
                ..*count
            };
            self.denies.insert(key, due, 0).unwrap();
        }
        kinds.into_iter().map(|(key, _)| key).collect()
    }

    /// One counter of `STATS`, over all CPUs.
    pub(crate) fn counter(&self, reason: DropReason, action: Outcome) -> u64 {
        let values = self.stats.get(&of_reason(reason, action), 0).unwrap();
        values.iter().sum()
    }

    /// Makes recorded fragments older.
    pub(crate) fn age_fragments(&mut self, by: u64) {
        age(&mut self.fragments4, by);
        age(&mut self.fragments6, by);
    }
}

fn opened<T: TryFrom<Map, Error: std::fmt::Debug>>(pins: &Pins, name: &str) -> T {
    let map = MapData::from_pin(pins.map(name)).unwrap();
    T::try_from(Map::from_map_data(map).unwrap()).unwrap()
}

fn age<K: Pod>(map: &mut HashMap<MapData, K, FragmentPorts>, by: u64) {
    let records: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
    for (key, mut record) in records {
        record.seen = record.seen.wrapping_sub(by);
        map.insert(key, record, 0).unwrap();
    }
}

fn forget<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>().unwrap();
    for key in keys {
        map.remove(&key).unwrap();
    }
}

fn reset<V: Pod>(map: &mut PerCpuArray<MapData, V>, entries: u32, value: V) {
    for index in 0..entries {
        let values = PerCpuValues::try_from(vec![value; nr_cpus().unwrap()]).unwrap();
        map.set(index, values, 0).unwrap();
    }
}
