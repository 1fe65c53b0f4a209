//! The datapath in the kernel: the loaded object with its maps, programs and pins.
//!
//! Invariants: maps are opened from their pins, which are made if they do not exist, so a restart
//! continues with the kernel's state; a pinned map with another capacity is refused, never resized
//! silently.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{SchedClassifier, TcAttachType},
};
use nix::net::if_::if_indextoname;
use ringfence_common::{
    conntrack::{Timeout, Timeouts},
    endpoint::RECORDS,
    ids::{EndpointNumber, RuleSlot},
    maps as names,
    quota::unreplied_sets,
};
use tracing::info;

use super::{
    AttachKind, Clocks, Datapath, DatapathError, HeldWalk, LOADER, Look, OBJECT, Refused,
    attach::{self, AttachPoint, HOOKS},
    clock::{self, ProgramClocks},
    clsact,
    conntrack::Conntrack,
    constants::Constants,
    debug::KernelLog,
    description,
    entry_walk::EntryWalk,
    error::chain,
    fingerprint::Build,
    held::HoldingMaps,
    maps::ControlMaps,
    migration::Migration,
    pins::Pins,
    programs::Programs,
    seed, standing, tcx,
    telemetry::Telemetry,
};
use crate::plan::{Action, Capacities, State};

/// Options of [`KernelDatapath::load`].
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Capacities that differ from the defaults, by map name.
    pub capacities: Vec<(&'static str, u32)>,
    /// Use clsact even where tcx is available.
    pub force_clsact: bool,
    /// Enable the programs' debug log.
    pub debug: bool,
    /// Conntrack timeouts that differ from the defaults, in seconds.
    pub timeouts: Vec<(Timeout, u32)>,
}

impl LoadOptions {
    fn timeouts(&self) -> Timeouts {
        let mut seconds = Timeout::DEFAULTS;
        for (timeout, configured) in &self.timeouts {
            if let Some(slot) = seconds.get_mut(*timeout as usize) {
                *slot = *configured;
            }
        }
        seconds
    }
}

/// The loaded programs and maps.
pub struct KernelDatapath {
    programs: Programs,
    log: Option<KernelLog>,
    maps: ControlMaps,
    holding: HoldingMaps,
    clock: ProgramClocks,
    pins: Pins,
    kind: AttachKind,
    attached: BTreeSet<u32>,
    /// The fences that this process attached.
    fences: BTreeMap<u32, standing::Links>,
    entry_walk: EntryWalk,
    migration: Migration,
    conntrack_capacity: u32,
}

impl KernelDatapath {
    /// Opens the programs and maps that are pinned below a directory on bpffs, or loads what is not
    /// there or not what this build would load; adopts links that are pinned there.
    ///
    /// # Errors
    /// When the kernel refuses the object, or pinned maps have other capacities.
    pub fn load(bpffs: &Path, options: &LoadOptions) -> Result<(Self, Telemetry), DatapathError> {
        let pins = Pins::below(bpffs);
        let is_upgrade = !pins.other_abis()?.is_empty();
        pins.create()?;
        pins.remove_next_links()?;
        check_pinned(&pins, options)?;
        let (programs, log) = programs(&pins, options)?;
        seed::ensure(&pins)?;
        description::write(&pins)?;
        let conntrack_capacity = capacity_of(names::CT4, options);
        let mut maps = ControlMaps::open(&pins, conntrack_capacity)?;
        if is_upgrade {
            maps.close_pickup()?;
        }
        let clock = ProgramClocks::open(&pins)?;
        let telemetry = Telemetry::open(&pins)?;
        let holding = HoldingMaps::open(&pins)?;
        let migration = Migration::find(&pins)?;
        let mut attached = pins.linked()?;
        attached.extend(migration.linked()?);
        let kind = if options.force_clsact || !has_tcx() {
            AttachKind::Clsact
        } else {
            AttachKind::Tcx
        };
        Ok((
            Self {
                programs,
                log,
                maps,
                holding,
                clock,
                pins,
                kind,
                attached,
                fences: BTreeMap::new(),
                entry_walk: EntryWalk::default(),
                migration,
                conntrack_capacity,
            },
            telemetry,
        ))
    }

    /// The conntrack handles, for the sweep.
    ///
    /// # Errors
    /// When a pinned map cannot be opened.
    pub fn take_conntrack(&mut self) -> Result<Conntrack, DatapathError> {
        Conntrack::open(&self.pins, self.conntrack_capacity)
    }

    /// The programs' debug log. Can be taken once.
    ///
    /// # Errors
    /// When the programs were loaded without it, or it was already taken.
    pub fn take_log(&mut self) -> Result<KernelLog, DatapathError> {
        self.log.take().ok_or(DatapathError::NoSuchMap("AYA_LOGS"))
    }

    /// The number of each endpoint, by interface.
    #[must_use]
    pub fn endpoint_numbers(&self) -> BTreeMap<u32, EndpointNumber> {
        self.maps.endpoint_numbers()
    }

