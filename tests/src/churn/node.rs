//! A node: the reconciler with compiler and ledger, over the kernel's maps below a private bpffs,
//! and the agent's periodic work.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use nix::net::if_::if_nametoindex;
use ringfence::datapath::{Conntrack, Datapath as _, KernelDatapath, LoadOptions, Telemetry};
use ringfence::model::{Inventory, PolicySet, WallTime};
use ringfence::policy::Modes;
use ringfence::reconcile::{Desired, Ledger, ReconcileError, Reconciler};
use ringfence::source::interfaces::Links;
use ringfence_common::mode::Mode;
use tempfile::TempDir;

use super::resources::Resources;
use super::unattached::Unattached;
use crate::Bpffs;
use crate::program_run::Programs;

/// Publishes between two conntrack sweeps.
const PUBLISHES_PER_SWEEP: u64 = 64;
/// How long a publish is repeated that fails because something is used up: what is no longer used
/// is freed after a while.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Node {
    reconciler: Reconciler<Unattached>,
    conntrack: Conntrack,
    telemetry: Telemetry,
    interfaces: Links,
    modes: Modes,
    assured: u64,
    publishes: u64,
    /// Publishes that had to be repeated.
    pub(super) repeated: u64,
    _bpffs: Bpffs,
    // Last: a mounted directory cannot be removed.
    _dir: TempDir,
}

impl Node {
    /// Loads the programs and adopts their empty maps. Call it in the namespace of the interfaces.
    pub(super) fn start(interfaces: &[String]) -> Result<(Self, Programs)> {
        let dir = tempfile::Builder::new()
            .prefix("ringfence-churn-")
            .tempdir()?;
        let [mount, state_dir] = ["bpffs", "state"].map(|name| dir.path().join(name));
        fs::create_dir(&mount)?;
        fs::create_dir(&state_dir)?;
        let bpffs = Bpffs::mount(mount)?;
        let (mut kernel, telemetry) = KernelDatapath::load(bpffs.path(), &LoadOptions::default())?;
        let conntrack = kernel.take_conntrack()?;
        let programs = Programs::of(&mut kernel, &bpffs)?;
        let ledger = Ledger::in_dir(&state_dir);
        let reconciler = Reconciler::adopt(Unattached::new(kernel), ledger)?;
        let interfaces = interfaces
            .iter()
            .map(|name| Ok((name.clone(), if_nametoindex(name.as_str())?)))
            .collect::<Result<Vec<_>>>()?;
        let node = Self {
            reconciler,
            conntrack,
            telemetry,
            interfaces: Links::ethernet(interfaces),
            modes: Modes {
                default: Mode::Enforce,
                namespaces: BTreeMap::new(),
            },
            assured: 0,
            publishes: 0,
            repeated: 0,
            _bpffs: bpffs,
            _dir: dir,
        };
        Ok((node, programs))
    }

    /// The index of an interface.
    pub(super) fn ifindex(&self, name: &str) -> Result<u32> {
        self.interfaces
            .named(name)
            .with_context(|| format!("no interface {name}"))
    }

    /// Brings the maps to a state.
    pub(super) fn publish(
        &mut self,
        inventory: &Arc<Inventory>,
        policies: &Arc<PolicySet>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tidy_up(false)?;
            match self.pass(inventory, policies) {
                Ok(()) => return Ok(()),
                Err(ReconcileError::Exhausted(_) | ReconcileError::Capacity(_))
                    if Instant::now() < deadline =>
                {
                    self.repeated += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(anyhow!(error)).context("publishing"),
            }
        }
    }

    fn pass(
        &mut self,
        inventory: &Arc<Inventory>,
        policies: &Arc<PolicySet>,
    ) -> Result<(), ReconcileError> {
        self.publishes += 1;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = wall.map_or(0, |time| time.as_nanos());
        let desired = Desired {
            inventory,
            policies,
            interfaces: &self.interfaces,
            modes: &self.modes,
            locked: &[],
            is_complete: true,
            now: WallTime(i64::try_from(wall).unwrap_or(i64::MAX)),
        };
        self.reconciler.publish(&desired).map(drop)
    }

    /// What the agent does between publishes: takes records off the ring, removes rows that nothing
    /// refers to, and now and then sweeps conntrack.
    pub(super) fn tidy_up(&mut self, sweep: bool) -> Result<()> {
        self.telemetry.events.drain(usize::MAX, |_| {});
        self.reconciler.retire()?;
        // Drained right before, and nothing keeps decoded records here.
        if let Some(walk) = self.reconciler.start_freeing()? {
            let held = (walk.run)()?;
            self.reconciler
                .finish_freeing(walk.started, &held, &HashSet::new())?;
        }
        if sweep || self.publishes.is_multiple_of(PUBLISHES_PER_SWEEP) {
            let datapath = self.reconciler.datapath();
            let now = datapath.clocks()?.ticks;
            let endpoints = datapath.kernel.endpoint_numbers();
            self.assured = self.conntrack.sweep(now, &endpoints)?.assured;
        }
        Ok(())
    }

    /// What the node holds now.
    pub(super) fn resources(&mut self) -> Result<Resources> {
        let state = self.reconciler.datapath().read()?;
        Resources::read(self.reconciler.taken_numbers(), &state, self.assured)
    }

    /// Waits until nothing more is held than before; returns what still is at the deadline.
    pub(super) fn settle(
        &mut self,
        (inventory, policies): (&Arc<Inventory>, &Arc<PolicySet>),
        before: &Resources,
        deadline: Duration,
    ) -> Result<(Resources, Vec<String>)> {
        let end = Instant::now() + deadline;
        loop {
            let last = Instant::now() >= end;
            self.tidy_up(true)?;
            self.publish(inventory, policies)?;
            let now = self.resources()?;
            let beyond = now.beyond(before);
            if beyond.is_empty() || last {
                return Ok((now, beyond));
            }
            std::thread::sleep(PAUSE);
        }
    }
}
