//! One kind of writes under packets, on freshly loaded programs and maps.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use ringfence::datapath::{Datapath as _, KernelDatapath, LoadOptions};

use super::cases::{connect, flows};
use super::disturb;
use super::probe::{Flips, Probe, Tally, Wrong};
use super::world::{ENDPOINTS, InForce, World};
use super::writer::Writer;
use crate::attack::rng::Rng;
use crate::program_run::Programs;
use crate::{Bpffs, eventually};

/// A storm has at least one overlapping write for this many packets.
const PACKETS_PER_WRITE: u64 = 5;

/// What the writing thread rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    /// Records of endpoints.
    Endpoints,
    /// Addresses of peers.
    Addresses,
    /// Classes and policy rows.
    Policy,
    /// Conntrack entries, by packets.
    Conntrack,
    /// All of these in turn.
    Everything,
}

/// The result of one storm.
#[derive(Clone, Debug)]
pub struct StormOutcome {
    /// Which one.
    pub storm: Storm,
    /// Packets whose verdict was known, of both threads.
    pub packets: u64,
    /// Packets that are not checked, because what decides them changed during their run.
    pub unknown: u64,
    /// Writes that began and ended while the packet thread was running packets.
    pub overlapping: u64,
    /// Wrong verdicts during the storm.
    pub wrong: Wrong,
    /// Wrong verdicts after it, when nothing was written any more.
    pub lasting: Wrong,
    /// How long it took.
    pub duration: Duration,
}

impl Storm {
    /// Every storm, in the order of a run.
    pub const ALL: [Self; 5] = [
        Self::Endpoints,
        Self::Addresses,
        Self::Policy,
        Self::Conntrack,
        Self::Everything,
    ];

    /// The name for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Addresses => "addresses",
            Self::Policy => "policy",
            Self::Conntrack => "conntrack",
            Self::Everything => "everything",
        }
    }

    /// Runs this many packets on one CPU while another one writes. Call it in a network namespace
    /// that has the interfaces.
    pub(super) fn run(
        self,
        packets: u64,
        seed: u64,
        ifindexes: [u32; ENDPOINTS],
    ) -> Result<StormOutcome> {
        let dir = tempfile::Builder::new()
            .prefix("ringfence-race-")
            .tempdir()?;
        // Dropped before `dir`: a mounted directory cannot be removed.
        let bpffs = Bpffs::mount(dir.path().to_owned())?;
        let (mut datapath, _telemetry) =
            KernelDatapath::load(bpffs.path(), &LoadOptions::default())?;
        let mut conntrack = datapath.take_conntrack()?;
        let programs = Programs::of(&mut datapath, &bpffs)?;
        let world = World { ifindexes };
        let written = datapath.write_all(&world.initial());
        written.map_err(|refused| refused.error)?;
        let mut rng = Rng::new(seed ^ self as u64);
        let mut probes = connect(&programs, &world)?;
        let mut rivals: Vec<Probe> = probes.iter().filter(|p| p.has_rival).cloned().collect();
        // So that allowed and denied ones follow each other in many orders.
        shuffle(&mut rivals, &mut rng);
        probes.extend(flows(&world)?);
        for endpoint in 0..ENDPOINTS {
            datapath.write(&world.endpoint(endpoint, InForce::First))?;
        }
        let flips = Flips::new();
        let mut quiet = Tally::default();
        next_tick(&mut datapath)?;
        quiet.check_all((&programs, &flips), &mut probes.clone())?;
        ensure!(
            quiet.wrong.is_empty(),
            "before the storm: {}",
            Shown(&quiet.wrong)
        );

        let started = Instant::now();
        let running = AtomicBool::new(true);
        let overlapping = AtomicU64::new(0);
        let mut writer = Writer::new(
            (&mut datapath, &mut conntrack),
            (&programs, &flips),
            (world, rivals.clone()),
            (&running, &overlapping, rng),
        );
        let [packet_cpu, writer_cpu] = two_cpus()?;
        let running_probes = if self == Self::Conntrack {
            &rivals
        } else {
            &probes
        };
        let until = Until {
            packets,
            writes: if self == Self::Conntrack {
                0
            } else {
                packets / PACKETS_PER_WRITE
            },
            overlapping: &overlapping,
            running: &running,
        };
        let mut tally = thread::scope(|scope| -> Result<Tally> {
            let reader = scope.spawn(|| {
                let tally = stay_on(packet_cpu)
                    .and_then(|()| run_packets((&programs, &flips), running_probes, &until));
                running.store(false, Ordering::SeqCst);
                tally
            });
            let writes = scope.spawn(|| {
                let written = stay_on(writer_cpu).and_then(|()| writer.run(self));
                // Without writes there is no point in more packets.
                running.store(false, Ordering::SeqCst);
                written
            });
            let disturbs =
                scope.spawn(|| stay_on(packet_cpu).and_then(|()| disturb::run(&running)));
            let written = writes.join().map_err(|_| anyhow!("the writes panicked"))?;
            written.context("writing under packets")?;
            let tally = reader.join().map_err(|_| anyhow!("the packets panicked"))?;
            let disturbed = disturbs
                .join()
                .map_err(|_| anyhow!("the timers panicked"))?;
            disturbed.context("interrupting packets")?;
            tally.context("running packets")
        })?;
        writer.settle()?;
        tally.add(&writer.tally);
        let duration = started.elapsed();

        let mut lasting = Tally::default();
        next_tick(&mut datapath)?;
        lasting.check_all((&programs, &flips), &mut probes)?;
        drop(bpffs);
        Ok(StormOutcome {
            storm: self,
            packets: tally.checked,
            unknown: tally.unknown,
            overlapping: overlapping.load(Ordering::Relaxed),
            wrong: tally.wrong,
            lasting: lasting.wrong,
            duration,
        })
    }
}