    /// How programs are attached on this kernel.
    #[must_use]
    pub const fn attach_kind(&self) -> AttachKind {
        self.kind
    }

    /// Attaches both programs to an interface.
    fn attach_programs(
        &mut self,
        ifindex: u32,
        interface: &str,
    ) -> Result<AttachKind, DatapathError> {
        let takes_over = self.migration.linked()?.contains(&ifindex);
        if takes_over {
            let now = self.clocks()?.ticks;
            self.migration.copy(ifindex, now);
        }
        let mut links = standing::Links::default();
        for ((name, hook), link) in HOOKS.into_iter().zip(&mut links) {
            let point = AttachPoint {
                ifindex,
                interface,
                name,
                hook,
            };
            match self.kind {
                AttachKind::Tcx => {
                    let movable = self.programs.movable(name)?;
                    *link = tcx::attach(movable, &point, &self.pins)?;
                }
                AttachKind::Clsact => {
                    clsact::attach(self.programs.get(name)?, &point, &self.pins)?;
                }
            }
        }
        self.attached.insert(ifindex);
        self.fences.insert(ifindex, links);
        if takes_over {
            let now = self.clocks()?.ticks;
            self.migration.copy(ifindex, now);
            let replaced = self.kind == AttachKind::Clsact;
            self.migration.detach(ifindex, Some(interface), replaced)?;
        }
        Ok(self.kind)
    }

    /// A program of the object, to run on a frame without an interface (`BPF_PROG_TEST_RUN`).
    pub fn program(&mut self, name: &'static str) -> Option<&mut SchedClassifier> {
        self.programs.get(name).ok()
    }
}

/// The present name of an interface; `None` if it is gone from this network namespace.
fn interface_name(ifindex: u32) -> Option<String> {
    if_indextoname(ifindex).ok()?.into_string().ok()
}

/// The constants that the programs are loaded with.
fn constants(options: &LoadOptions) -> Result<Constants, DatapathError> {
    let mut constants = Constants::default();
    let sets = unreplied_sets(capacity_of(names::CT4, options));
    constants.add("UNREPLIED_SETS", &sets);
    constants.add("TIMEOUTS", &options.timeouts());
    constants.add("TICK", &clock::tick()?);
    constants.add("DEBUG", &u8::from(options.debug));
    Ok(constants)
}

/// Loads the object, which opens the maps that are pinned and makes and pins the others.
fn load_object(
    pins: &Pins,
    constants: &Constants,
    options: &LoadOptions,
) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    // The programs need no relocation against the kernel's types, so its 12 MB of BTF is
    // skipped.
    loader.btf(None);
    let paths = names::ALL.map(|name| (name, pins.map(name)));
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    for (name, capacity) in capacities(options) {
        loader.map_max_entries(name, capacity);
    }
    constants.write(&mut loader);
    loader
        .load(OBJECT)
        .map_err(|error| DatapathError::Load(chain(&error)))
}

/// The pinned programs if they are what this build would load, or else programs loaded again, with
/// their debug log if there is to be one.
fn programs(
    pins: &Pins,
    options: &LoadOptions,
) -> Result<(Programs, Option<KernelLog>), DatapathError> {
    let constants = constants(options)?;
    let build = Build {
        loader: LOADER,
        object: OBJECT,
        constants: &constants,
    };
    // The debug log of programs that are taken over cannot be opened.
    if !options.debug
        && let Some(programs) = Programs::take_over(pins, build)
    {
        info!("taking over the kernel programs that are pinned");
        return Ok((programs, None));
    }
    let mut ebpf = load_object(pins, &constants, options)?;
    let programs = Programs::load(&mut ebpf, pins, build)?;
    let log = options.debug.then(|| KernelLog::take(&mut ebpf));
    Ok((programs, log.transpose()?))
}

/// tcx exists since Linux 6.6 (commit e420bed02507).
fn has_tcx() -> bool {
    aya::util::KernelVersion::current()
        .is_ok_and(|version| version >= aya::util::KernelVersion::new(6, 6, 0))
}

fn check_pinned(pins: &Pins, options: &LoadOptions) -> Result<(), DatapathError> {
    for (map, wanted) in capacities(options) {
        let Ok(info) = MapInfo::from_pin(pins.map(map)) else {
            continue;
        };
        let found = info.max_entries();
        if found != wanted {
            return Err(DatapathError::PinnedCapacity { map, found, wanted });
        }
    }
    Ok(())
}

/// The capacity of every map whose capacity an index type does not fix.
fn capacities(options: &LoadOptions) -> Vec<(&'static str, u32)> {
    let sets = unreplied_sets(capacity_of(names::CT4, options));
    let endpoints = capacity_of(names::ENDPOINTS, options) + 1;
    let derived = [
        (names::ENDPOINTS, endpoints * RECORDS),
        (names::CT_UNREPLIED4, sets),
        (names::CT_UNREPLIED6, sets),
        (names::CT_USAGE, endpoints),
        (names::CT_USAGE_SWEEP, endpoints),
        (names::REJECT_LIMITS, endpoints),
        (names::PICKUP, endpoints),
    ];
    let own_size = |map: &&(&str, u32)| map.0 != names::ENDPOINTS;
    let configurable = DEFAULTS.iter().filter(own_size);
    let configurable = configurable.map(|(map, _)| (*map, capacity_of(map, options)));
    derived.into_iter().chain(configurable).collect()
}

