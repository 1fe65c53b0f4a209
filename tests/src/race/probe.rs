//! The packets of a run, each with the verdict it must get.
//!
//! Two kinds of flows: those whose connection was set up before, with an entry in conntrack that
//! the writing thread makes stale again and again, and those that change their source port from
//! packet to packet, which have an entry only if they are allowed.

use std::collections::BTreeMap;

use anyhow::Result;

use super::flip::Flip;
use crate::program_run::frames::set_source_port;
use crate::program_run::{Hook, Programs};

/// The settings on which verdicts depend.
#[derive(Debug)]
pub(super) struct Flips {
    /// Second: the endpoint [`FLIPPING`] has its second table.
    pub(super) table: Flip,
    /// Second: [`MOVING`] is an other.
    pub(super) address: Flip,
}

/// When a packet must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Passes,
    Dropped,
    PassesByFirstTable,
    PassesAsFriend,
}

/// A packet, and its flow's other source ports.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) what: &'static str,
    pub(super) hook: Hook,
    pub(super) ifindex: u32,
    pub(super) frame: Vec<u8>,
    pub(super) transport_at: usize,
    pub(super) first_port: u16,
    pub(super) ports: u16,
    pub(super) expect: Expect,
    /// There are allowed and denied connections that differ from this one in their ports only.
    pub(super) has_rival: bool,
}

/// Wrong verdicts by kind of packet: packets that passed, and packets that were dropped.
pub(super) type Wrong = BTreeMap<&'static str, (u64, u64)>;

/// Counts of checked packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Packets whose verdict was known.
    pub(super) checked: u64,
    /// Packets whose verdict changed while they were run.
    pub(super) unknown: u64,
    pub(super) wrong: Wrong,
}

impl Flips {
    pub(super) const fn new() -> Self {
        Self {
            table: Flip::new(),
            address: Flip::new(),
        }
    }
}

impl Tally {
    /// Runs one of the probe's packets and counts the verdict.
    pub(super) fn check(
        &mut self,
        (programs, flips): (&Programs, &Flips),
        probe: &mut Probe,
        number: u64,
    ) -> Result<()> {
        let port = probe.first_port + u16::try_from(number % u64::from(probe.ports))?;
        set_source_port(&mut probe.frame, probe.transport_at, port);
        let read = || match probe.expect {
            Expect::PassesAsFriend => flips.address.read(),
            _ => flips.table.read(),
        };
        let before = read();
        let passed = programs.passes(probe.hook, probe.ifindex, &probe.frame)?;
        let expected = match probe.expect {
            Expect::Passes => true,
            Expect::Dropped => false,
            Expect::PassesByFirstTable | Expect::PassesAsFriend => match before.is_second() {
                Some(second) if before == read() => !second,
                _ => {
                    self.unknown += 1;
                    return Ok(());
                }
            },
        };
        self.checked += 1;
        if passed != expected {
            let (passes, drops) = self.wrong.entry(probe.what).or_default();
            *(if passed { passes } else { drops }) += 1;
        }
        Ok(())
    }

    /// Runs every packet of every probe once.
    pub(super) fn check_all(
        &mut self,
        run: (&Programs, &Flips),
        probes: &mut [Probe],
    ) -> Result<()> {
        for probe in probes {
            for number in 0..u64::from(probe.ports) {
                self.check(run, probe, number)?;
            }
        }
        Ok(())
    }

    /// Adds the counts of another thread.
    pub(super) fn add(&mut self, other: &Self) {
        self.checked += other.checked;
        self.unknown += other.unknown;
        for (what, (passes, drops)) in &other.wrong {
            let sum = self.wrong.entry(what).or_default();
            sum.0 += passes;
            sum.1 += drops;
        }
    }
}
