//! Differential test: random frames under random policies, compared with an independent model.
//!
//! A world (workloads, nodes, policies) is compiled into the real maps. Then sequences of frames of
//! one workload are run: flows and fragments, most frames valid, many with one or two faults. The
//! model parses each frame with `etherparse`, evaluates policy with the oracle and keeps flows in a
//! hash map; outcome and drop reason must be the same. Most sequences run in `enforce`, the others
//! in `observe`, where everything passes and is counted, and in `lockdown`. Between frames policy, mode
//! and identities change, and time passes, while the flows live.

mod capture;
mod change;
mod conversation;
mod coverage;
mod craft;
mod discovery;
mod expectation;
mod flows;
mod mutate;
mod neighbourhood;
mod parse;
pub(crate) mod rng;
pub(crate) mod sequence;
mod stateless;
mod tracking;
mod traffic;

use std::env;
use std::fmt::Write as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use ringfence::{
    oracle::{World, cases, report, world},
    plan::{Action, State, plan},
    policy::Compiler,
};
use ringfence_common::mode::Mode;

use crate::fence::Fence;
use change::Changes;
use coverage::Coverage;
use rng::Rng;
use sequence::{LoadedWorld, Mismatch, Missing, Sequence, subject_of};
use traffic::{Scope, Traffic};

/// The environment variable with the number of packets to run, instead of the default.
const PACKETS: &str = "RINGFENCE_DIFFERENTIAL_PACKETS";
const ORDINARY: u32 = 100_000;

/// Frames per sequence, and sequences per world.
const FRAMES: usize = 64;
const SEQUENCES: usize = 12;

/// Age of the compiled tables in nanoseconds. Rules of a random world begin or end within the first
/// seven seconds, but none does while the sequences of the world run.
const AGES: [u64; 2] = [2_000_000_000, 60_000_000_000];

/// Fences that run worlds side by side: changes of a map wait for RCU grace periods, which leave the CPUs
/// idle.
const FENCES: usize = 4;

#[test]
fn programs_and_model_agree_on_random_frames() {
    let config = cases(ORDINARY);
    let RngSeed::Fixed(seed) = config.rng_seed else {
        panic!("the run has no fixed seed");
    };
    let wanted = env::var(PACKETS).map_or(u64::from(config.cases), |text| text.parse().unwrap());
    let run = Run {
        seed,
        wanted,
        sets: AtomicU64::new(0),
        packets: AtomicU64::new(0),
        has_failed: AtomicBool::new(false),
    };
    let coverage = thread::scope(|scope| {
        let fences: Vec<_> = (0..FENCES)
            .map(|_| scope.spawn(|| compare_worlds(&run)))
            .collect();
        let mut coverage = Coverage::default();
        for fence in fences {
            match fence.join() {
                Ok(part) => coverage.merge(part),
                Err(panic) => resume_unwind(panic),
            }
        }
        coverage
    });
    let (packets, sets) = (run.packets.into_inner(), run.sets.into_inner());
    println!("{coverage}");
    assert!(
        coverage.left_early * 4 <= sets,
        "void: the machine is too slow"
    );
    if wanted >= u64::from(ORDINARY) {
        assert_eq!(
            coverage.missed(5),
            [""; 0],
            "too few frames had these outcomes"
        );
    }
    report(&format!(
        "differential: {packets} packets, {sets} policy sets, 0 mismatches"
    ));
}

/// What the fences of a run share.
struct Run {
    seed: u64,
    /// Packets to run at least.
    wanted: u64,
    /// Worlds begun.
    sets: AtomicU64,
    packets: AtomicU64,
    /// A fence found a mismatch, so that the others can stop.
    has_failed: AtomicBool,
}

/// Runs worlds with one fence until there are enough packets.
fn compare_worlds(run: &Run) -> Coverage {
    let mut fence = Fence::bare();
    let mut coverage = Coverage::default();
    while run.packets.load(Relaxed) < run.wanted && !run.has_failed.load(Relaxed) {
        // A run with this seed begins with the same world.
        let seed = run.seed.wrapping_add(run.sets.fetch_add(1, Relaxed));
        match compare(&mut fence, seed, &mut coverage) {
            Ok(packets) => run.packets.fetch_add(packets, Relaxed),
            Err(mismatch) => {
                run.has_failed.store(true, Relaxed);
                panic!("{mismatch}");
            }
        };
    }
    coverage
}

