//! The thread that rewrites records, and with [`Storm::Conntrack`] also runs packets that create,
//! move and remove conntrack entries.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use ringfence::datapath::{Conntrack, Datapath as _, KernelDatapath};
use ringfence::plan::Action;

use super::cases::open;
use super::probe::{Flips, Probe, Tally};
use super::storm::Storm;
use super::world::{self, FLIPPING, FRIEND, InForce, MOVING, OPEN, OTHER, SHUT};
use super::world::{WATCHED, World, address};
use crate::attack::rng::Rng;
use crate::program_run::frames::{ACK, End, FIN, RST, Transport, frame};
use crate::program_run::{Hook, Programs};

/// Client ports of the connections that come and go.
const SHORT_LIVED: std::ops::Range<u16> = 50_000..60_000;
/// A connection is closed when this many more have been opened.
const OPEN_AT_A_TIME: u16 = 16;
/// One of this many steps sweeps conntrack.
const STEPS_PER_SWEEP: usize = 2048;

/// The writing thread's state.
pub(super) struct Writer<'a> {
    datapath: &'a mut KernelDatapath,
    conntrack: &'a mut Conntrack,
    programs: &'a Programs,
    world: World,
    /// Packets of connections of which some are allowed and some are denied.
    connections: Vec<Probe>,
    flips: &'a Flips,
    /// Whether the packet thread is running packets.
    running: &'a AtomicBool,
    rng: Rng,
    /// Packets that this thread ran.
    pub(super) tally: Tally,
    /// Writes whose system call began and ended while the packet thread was running packets.
    overlapping: &'a AtomicU64,
    next_port: u16,
    table: InForce,
    other: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        (datapath, conntrack): (&'a mut KernelDatapath, &'a mut Conntrack),
        (programs, flips): (&'a Programs, &'a Flips),
        (world, connections): (World, Vec<Probe>),
        (running, overlapping, rng): (&'a AtomicBool, &'a AtomicU64, Rng),
    ) -> Self {
        Self {
            datapath,
            conntrack,
            programs,
            world,
            connections,
            flips,
            running,
            rng,
            tally: Tally::default(),
            overlapping,
            next_port: SHORT_LIVED.start,
            table: InForce::First,
            other: false,
        }
    }

    /// Writes until the packet thread is done.
    pub(super) fn run(&mut self, storm: Storm) -> Result<()> {
        while self.running.load(Ordering::SeqCst) {
            match storm {
                Storm::Endpoints => self.endpoints()?,
                Storm::Addresses => self.addresses()?,
                Storm::Policy => self.policy()?,
                Storm::Conntrack => self.conntrack()?,
                Storm::Everything => match self.rng.below(4) {
                    0 => self.endpoints()?,
                    1 => self.addresses()?,
                    2 => self.policy()?,
                    _ => self.conntrack()?,
                },
            }
        }
        Ok(())
    }

    /// Brings both settings to their second state, in which less is allowed.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.table == InForce::First {
            self.flip_table()?;
        }
        if !self.other {
            self.flip_address()?;
        }
        Ok(())
    }

    fn write(&mut self, action: Action) -> Result<()> {
        self.write_all(&[action])
    }

    /// Writes that follow each other as fast as they can: where the datapath makes several writes
    /// with one system call, a record can be recycled twice during one packet.
    fn write_all(&mut self, actions: &[Action]) -> Result<()> {
        let began = self.running.load(Ordering::SeqCst);
        let written = self.datapath.write_all(actions);
        written.map_err(|refused| refused.error)?;
        if began && self.running.load(Ordering::SeqCst) {
            let made = actions.len() as u64;
            self.overlapping.fetch_add(made, Ordering::Relaxed);
        }
        Ok(())
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.rng.below(1 << 24)).unwrap_or(0)
    }

    /// The endpoints' records with unchanged contents; now and then another table.
    fn endpoints(&mut self) -> Result<()> {
        let unchanged = [OPEN, SHUT].map(|e| self.world.endpoint(e, InForce::First));
        let mut actions = unchanged.repeat(8);
        actions.push(self.world.endpoint(WATCHED, InForce::First));
        actions.push(self.world.endpoint(FLIPPING, self.table));
        self.write_all(&actions)?;
        if self.rng.one_in(4) {
            self.flip_table()?;
        }
        Ok(())
    }

    /// The peers' addresses with unchanged identities, and other addresses that come and go. New
    /// epochs make the programs look up the peers of known flows again.
    fn addresses(&mut self) -> Result<()> {
        for v6 in [false, true] {
            self.write_all(&world::addresses(v6).repeat(16))?;
            let number = self.number();
            self.write_all(&[0, 1, 2, 3].map(|n| world::unrelated_address(v6, number + n)))?;
            self.write_all(&world::addresses(v6))?;
        }
        self.new_epoch()?;
        if self.rng.one_in(4) {
            self.flip_address()?;
        }
        Ok(())
    }

    /// Classes and rows with unchanged contents, and those of other identities and tables.
    fn policy(&mut self) -> Result<()> {
        let number = self.number();
        let near = [0, 1, 2, 3].map(|n| number + n);
        self.write_all(&world::classes())?;
        self.write_all(&near.map(world::unrelated_class))?;
        self.write_all(&near.map(world::unrelated_row))?;
        self.write_all(&world::rows())?;
        self.new_epoch()
    }

    /// Flows that are evaluated again, so that their entries are replaced, and connections that
    /// come and go, so that their entries are moved and removed.
    fn conntrack(&mut self) -> Result<()> {
        self.new_epoch()?;
        for probe in &mut self.connections {
            self.tally.check((self.programs, self.flips), probe, 0)?;
        }
        let v6 = self.rng.one_in(2);
        let server = (World::local(v6, FLIPPING), 443);
        let client = |port| (address(v6, FRIEND), port);
        let ifindex = self.world.ifindex(FLIPPING);
        let hooks = (Hook::ToWorkload, Hook::FromWorkload);
        open(
            self.programs,
            ifindex,
            hooks,
            (client(self.next_port), server),
        )?;
        let older = self.next_port - OPEN_AT_A_TIME;
        self.next_port += 1;
        if !SHORT_LIVED.contains(&self.next_port) {
            self.next_port = SHORT_LIVED.start;
        }
        if SHORT_LIVED.contains(&older) {
            self.close(client(older), server)?;
        }
        if self.rng.one_in(16) {
            self.flip_table()?;
        }
        if self.rng.one_in(STEPS_PER_SWEEP) {
            let endpoints = self.datapath.endpoint_numbers();
            let now = self.datapath.clocks()?.ticks;
            self.conntrack.sweep(now, &endpoints)?;
        }
        Ok(())
    }

    /// Ends a connection in one of two ways.
    fn close(&mut self, client: End, server: End) -> Result<()> {
        let last = if self.rng.one_in(2) {
            [(client, server, RST), (client, server, RST)]
        } else {
            [(client, server, FIN | ACK), (server, client, FIN | ACK)]
        };
        for (from, to, flags) in last {
            let hook = if from == client {
                Hook::ToWorkload
            } else {
                Hook::FromWorkload
            };
            let frame = frame(from, to, Transport::Tcp(flags))?;
            let ifindex = self.world.ifindex(FLIPPING);
            self.programs.passes(hook, ifindex, &frame)?;
        }
        Ok(())
    }

    /// Makes the flows of a peer stale.
    fn new_epoch(&mut self) -> Result<()> {
        let peer = if self.rng.one_in(4) { OTHER } else { FRIEND };
        let v6 = self.rng.one_in(2);
        self.write(Action::BumpEpoch(address(v6, peer)))
    }

    fn flip_table(&mut self) -> Result<()> {
        self.table = match self.table {
            InForce::First => InForce::Second,
            InForce::Second | InForce::Setup => InForce::First,
        };
        let action = self.world.endpoint(FLIPPING, self.table);
        self.flips.table.begin();
        let written = self.write(action);
        self.flips.table.settle(self.table == InForce::Second);
        written
    }

    fn flip_address(&mut self) -> Result<()> {
        self.other = !self.other;
        self.flips.address.begin();
        for v6 in [false, true] {
            self.write(world::moving(v6, self.other))?;
            self.write(Action::BumpEpoch(address(v6, MOVING)))?;
        }
        self.flips.address.settle(self.other);
        Ok(())
    }
}
