//! The cost of a packet: the same packet repeated, and a packet of another flow each time.
//!
//! A run that repeats one packet finds everything in the caches. For the other figure each run uses
//! another flow, striding through all of them, with a system call in between. Both figures are
//! differences to the no-op program run in the same way.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_testbed::interrupt;

use crate::frames::{ACK, SYN, tcp};
use crate::loaded::{LoadedPrograms, PORT};
use crate::world;

/// Runs of the same packet, without and with a flow record each; the ring has space for the latter.
const SAME: u32 = 200_000;
const RECORDED: u32 = 10_000;
/// Runs with another flow each.
const SPREAD: usize = 8192;
/// A prime stride through the flows.
const STRIDE: usize = 7919;

/// The kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketKind {
    /// A packet of an assured connection.
    Established,
    /// A SYN, which is evaluated each time.
    New,
}

/// The samples of one size, in nanoseconds above the no-op program.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    pub(crate) established_same: Vec<f64>,
    pub(crate) established_spread: Vec<f64>,
    pub(crate) new_same: Vec<f64>,
    pub(crate) new_spread: Vec<f64>,
}

/// Connections from remote workloads to the target.
pub(crate) struct Flows {
    established: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
}

impl Flows {
    /// Opens `count` connections, spread over all remote workloads.
    pub(crate) fn open(loaded: &mut LoadedPrograms, peers: u32, count: u32) -> Result<Self> {
        let mut established = Vec::new();
        let mut new = Vec::new();
        for number in 0..count {
            let (client, server) = ends(number, peers);
            for (program, frame) in [
                ("to_workload", tcp(client, server, SYN)?),
                ("from_workload", tcp(server, client, SYN | ACK)?),
                ("to_workload", tcp(client, server, ACK)?),
                // The first packet after the handshake promotes the entry to assured.
                ("to_workload", tcp(client, server, ACK)?),
            ] {
                loaded
                    .run(program, &frame, 1)
                    .with_context(|| format!("opening connection {number}"))?;
            }
            established.push(tcp(client, server, ACK)?);
            new.push(tcp((client.0, client.1 + NEW), server, SYN)?);
            if number % RECORDED == 0 {
                loaded.telemetry.events.drain(usize::MAX, |_| {});
            }
        }
        loaded.telemetry.events.drain(usize::MAX, |_| {});
        Ok(Self { established, new })
    }

    /// Flows whose entries exist already.
    pub(crate) fn established(frames: Vec<Vec<u8>>, new: Vec<Vec<u8>>) -> Self {
        Self {
            established: frames,
            new,
        }
    }

    /// Measures every figure `rounds` times.
    pub(crate) fn costs(&self, loaded: &mut LoadedPrograms, rounds: usize) -> Result<Costs> {
        let mut costs = Costs::default();
        for round in 0..=rounds {
            interrupt::check()?;
            for (kind, same, spread_over) in [
                (
                    PacketKind::Established,
                    &mut costs.established_same,
                    &mut costs.established_spread,
                ),
                (PacketKind::New, &mut costs.new_same, &mut costs.new_spread),
            ] {
                let (one, many) = (self.same(loaded, kind)?, self.spread(loaded, kind)?);
                // The first round warms the caches and absorbs work left over from a change of the
                // world.
                if round > 0 {
                    same.push(one);
                    spread_over.push(many);
                }
            }
        }
        Ok(costs)
    }

    fn frames(&self, kind: PacketKind) -> &[Vec<u8>] {
        match kind {
            PacketKind::Established => &self.established,
            PacketKind::New => &self.new,
        }
    }

    fn same(&self, loaded: &mut LoadedPrograms, kind: PacketKind) -> Result<f64> {
        let frame = self.frames(kind).first().context("no flow")?;
        let batch = match kind {
            PacketKind::Established => SAME,
            PacketKind::New => RECORDED,
        };
        let (mut total, runs) = (0.0, SAME / batch);
        for _ in 0..runs {
            total += nanoseconds(loaded.run("to_workload", frame, batch)?);
            loaded.telemetry.events.drain(usize::MAX, |_| {});
        }
        let noop = nanoseconds(loaded.noop.run(frame, SAME)?);
        Ok(total / f64::from(runs) - noop)
    }

    fn spread(&self, loaded: &mut LoadedPrograms, kind: PacketKind) -> Result<f64> {
        let frames = self.frames(kind);
        let (mut ours, mut noop) = (Duration::ZERO, Duration::ZERO);
        for number in 0..SPREAD {
            let frame = frames.get(number * STRIDE % frames.len().max(1));
            let frame = frame.context("no flow")?;
            ours += loaded.run("to_workload", frame, 1)?;
            noop += loaded.noop.run(frame, 1)?;
        }
        loaded.telemetry.events.drain(usize::MAX, |_| {});
        Ok((nanoseconds(ours) - nanoseconds(noop)) / SPREAD as f64)
    }
}

/// Offset of the client ports of new flows, to differ from established ones.
pub(crate) const NEW: u16 = 20_000;
/// The first client port.
const FIRST: u16 = 20_000;

/// Client and server of a connection; consecutive numbers use all workloads, then the next port.
pub(crate) fn ends(number: u32, peers: u32) -> ((IpAddr, u16), (IpAddr, u16)) {
    let [peer, _] = world::remote(number % peers.max(1));
    let port = u16::try_from(number / peers.max(1)).unwrap_or(u16::MAX - FIRST - NEW);
    ((peer, FIRST + port), (world::TARGET.ip4.into(), PORT))
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
