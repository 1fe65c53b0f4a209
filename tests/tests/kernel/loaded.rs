//! A pool of loaded programs and maps that the tests share.
//!
//! Loading takes seconds on a small machine because of the verifier, so loaded programs go back to
//! a pool; a test that takes them from the pool gets empty maps. Pins are needed only while
//! loading, to open the maps that the datapath does not expose.

mod records;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use ringfence::datapath::{
    Conntrack, Datapath as _, KernelDatapath, LoadOptions, Pins, Sweep, Telemetry,
};
use ringfence::plan::{Action, State, plan};
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6, SealedKey, Timeout,
        unreplied::{CtSet4, CtSet6, WayWord},
    },
    deny_aggregate::{DenyCount, DenyKey},
    drop_reason::DropReason,
    fragment::{FragmentKey4, FragmentKey6, FragmentPorts},
    ids::{ClassId, EndpointNumber, IdentityId},
    ipcache::IpcacheEntry,
    maps::{self, RuleHit},
    mode::Action as PacketAction,
    net::{Ip4, Ip6},
    packet::{dhcp::DhcpRequest, neighbour::Solicitor},
    quota::{Excess, Usage},
    stats::{STATS, of_reason},
};
use ringfence_testbed::Bpffs;

pub(crate) use records::Record;

/// Capacity of conntrack: a test may leave thousands of flows unreplied.
pub(crate) const CONNTRACK: u32 = 16_384;
/// Identities and rule slots of tests are below this.
const NUMBERS: u32 = 64;

static POOL: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

pub(crate) struct Loaded {
    pub(crate) datapath: KernelDatapath,
    pub(crate) telemetry: Telemetry,
    ct4: HashMap<MapData, CtKey4, CtEntry>,
    ct6: HashMap<MapData, CtKey6, CtEntry>,
    unreplied4: Array<MapData, CtSet4>,
    unreplied6: Array<MapData, CtSet6>,
    conntrack: Conntrack,
    ipcache4: HashMap<MapData, Ip4, IpcacheEntry>,
    ipcache6: HashMap<MapData, Ip6, IpcacheEntry>,
    owners: Array<MapData, u32>,
    usages: Array<MapData, Usage>,
    usage_sweep: Array<MapData, Excess>,
    discovery_limits: Array<MapData, u64>,
    dhcp_requests: Array<MapData, DhcpRequest>,
    solicitors: HashMap<MapData, Solicitor, u64>,
    fragments4: HashMap<MapData, FragmentKey4, FragmentPorts>,
    fragments6: HashMap<MapData, FragmentKey6, FragmentPorts>,
    denies: HashMap<MapData, DenyKey, DenyCount>,
    stats: PerCpuArray<MapData, u64>,
    hits: PerCpuArray<MapData, RuleHit>,
}

/// A private bpffs and its temporary directory.
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

    /// The directory of all pins.
    pub(crate) fn bpffs(&self) -> &std::path::Path {
        self.bpffs.path()
    }

    pub(crate) fn load(&self, options: &LoadOptions) -> (KernelDatapath, Telemetry) {
        KernelDatapath::load(self.bpffs.path(), options).unwrap()
    }
}

impl Loaded {
    /// Takes loaded programs from the pool, or loads them; the maps are empty.
    pub(crate) fn take() -> Self {
        let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut loaded = pooled.unwrap_or_else(|| Self::load(CONNTRACK, &[]));
        loaded.wipe();
        loaded
    }

    /// Returns them to the pool.
    pub(crate) fn give_back(self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push(self);
    }

    /// Loads programs with these timeouts instead of the defaults; they do not go to the pool.
    pub(crate) fn with_timeouts(timeouts: &[(Timeout, u32)]) -> Self {
        let mut loaded = Self::load(CONNTRACK, timeouts);
        loaded.wipe();
        loaded
    }

    /// Loads programs with conntrack of this capacity; they do not go to the pool.
    pub(crate) fn with_conntrack(capacity: u32) -> Self {
        let mut loaded = Self::load(capacity, &[]);
        loaded.wipe();
        loaded
    }

