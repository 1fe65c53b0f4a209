//! Random frames under random policies: the programs do with each what an independent reading of it
//! and of the design says, and for that reason.
//!
//! A world (workloads, nodes, policies) is compiled into the real maps. Then come episodes: frames
//! of one workload, most of them sound, many with a fault or two, in sequences in which flows, and
//! fragments, follow each other. The expectation reads a frame with `etherparse`, asks the oracle
//! about policy, and remembers flows in a hash map. Most episodes are in `enforce`, the others in
//! `observe`, where everything passes and is counted, and in `lockdown`.

mod announce;
mod capture;
mod craft;
mod dice;
mod episode;
mod expectation;
mod mutate;
mod reading;
mod talk;
mod tally;
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
use dice::Dice;
use episode::{Episode, Ground, Mismatch, Missing};
use tally::Tally;
use traffic::{Places, Traffic};

/// How many packets are wanted, instead of the share of an ordinary run.
const PACKETS: &str = "RINGFENCE_DIFFERENTIAL_PACKETS";
const ORDINARY: u32 = 100_000;

/// Frames of an episode, and episodes of a world.
const FRAMES: usize = 64;
const EPISODES: usize = 12;

/// How long ago, in nanoseconds, the tables were laid out. Rules of a random world begin or end up
/// to seven seconds after that: none of them while its episodes last.
const AGES: [u64; 2] = [2_000_000_000, 60_000_000_000];

#[test]
fn the_programs_do_with_frames_what_the_design_says() {
    let config = cases(ORDINARY);
    let RngSeed::Fixed(seed) = config.rng_seed else {
        panic!("a run has a seed");
    };
    let wanted = env::var(PACKETS).map_or(u64::from(config.cases), |text| text.parse().unwrap());
    let mut fence = Fence::bare();
    let mut tally = Tally::default();
    let (mut packets, mut sets) = (0, 0);
    while packets < wanted {
        // The seed of a world is that of a run that begins with it.
        packets += compare(&mut fence, seed.wrapping_add(sets), &mut tally);
        sets += 1;
    }
    println!("{tally}");
    if wanted >= u64::from(ORDINARY) {
        assert_eq!(tally.missed(5), [""; 0], "too few frames came to this");
    }
    report(&format!(
        "differential: {packets} packets, {sets} policy sets, 0 mismatches"
    ));
}

/// Plays the episodes of one world; returns how many frames were shown.
fn compare(fence: &mut Fence, seed: u64, tally: &mut Tally) -> u64 {
    let world = drawn(seed);
    let mut dice = Dice::new(seed);
    let age = dice.pick(&AGES);
    let boot = fence.now().saturating_sub(age);
    let compiled = world.attempt_at(&mut Compiler::default(), &world.endpoints(), boot);
    fence.carry_out(&plan(&State::default(), &compiled.state));
    // Some have changed hands before: what is stored of one of them must not be taken for another's.
    for address in world.addresses() {
        if dice.often(30) {
            fence.write(Action::BumpEpoch(address));
        }
    }
    let ground = Ground::new(&world, &compiled, (boot, age));
    let mut shown = 0;
    for _ in 0..EPISODES {
        let episode = episode(&mut dice, &ground);
        let played = ground.play(fence, &episode, &mut |mode, expected, fate| {
            shown += 1;
            tally.add(mode, expected, fate);
        });
        if let Err(mismatch) = played {
            if !ground.holds(fence) {
                // No verdict on the programs; the next world comes early.
                break;
            }
            panic!("{}", explain(fence, &ground, episode, mismatch, seed));
        }
        fence.discard_events();
    }
    fence.carry_out(&plan(&compiled.state, &State::default()));
    shown
}

fn drawn(seed: u64) -> World {
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    });
    world().new_tree(&mut runner).unwrap().current()
}

fn episode(dice: &mut Dice, ground: &Ground) -> Episode {
    let ifindexes: Vec<u32> = ground.compiled.endpoints.keys().copied().collect();
    let ifindex = dice.pick(&ifindexes);
    let mode = match dice.below(20) {
        0..=14 => Mode::Enforce,
        15..=18 => Mode::Observe,
        _ => Mode::Lockdown,
    };
    let missing = match dice.below(40) {
        0 => Missing::Endpoint,
        1 => Missing::Table,
        2..=4 => Missing::World,
        _ => Missing::Nothing,
    };
    let places = Places {
        own: ground.compiled.endpoints[&ifindex]
            .workload
            .addresses
            .clone(),
        everybody: ground.world.addresses(),
        flows: ground.world.flows(),
    };
    let pickup = dice.often(50);
    let mut traffic = Traffic::new(dice.word(), &places);
    Episode {
        ifindex,
        mode,
        pickup,
        missing,
        frames: (0..FRAMES).map(|_| traffic.next()).collect(),
    }
}

/// Leaves out what the mismatch does not need, and says everything about the rest.
fn explain(
    fence: &mut Fence,
    ground: &Ground,
    mut episode: Episode,
    mut mismatch: Mismatch,
    seed: u64,
) -> String {
    episode.frames.truncate(mismatch.place + 1);
    let whole = (
        mismatch.expected,
        mismatch.fate,
        mismatch.counted.clone(),
        episode.frames.len(),
    );
    for place in (0..=mismatch.place).rev() {
        if episode.frames.len() == 1 || place >= episode.frames.len() || !ground.holds(fence) {
            continue;
        }
        let mut shorter = episode.clone();
        shorter.frames.remove(place);
        if let Err(again) = ground.play(fence, &shorter, &mut |_, _, _| {}) {
            shorter.frames.truncate(again.place + 1);
            (episode, mismatch) = (shorter, again);
        }
    }
    let path = capture::write(episode.frames.iter().map(|shown| shown.frame.as_slice()));
    let mut text = format!(
        "expected {:?}, the frame was {:?} and counted as {:?}\n\
         to repeat: RINGFENCE_PROPTEST_SEED={seed}\nframes: {}\n\
         mode {:?}, pick-up window {}, missing: {:?}, workload {:?}\n",
        mismatch.expected,
        mismatch.fate,
        mismatch.counted,
        path.display(),
        episode.mode,
        episode.pickup,
        episode.missing,
        ground.compiled.endpoints[&episode.ifindex].workload,
    );
    for shown in &episode.frames {
        let reading = reading::read(&shown.frame, shown.gso);
        let (way, notes) = (shown.way, &shown.notes);
        writeln!(text, "{way:?} gso {} {notes:?}: {reading:?}", shown.gso).unwrap();
    }
    writeln!(text, "at first, with all frames: {whole:?}").unwrap();
    write!(text, "{:#?}", ground.world.policies).unwrap();
    text
}