/// When the packet thread may stop: after enough packets and enough writes under them, because
/// another process may take the writing thread's CPU; or when the writes have failed.
struct Until<'a> {
    packets: u64,
    writes: u64,
    overlapping: &'a AtomicU64,
    running: &'a AtomicBool,
}

impl Until<'_> {
    fn is_reached(&self, checked: u64) -> bool {
        let enough =
            checked >= self.packets && self.overlapping.load(Ordering::Relaxed) >= self.writes;
        enough || !self.running.load(Ordering::SeqCst)
    }
}

/// Runs packets of all probes in turn.
fn run_packets(run: (&Programs, &Flips), probes: &[Probe], until: &Until<'_>) -> Result<Tally> {
    let mut probes = probes.to_vec();
    let mut tally = Tally::default();
    let mut number = 0;
    while !until.is_reached(tally.checked) {
        for probe in &mut probes {
            tally.check(run, probe, number)?;
        }
        number += 1;
    }
    Ok(tally)
}

fn shuffle<T>(all: &mut [T], rng: &mut Rng) {
    for last in (1..all.len()).rev() {
        all.swap(last, rng.below(last + 1));
    }
}

/// Decisions are cached until the tick ends.
fn next_tick(datapath: &mut KernelDatapath) -> Result<()> {
    let before = datapath.clocks()?.ticks;
    eventually(Duration::from_secs(10), "the next tick", || {
        Ok((datapath.clocks()?.ticks != before).then_some(()))
    })
}

fn two_cpus() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("reading the CPU affinity")?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true));
    match (cpus.next(), cpus.next()) {
        (Some(one), Some(other)) => Ok([one, other]),
        _ => Err(anyhow!("a race needs two CPUs, and this process has one")),
    }
}

/// Pins the calling thread.
fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pinning a thread to one CPU")
}

/// Counts of wrong verdicts.
pub(super) fn sum(wrong: &Wrong) -> (u64, u64) {
    let add = |sum: (u64, u64), one: &(u64, u64)| (sum.0 + one.0, sum.1 + one.1);
    wrong.values().fold((0, 0), add)
}

/// Wrong verdicts by kind of packet, for people.
struct Shown<'a>(&'a Wrong);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (what, (passes, drops))) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{what}: {passes} passed, {drops} dropped")?;
        }
        Ok(())
    }
}

impl fmt::Display for StormOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passes, drops) = sum(&self.wrong);
        let (lasting_passes, lasting_drops) = sum(&self.lasting);
        write!(
            f,
            "{:<10} {:.1} s, {} packets ({} more not checked), {} overlapping writes, \
             {passes} wrong passes, {drops} wrong drops, {} lasting entries",
            self.storm.name(),
            self.duration.as_secs_f64(),
            self.packets,
            self.unknown,
            self.overlapping,
            lasting_passes + lasting_drops,
        )?;
        if !self.wrong.is_empty() {
            write!(f, "\n  during: {}", Shown(&self.wrong))?;
        }
        if !self.lasting.is_empty() {
            write!(f, "\n  lasting: {}", Shown(&self.lasting))?;
        }
        Ok(())
    }
}
