//! What a packet costs on a bed: the same one again and again, and one of many flows each time.
//!
//! A run that repeats one packet finds everything in the caches. For the other figure each run is of
//! another flow, in an order that strides through all of them, and a system call lies between; both
//! figures are above those of the no-op program that was run in the same way.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_testbed::interrupt;

use crate::bed::{Bed, PORT};
use crate::frames::{ACK, SYN, tcp};
use crate::world;

/// Runs of the same packet, without and with a flow record each; the ring holds the latter.
const SAME: u32 = 200_000;
const RECORDED: u32 = 10_000;
/// Runs that are each of another flow.
const SPREAD: usize = 8192;
/// A prime stride through the flows.
const STRIDE: usize = 7919;

/// Which packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Of a connection that both ends took part in.
    Established,
    /// A SYN, which is judged each time.
    New,
}

/// The samples of one size, in nanoseconds above no-op.
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
    /// Opens as many connections, from as many workloads as there are.
    pub(crate) fn open(bed: &mut Bed, peers: u32, count: u32) -> Result<Self> {
        let mut established = Vec::new();
        let mut new = Vec::new();
        for number in 0..count {
            let (client, server) = ends(number, peers);
            for (program, frame) in [
                ("to_workload", tcp(client, server, SYN)?),
                ("from_workload", tcp(server, client, SYN | ACK)?),
                ("to_workload", tcp(client, server, ACK)?),
                // The first packet after the handshake moves the entry to the proven flows.
                ("to_workload", tcp(client, server, ACK)?),
            ] {
                bed.run(program, &frame, 1)
                    .with_context(|| format!("opening connection {number}"))?;
            }
            established.push(tcp(client, server, ACK)?);
            new.push(tcp((client.0, client.1 + NEW), server, SYN)?);
            if number % RECORDED == 0 {
                bed.telemetry.drain(usize::MAX, |_| {});
            }
        }
        bed.telemetry.drain(usize::MAX, |_| {});
        Ok(Self { established, new })
    }

    /// Flows that are established already.
    pub(crate) fn established(frames: Vec<Vec<u8>>, new: Vec<Vec<u8>>) -> Self {
        Self {
            established: frames,
            new,
        }
    }

    /// Measures every figure so many times.
    pub(crate) fn costs(&self, bed: &mut Bed, rounds: usize) -> Result<Costs> {
        let mut costs = Costs::default();
        for round in 0..=rounds {
            interrupt::check()?;
            for (path, same, spread_over) in [
                (
                    Path::Established,
                    &mut costs.established_same,
                    &mut costs.established_spread,
                ),
                (Path::New, &mut costs.new_same, &mut costs.new_spread),
            ] {
                let (one, many) = (self.same(bed, path)?, self.spread(bed, path)?);
                // The first round is for the caches, and for what a change of the world left to do.
                if round > 0 {
                    same.push(one);
                    spread_over.push(many);
                }
            }
        }
        Ok(costs)
    }

    fn frames(&self, path: Path) -> &[Vec<u8>] {
        match path {
            Path::Established => &self.established,
            Path::New => &self.new,
        }
    }

    fn same(&self, bed: &mut Bed, path: Path) -> Result<f64> {
        let frame = self.frames(path).first().context("no flow")?;
        let batch = match path {
            Path::Established => SAME,
            Path::New => RECORDED,
        };
        let (mut total, runs) = (0.0, SAME / batch);
        for _ in 0..runs {
            total += nanoseconds(bed.run("to_workload", frame, batch)?);
            bed.telemetry.drain(usize::MAX, |_| {});
        }
        let noop = nanoseconds(bed.noop.run(frame, SAME)?);
        Ok(total / f64::from(runs) - noop)
    }

    fn spread(&self, bed: &mut Bed, path: Path) -> Result<f64> {
        let frames = self.frames(path);
        let (mut ours, mut noop) = (Duration::ZERO, Duration::ZERO);
        for number in 0..SPREAD {
            let frame = frames.get(number * STRIDE % frames.len().max(1));
            let frame = frame.context("no flow")?;
            ours += bed.run("to_workload", frame, 1)?;
            noop += bed.noop.run(frame, 1)?;
        }
        bed.telemetry.drain(usize::MAX, |_| {});
        Ok((nanoseconds(ours) - nanoseconds(noop)) / SPREAD as f64)
    }
}

/// New flows have other ports than established ones.
pub(crate) const NEW: u16 = 20_000;
/// The first client port.
const FIRST: u16 = 20_000;

/// Client and server of a connection: workloads first, then ports.
pub(crate) fn ends(number: u32, peers: u32) -> ((IpAddr, u16), (IpAddr, u16)) {
    let [peer, _] = world::remote(number % peers.max(1));
    let port = u16::try_from(number / peers.max(1)).unwrap_or(u16::MAX - FIRST - NEW);
    ((peer, FIRST + port), (world::TARGET.ip4.into(), PORT))
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
