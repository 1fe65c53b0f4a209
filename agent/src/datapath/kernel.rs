//! The datapath in the kernel: the loaded object with its maps, programs and pins.
//!
//! Invariants: maps are opened from their pins, which are made if they do not exist, so a restart
//! continues with the kernel's state; a pinned map with another capacity is refused, never resized
//! silently.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    time::Instant,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, TcAttachType},
};
use ringfence_common::{
    conntrack::{Timeout, Timeouts},
    ids::{EndpointNumber, RuleSlot},
    maps as names,
    quota::unreplied_sets,
};
use tracing::{debug, info};

use super::{
    AttachKind, Clocks, Datapath, DatapathError, HeldWalk, LOADER, Look, OBJECT, Refused,
    attach::{self, AttachPoint, HOOKS, interface_name},
    bridge::{self, Built},
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
    link_queue::{Held, LinkQueue},
    map_sizes::{capacities, capacity_of, check_pinned},
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
    /// Never let clsact filters be a fence until tcx links are attached.
    pub no_bridge: bool,
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
    queue: LinkQueue,
    /// Whether fences may be bridged.
    may_bridge: bool,
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
                queue: LinkQueue::new(pins.clone()),
                may_bridge: kind == AttachKind::Tcx && !options.no_bridge,
                pins,
                kind,
                attached,
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

    /// Attaches to an interface by the name that it has now: it may have been renamed since it was listed.
    fn attach_with(
        &mut self,
        ifindex: u32,
        interface: &str,
        attach: fn(&mut Self, &mut Held, u32, &str) -> Result<AttachKind, DatapathError>,
    ) -> Result<AttachKind, DatapathError> {
        let fences = self.queue.fences();
        let outcome = interface_name(ifindex)
            .map(|current| attach(self, &mut fences.hold(), ifindex, &current));
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

    /// Builds a bridge, and leaves the links to the queue, or attaches the programs if it cannot be built.
    fn bridge_or_attach(
        &mut self,
        held: &mut Held,
        ifindex: u32,
        interface: &str,
    ) -> Result<AttachKind, DatapathError> {
        let has_fence = HOOKS
            .iter()
            .any(|(name, _)| self.pins.link(ifindex, name).exists())
            || self.pins.bridge(ifindex).exists()
            || self.migration.linked()?.contains(&ifindex);
        if !self.may_bridge || has_fence || self.queue.start().is_err() {
            return self.attach_programs(held, ifindex, interface);
        }
        match bridge::build(&mut self.programs, ifindex, interface, &self.pins) {
            Ok(Built::Yes) => {
                held.bridged(ifindex, standing::Links::default(), Instant::now());
                self.queue.notify();
                self.attached.insert(ifindex);
                Ok(self.kind)
            }
            Ok(Built::Occupied(qdisc)) => {
                if qdisc != "clsact" {
                    info!(
                        "{interface} has a qdisc of kind {qdisc}: no fence is bridged from now on, so that no clsact qdisc is in the way of another one"
                    );
                    self.may_bridge = false;
                }
                self.attach_programs(held, ifindex, interface)
            }
            // It has or gets its fence the slow way.
            Err(error) => {
                debug!("no bridge: {error}");
                self.attach_programs(held, ifindex, interface)
            }
        }
    }

    /// Attaches both programs to an interface, and leaves it to the queue to remove a bridge.
    fn attach_programs(
        &mut self,
        held: &mut Held,
        ifindex: u32,
        interface: &str,
    ) -> Result<AttachKind, DatapathError> {
        // The queue must not attach a second link.
        held.forget(ifindex);
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
        if self.kind == AttachKind::Tcx && self.pins.bridge(ifindex).exists() {
            held.bridged(ifindex, links, Instant::now());
            match self.queue.start() {
                Ok(()) => self.queue.notify(),
                Err(_) => bridge::remove(ifindex, &self.pins)?,
            }
        } else {
            held.attached(ifindex, links);
        }
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
        self.attach_with(ifindex, interface, Self::attach_programs)
    }

    fn attach_at_once(
        &mut self,
        ifindex: u32,
        interface: &str,
    ) -> Result<AttachKind, DatapathError> {
        self.attach_with(ifindex, interface, Self::bridge_or_attach)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        let interface = interface_name(ifindex);
        let fences = self.queue.fences();
        let mut held = fences.hold();
        held.forget(ifindex);
        if self.pins.bridge(ifindex).exists() {
            bridge::remove(ifindex, &self.pins)?;
        }
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
        Ok(())
    }

    fn look(&mut self) -> Result<Look, DatapathError> {
        let programs = self.programs.ids()?;
        Ok(standing::look(has_tcx(), programs, self.queue.fences()))
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
        if pins.bridge(ifindex).exists() {
            bridge::remove(ifindex, pins)?;
        }
        for (name, hook) in HOOKS {
            let hook: TcAttachType = hook;
            clsact::remove_filters(&interface, name, hook);
            removed += 1;
        }
    }
    Ok(removed)
}