/// The configured capacity, or the default.
fn capacity_of(map: &str, options: &LoadOptions) -> u32 {
    let configured = options.capacities.iter().find(|(name, _)| *name == map);
    let default = DEFAULTS.iter().find(|(name, _)| *name == map);
    configured.or(default).map_or(1, |(_, capacity)| *capacity)
}

/// The maps whose capacity can be configured, with their defaults.
const DEFAULTS: [(&str, u32); 11] = [
    (names::ENDPOINTS, names::ENDPOINTS_CAPACITY),
    (names::IPCACHE4, names::IPCACHE_CAPACITY),
    (names::IPCACHE6, names::IPCACHE_CAPACITY),
    (names::CIDR4, names::CIDR_CAPACITY),
    (names::CIDR6, names::CIDR_CAPACITY),
    (names::POLICY, names::POLICY_CAPACITY),
    (names::CT4, names::CONNTRACK_CAPACITY),
    (names::CT6, names::CONNTRACK_CAPACITY),
    (names::FRAG4, names::FRAGMENT_CAPACITY),
    (names::FRAG6, names::FRAGMENT_CAPACITY),
    (names::DENIES, names::DENIES_CAPACITY),
];

impl Datapath for KernelDatapath {
    fn capacities(&self) -> Capacities {
        self.maps.capacities()
    }

    fn read(&mut self) -> Result<State, DatapathError> {
        self.maps.read()
    }

    fn write(&mut self, action: &Action) -> Result<(), DatapathError> {
        self.maps.write(action)
    }

    fn write_all(&mut self, actions: &[Action]) -> Result<(), Refused> {
        self.maps.write_all(actions)
    }

    fn attached(&self) -> BTreeSet<u32> {
        self.attached.clone()
    }

    fn attach(&mut self, ifindex: u32, interface: &str) -> Result<AttachKind, DatapathError> {
        // It may have been renamed since it was listed.
        let current = interface_name(ifindex);
        let outcome = current.map(|interface| self.attach_programs(ifindex, &interface));
        match outcome {
            Some(Err(error)) if interface_name(ifindex).is_some() => Err(error),
            Some(Ok(kind)) => Ok(kind),
            _ => {
                self.detach(ifindex)?;
                let interface = interface.to_owned();
                Err(DatapathError::Gone { interface, ifindex })
            }
        }
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        let interface = interface_name(ifindex);
        for (name, hook) in HOOKS {
            if self.kind == AttachKind::Clsact
                && let Some(interface) = &interface
            {
                clsact::remove_filters(interface, name, hook);
            }
            attach::remove(&self.pins.link(ifindex, name))?;
        }
        self.migration
            .detach(ifindex, interface.as_deref(), false)?;
        self.attached.remove(&ifindex);
        self.fences.remove(&ifindex);
        Ok(())
    }

    fn look(&mut self) -> Result<Look, DatapathError> {
        let programs = self.programs.ids()?;
        Ok(standing::look(
            self.kind,
            has_tcx(),
            programs,
            self.fences.clone(),
        ))
    }

    fn holds(&mut self, write: &Action) -> Result<bool, DatapathError> {
        self.maps.holds(write)
    }

    fn next_entries(&mut self, most: usize) -> Vec<Action> {
        self.entry_walk.next(&self.maps, most)
    }

    fn clocks(&mut self) -> Result<Clocks, DatapathError> {
        self.clock.read(self.programs.get(clock::PROGRAM)?)
    }

    fn held_numbers(&mut self) -> HeldWalk {
        let in_force = self
            .clocks()
            .and_then(|clocks| self.maps.in_force(clocks.ticks));
        self.holding.walk(in_force)
    }

    fn clear_rules(&mut self, rules: &HashSet<RuleSlot>) -> Result<(), DatapathError> {
        self.holding.clear_rules(rules)
    }

    fn table_mark(&mut self) -> Result<Option<u32>, DatapathError> {
        self.holding.table_mark()
    }

    fn set_table_mark(&mut self, mark: u32) -> Result<(), DatapathError> {
        self.holding.set_table_mark(mark)
    }
}

/// Removes our clsact filters from every interface that a pin marks.
pub(super) fn remove_filters(pins: &Pins) -> Result<usize, DatapathError> {
    let mut removed = 0;
    for ifindex in pins.linked()? {
        let Some(interface) = interface_name(ifindex) else {
            continue;
        };
        for (name, hook) in HOOKS {
            let hook: TcAttachType = hook;
            clsact::remove_filters(&interface, name, hook);
            removed += 1;
        }
    }
    Ok(removed)
}