/// Runs the sequences of one world; returns the number of frames, or a description of the mismatch.
fn compare(fence: &mut Fence, seed: u64, coverage: &mut Coverage) -> Result<u64, String> {
    let world = generate(seed);
    let mut rng = Rng::new(seed);
    let age = rng.pick(&AGES);
    let boot = fence.now().saturating_sub(age);
    let compiled = world.compile_at(&mut Compiler::default(), &world.endpoints(), boot);
    fence.apply(&plan(&State::default(), &compiled.state));
    // Gives some addresses another epoch, so that a mix-up of the stored epochs is noticed.
    for address in world.addresses() {
        if rng.chance(30) {
            fence.write(Action::BumpEpoch(address));
        }
    }
    let loaded = LoadedWorld::new(&world, &compiled, (boot, age));
    let mut frames = 0;
    for _ in 0..SEQUENCES {
        let sequence = sequence(&mut rng, &loaded);
        let result = loaded.run(fence, &sequence, &mut |mode, expected, outcome| {
            frames += 1;
            coverage.add(mode, expected, outcome);
        });
        if let Err(mismatch) = result {
            if !loaded.is_current(fence) {
                // The machine was too slow for a valid comparison; continue with the next world.
                coverage.left_early += 1;
                break;
            }
            return Err(explain(fence, &loaded, sequence, mismatch, seed));
        }
        fence.discard_events();
    }
    fence.apply(&plan(&compiled.state, &State::default()));
    Ok(frames)
}

fn generate(seed: u64) -> World {
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    });
    world().new_tree(&mut runner).unwrap().current()
}

fn sequence(rng: &mut Rng, loaded: &LoadedWorld) -> Sequence {
    let ifindexes: Vec<u32> = loaded.compiled.state.endpoints.keys().copied().collect();
    let ifindex = rng.pick(&ifindexes);
    let long_flows = rng.chance(40);
    let mode = match rng.below(20) {
        // What is only observed must give way later.
        0..=7 if long_flows => Mode::Observe,
        0..=14 => Mode::Enforce,
        15..=18 => Mode::Observe,
        _ => Mode::Lockdown,
    };
    let missing = match rng.below(40) {
        0 => Missing::Endpoint,
        1 => Missing::Table,
        2..=4 => Missing::World,
        _ => Missing::Nothing,
    };
    let scope = Scope {
        own: subject_of(loaded.compiled, ifindex)
            .workload
            .addresses
            .clone(),
        node: loaded.node_addresses(),
        all: loaded.world.addresses(),
        flows: loaded.world.flows(),
        long_flows,
    };
    let addresses = loaded.world.addresses().into_iter();
    let known = &loaded.compiled.state.addresses;
    let changes = Changes {
        endpoints: ifindexes,
        labelled: addresses.filter(|it| known.get(it).is_some()).collect(),
    };
    let pickup = rng.chance(50);
    // In some sequences nothing changes.
    let often = if scope.long_flows {
        35
    } else {
        rng.pick(&[0, 6, 15])
    };
    let changes = (0..FRAMES)
        .map(|_| rng.chance(often).then(|| changes.pick(rng)))
        .collect();
    let mut traffic = Traffic::new(rng.next_u64(), &scope);
    Sequence {
        ifindex,
        mode,
        pickup,
        missing,
        frames: (0..FRAMES).map(|_| traffic.next()).collect(),
        changes,
    }
}

/// Removes the frames that the mismatch does not need, and describes the rest.
fn explain(
    fence: &mut Fence,
    loaded: &LoadedWorld,
    mut sequence: Sequence,
    mut mismatch: Mismatch,
    seed: u64,
) -> String {
    sequence.frames.truncate(mismatch.index + 1);
    let original = (
        mismatch.expected,
        mismatch.outcome,
        mismatch.counted.clone(),
        sequence.frames.len(),
    );
    for index in (0..=mismatch.index).rev() {
        if sequence.frames.len() == 1 || index >= sequence.frames.len() || !loaded.is_current(fence)
        {
            continue;
        }
        let mut shorter = sequence.clone();
        shorter.frames.remove(index);
        // Its change now precedes the next frame, if none does yet.
        let change = shorter.changes.remove(index);
        if let Some(next) = shorter.changes.get_mut(index) {
            *next = next.or(change);
        }
        if let Err(again) = loaded.run(fence, &shorter, &mut |_, _, _| {}) {
            shorter.frames.truncate(again.index + 1);
            (sequence, mismatch) = (shorter, again);
        }
    }
    let path = capture::write(sequence.frames.iter().map(|it| it.frame.as_slice()));
    let mut text = format!(
        "expected {:?}, the frame was {:?} and was counted as {:?}\n\
         to repeat: RINGFENCE_PROPTEST_SEED={seed}\nframes: {}\n\
         mode {:?}, pick-up window {}, missing: {:?}, workload {:?}\n",
        mismatch.expected,
        mismatch.outcome,
        mismatch.counted,
        path.display(),
        sequence.mode,
        sequence.pickup,
        sequence.missing,
        subject_of(loaded.compiled, sequence.ifindex).workload,
    );
    for (test_frame, change) in sequence.frames.iter().zip(&sequence.changes) {
        if let Some(change) = change {
            writeln!(text, "{change:?}").unwrap();
        }
        let parsed = parse::parse(&test_frame.frame, test_frame.gso);
        let (way, notes) = (test_frame.way, &test_frame.notes);
        writeln!(text, "{way:?} gso {} {notes:?}: {parsed:?}", test_frame.gso).unwrap();
    }
    writeln!(text, "before frames were removed: {original:?}").unwrap();
    write!(text, "{:#?}", loaded.world.policies).unwrap();
    text
}
