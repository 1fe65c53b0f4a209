//! Differential test: random frames under random policies, compared with an independent model.
//!
//! A world (workloads, nodes, policies) is compiled into the real maps. Then sequences of frames of
//! one workload are run: flows and fragments, most frames valid, many with one or two faults. The
//! model parses each frame with `etherparse`, evaluates policy with the oracle and keeps flows in a
//! hash map; outcome and drop reason must be the same. Most sequences run in `enforce`, the others
//! in `observe`, where everything passes and is counted, and in `lockdown`.

mod capture;
mod conversation;
mod coverage;
mod craft;
mod expectation;
mod mutate;
mod parse;
mod rng;
mod sequence;
mod stateless;
mod traffic;

use std::env;
use std::fmt::Write as _;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use ringfence::{
    oracle::{World, cases, report, world},
    plan::{Action, State, plan},
    policy::Compiler,
};
use ringfence_common::mode::Mode;

use crate::fence::Fence;
use coverage::Coverage;
use rng::Rng;
use sequence::{LoadedWorld, Mismatch, Missing, Sequence};
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

#[test]
fn programs_and_model_agree_on_random_frames() {
    let config = cases(ORDINARY);
    let RngSeed::Fixed(seed) = config.rng_seed else {
        panic!("the run has no fixed seed");
    };
    let wanted = env::var(PACKETS).map_or(u64::from(config.cases), |text| text.parse().unwrap());
    let mut fence = Fence::bare();
    let mut coverage = Coverage::default();
    let (mut packets, mut sets) = (0, 0);
    while packets < wanted {
        // A run with this seed begins with the same world.
        packets += compare(&mut fence, seed.wrapping_add(sets), &mut coverage);
        sets += 1;
    }
    println!("{coverage}");
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

/// Runs the sequences of one world; returns the number of frames.
fn compare(fence: &mut Fence, seed: u64, coverage: &mut Coverage) -> u64 {
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
                break;
            }
            panic!("{}", explain(fence, &loaded, sequence, mismatch, seed));
        }
        fence.discard_events();
    }
    fence.apply(&plan(&compiled.state, &State::default()));
    frames
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
    let ifindexes: Vec<u32> = loaded.compiled.endpoints.keys().copied().collect();
    let ifindex = rng.pick(&ifindexes);
    let mode = match rng.below(20) {
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
        own: loaded.compiled.endpoints[&ifindex]
            .workload
            .addresses
            .clone(),
        all: loaded.world.addresses(),
        flows: loaded.world.flows(),
    };
    let pickup = rng.chance(50);
    let mut traffic = Traffic::new(rng.next_u64(), &scope);
    Sequence {
        ifindex,
        mode,
        pickup,
        missing,
        frames: (0..FRAMES).map(|_| traffic.next()).collect(),
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
        loaded.compiled.endpoints[&sequence.ifindex].workload,
    );
    for test_frame in &sequence.frames {
        let parsed = parse::parse(&test_frame.frame, test_frame.gso);
        let (way, notes) = (test_frame.way, &test_frame.notes);
        writeln!(text, "{way:?} gso {} {notes:?}: {parsed:?}", test_frame.gso).unwrap();
    }
    writeln!(text, "before frames were removed: {original:?}").unwrap();
    write!(text, "{:#?}", loaded.world.policies).unwrap();
    text
}
