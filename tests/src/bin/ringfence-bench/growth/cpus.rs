//! How a packet's cost grows when other CPUs run the same program at the same time.

use std::sync::Barrier;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use ringfence_testbed::interrupt;

use super::flows::{Flows, ends};
use crate::cpu;
use crate::frames::{ACK, tcp};
use crate::loaded::{LoadedPrograms, World, run};

const REPEAT: u32 = 500_000;

/// Samples in nanoseconds, the no-op program included.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    pub(crate) alone: Vec<f64>,
    pub(crate) other_flows: Vec<f64>,
    pub(crate) same_flow: Vec<f64>,
}

/// Measures established packets on one CPU, then on all of them.
pub(crate) fn measure(
    loaded: &mut LoadedPrograms,
    world: World,
    rounds: usize,
) -> Result<(usize, Costs)> {
    let cpus = cpu::all()?;
    let count = cpus.len();
    loaded.publish(world)?;
    Flows::open(loaded, world.peers, u32::try_from(count)?)?;
    let frames = (0..u32::try_from(count)?).map(|number| {
        let (client, server) = ends(number, world.peers);
        tcp(client, server, ACK)
    });
    let frames: Vec<Vec<u8>> = frames.collect::<Result<_>>()?;
    let one = std::slice::from_ref(frames.first().context("no CPU")?);
    let same: Vec<Vec<u8>> = one.iter().cycle().take(count).cloned().collect();
    let mut costs = Costs::default();
    for round in 0..=rounds {
        interrupt::check()?;
        let alone = at_once(loaded, &cpus, one)?;
        let other_flows = at_once(loaded, &cpus, &frames)?;
        let same_flow = at_once(loaded, &cpus, &same)?;
        if round > 0 {
            costs.alone.extend(alone);
            costs.other_flows.extend(other_flows);
            costs.same_flow.extend(same_flow);
        }
    }
    Ok((count, costs))
}

/// Runs each frame on its own CPU, all at the same time.
fn at_once(loaded: &mut LoadedPrograms, cpus: &[usize], frames: &[Vec<u8>]) -> Result<Vec<f64>> {
    let program = loaded.datapath.program("to_workload");
    let program = &*program.context("no such program")?;
    let start = &Barrier::new(frames.len());
    thread::scope(|scope| {
        let threads: Vec<_> = frames
            .iter()
            .zip(cpus)
            .map(|(frame, cpu)| {
                scope.spawn(move || -> Result<f64> {
                    let pinned = cpu::pin(*cpu);
                    start.wait();
                    pinned?;
                    Ok(run(program, frame, REPEAT)?.as_secs_f64() * 1e9)
                })
            })
            .collect();
        let mut samples = Vec::new();
        for thread in threads {
            samples.push(thread.join().map_err(|_| anyhow!("a run panicked"))??);
        }
        Ok(samples)
    })
}
