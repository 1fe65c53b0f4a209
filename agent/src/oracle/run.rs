//! Settings, seed and report of a random run.
//!
//! Invariants: every run has a seed, which is printed where a failing test shows it, and the same
//! seed produces the same worlds in the same order. One number scales all properties.

use std::{env, fs::OpenOptions, hash::BuildHasher as _, io::Write as _, thread};

use proptest::test_runner::{Config, RngSeed};

/// How many policy sets the main property compares; the other properties scale with it.
const CASES: &str = "RINGFENCE_PROPTEST_CASES";
/// The seed of a run to repeat.
const SEED: &str = "RINGFENCE_PROPTEST_SEED";
/// A file to which properties append their totals.
const REPORT: &str = "RINGFENCE_TEST_REPORT";

/// The default of [`CASES`].
const ORDINARY: u64 = 10_000;
/// Enough for a world of a few rules; a failure must be reported within seconds.
const LONGEST_SHRINK: u32 = 20_000;

/// The configuration of a property that runs `ordinary` cases in an ordinary run. Prints how to
/// repeat the run.
#[must_use]
pub fn cases(ordinary: u32) -> Config {
    let asked = number(CASES);
    let seed = number(SEED).unwrap_or_else(anything);
    let thread = thread::current();
    let of = asked.map_or_else(String::new, |cases| format!("{CASES}={cases} "));
    println!(
        "seed {seed}; to repeat: {SEED}={seed} {of}cargo test --workspace {}",
        thread.name().unwrap_or_default()
    );
    let defaults = Config::default();
    Config {
        cases: share(ordinary, asked.unwrap_or(ORDINARY)),
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: defaults.max_shrink_iters.min(LONGEST_SHRINK),
        failure_persistence: None,
        ..defaults
    }
}

/// Scales `ordinary` cases by the size of the run; at least one.
fn share(ordinary: u32, asked: u64) -> u32 {
    let cases = u64::from(ordinary).saturating_mul(asked) / ORDINARY;
    u32::try_from(cases).unwrap_or(u32::MAX).max(1)
}

/// Reports a property's totals in the test's output and in [`REPORT`].
pub fn report(totals: &str) {
    println!("{totals}");
    if let Some(path) = env::var_os(REPORT) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the report can be opened");
        // One write, because other tests append to the same file.
        file.write_all(format!("{totals}\n").as_bytes())
            .expect("the report can be written");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
    )
}

fn anything() -> u64 {
    std::collections::hash_map::RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use proptest::{strategy::Strategy as _, strategy::ValueTree as _, test_runner::TestRunner};

    use super::*;
    use crate::oracle::world;

    #[test]
    fn a_seed_makes_the_same_worlds_again() {
        let drawn = |seed| {
            let mut runner = TestRunner::new(Config {
                rng_seed: RngSeed::Fixed(seed),
                ..Config::default()
            });
            let worlds = (0..5).map(|_| world().new_tree(&mut runner).unwrap().current());
            format!("{:?}", worlds.collect::<Vec<_>>())
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn all_properties_grow_alike() {
        assert_eq!(share(10_000, ORDINARY), 10_000);
        assert_eq!(share(600, 100_000), 6000);
        assert_eq!(share(30, 100), 1);
    }
}