    fn load(conntrack: u32, timeouts: &[(Timeout, u32)]) -> Self {
        let capacities = [
            (maps::CT4, conntrack),
            (maps::CT6, conntrack),
            (maps::FRAG4, 1024),
            (maps::FRAG6, 1024),
            (maps::DENIES, 512),
        ];
        let pinned = Pinned::new();
        let (mut datapath, telemetry) = pinned.load(&LoadOptions {
            capacities: capacities.to_vec(),
            timeouts: timeouts.to_vec(),
            ..LoadOptions::default()
        });
        let pins = &pinned.pins;
        Self {
            conntrack: datapath.take_conntrack().unwrap(),
            datapath,
            telemetry,
            ct4: pinned_map(pins, maps::CT4),
            ct6: pinned_map(pins, maps::CT6),
            unreplied4: pinned_map(pins, maps::CT_UNREPLIED4),
            unreplied6: pinned_map(pins, maps::CT_UNREPLIED6),
            ipcache4: pinned_map(pins, maps::IPCACHE4),
            ipcache6: pinned_map(pins, maps::IPCACHE6),
            owners: pinned_map(pins, maps::OWNERS),
            usages: pinned_map(pins, maps::CT_USAGE),
            usage_sweep: pinned_map(pins, maps::CT_USAGE_SWEEP),
            discovery_limits: pinned_map(pins, maps::DISCOVERY_LIMITS),
            dhcp_requests: pinned_map(pins, maps::DHCP_REQUESTS),
            solicitors: pinned_map(pins, maps::SOLICITORS),
            fragments4: pinned_map(pins, maps::FRAG4),
            fragments6: pinned_map(pins, maps::FRAG6),
            denies: pinned_map(pins, maps::DENIES),
            stats: pinned_map(pins, maps::STATS),
            hits: pinned_map(pins, maps::RULE_HITS),
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
        self.clear_flows();
        self.clear_fragments();
        reset(&mut self.stats, STATS, 0);
        reset(&mut self.hits, NUMBERS, RuleHit::default());
        self.telemetry.events.drain(usize::MAX, |_| {});
    }

    /// Number of assured entries.
    pub(crate) fn assured(&self) -> usize {
        self.ct4.keys().count() + self.ct6.keys().count()
    }

    /// The account of an endpoint, with the last sweep's correction.
    pub(crate) fn usage(&self, ifindex: u32) -> Usage {
        let number = self.datapath.endpoint_numbers()[&ifindex].0;
        let mut usage = self.usages.get(&number, 0).unwrap();
        let excess = self.usage_sweep.get(&number, 0).unwrap();
        usage.unreplied = usage.unreplied.wrapping_sub(excess.unreplied);
        usage.assured = usage.assured.wrapping_sub(excess.assured);
        usage
    }

    /// Entries in the unreplied tables that are not free.
    pub(crate) fn unreplied(&self) -> usize {
        let used = |words: &[WayWord]| words.iter().filter(|word| word.0 != 0).count();
        let four = self.unreplied4.iter().map(|set| used(&set.unwrap().words));
        let six = self.unreplied6.iter().map(|set| used(&set.unwrap().words));
        four.chain(six).sum()
    }

    /// The agent's periodic sweep, for these of its endpoints.
    pub(crate) fn sweep(&mut self, now: u64, endpoints: &[u32]) -> Sweep {
        let numbers = self.datapath.endpoint_numbers();
        let endpoints: BTreeMap<u32, EndpointNumber> = endpoints
            .iter()
            .map(|ifindex| (*ifindex, numbers[ifindex]))
            .collect();
        self.conntrack.sweep(now, &endpoints).unwrap()
    }

    /// Empties the unreplied tables and what an endpoint's account counts of them.
    pub(crate) fn clear_unreplied(&mut self, ifindex: u32) {
        let number = self.datapath.endpoint_numbers()[&ifindex].0;
        clear_array(&mut self.unreplied4, |set| *set == CtSet4::default());
        clear_array(&mut self.unreplied6, |set| *set == CtSet6::default());
        self.usages.set(number, Usage::default(), 0).unwrap();
    }

    /// Empties conntrack, the deny aggregates, and what is noted of discovery and DHCP.
    pub(crate) fn clear_flows(&mut self) {
        clear(&mut self.ct4);
        clear(&mut self.ct6);
        clear_array(&mut self.unreplied4, |set| *set == CtSet4::default());
        clear_array(&mut self.unreplied6, |set| *set == CtSet6::default());
        clear_array(&mut self.usages, |usage| *usage == Usage::default());
        clear_array(&mut self.usage_sweep, |excess| *excess == Excess::default());
        clear_array(&mut self.discovery_limits, |until| *until == 0);
        self.forget_solicitors();
        let empty = DhcpRequest::default();
        clear_array(&mut self.dhcp_requests, |request| *request == empty);
        clear(&mut self.denies);
    }

    pub(crate) fn clear_fragments(&mut self) {
        clear(&mut self.fragments4);
        clear(&mut self.fragments6);
    }

    pub(crate) fn make_reports_due(&mut self) -> Vec<DenyKey> {
        let aggregates: Vec<_> = self.denies.iter().collect::<Result<_, _>>().unwrap();
        for (key, count) in &aggregates {
            let due = DenyCount {
                reported: 0,
                ..*count
            };
            self.denies.insert(key, due, 0).unwrap();
        }
        aggregates.into_iter().map(|(key, _)| key).collect()
    }

    /// One counter of `STATS`, summed over all CPUs.
    pub(crate) fn counter(&self, reason: DropReason, action: PacketAction) -> u64 {
        let values = self.stats.get(&of_reason(reason, action), 0).unwrap();
        values.iter().sum()
    }

    /// Forgets which neighbours have solicited the workload.
    pub(crate) fn forget_solicitors(&mut self) {
        clear(&mut self.solicitors);
    }

    /// Makes every DHCP request older by a number of nanoseconds.
    pub(crate) fn age_dhcp(&mut self, by: u64) {
        for index in 0..self.dhcp_requests.len() {
            let mut request = self.dhcp_requests.get(&index, 0).unwrap();
            if request != DhcpRequest::default() {
                request.sent4 = request.sent4.saturating_sub(by);
                request.sent6 = request.sent6.saturating_sub(by);
                self.dhcp_requests.set(index, request, 0).unwrap();
            }
        }
    }

    /// Ages recorded fragments.
    pub(crate) fn age_fragments(&mut self, by: u64) {
        age(&mut self.fragments4, by);
        age(&mut self.fragments6, by);
    }
}

pub(crate) fn pinned_map<T: TryFrom<Map, Error: std::fmt::Debug>>(pins: &Pins, name: &str) -> T {
    let map = MapData::from_pin(pins.map(name)).unwrap();
    T::try_from(Map::from_map_data(map).unwrap()).unwrap()
}

fn age<K: Pod + SealedKey>(map: &mut HashMap<MapData, K, FragmentPorts>, by: u64) {
    let records: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
    for (key, mut record) in records {
        record.seen = record.seen.wrapping_sub(by);
        record.seal = record.seal_for(&key);
        map.insert(key, record, 0).unwrap();
    }
}

fn clear<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>().unwrap();
    for key in keys {
        map.remove(&key).unwrap();
    }
}

fn clear_array<V: Pod + Default>(map: &mut Array<MapData, V>, is_clear: impl Fn(&V) -> bool) {
    for index in 0..map.len() {
        if !is_clear(&map.get(&index, 0).unwrap()) {
            map.set(index, V::default(), 0).unwrap();
        }
    }
}

fn reset<V: Pod>(map: &mut PerCpuArray<MapData, V>, entries: u32, value: V) {
    for index in 0..entries {
        let values = PerCpuValues::try_from(vec![value; nr_cpus().unwrap()]).unwrap();
        map.set(index, values, 0).unwrap();
    }
}
