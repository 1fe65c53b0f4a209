//! Attacks on the wire: an attacker with root inside one workload crafts any frame on its
//! interface.
//!
//! Every frame is sent in three networks that differ only in their fence: none (the control: a
//! frame that does not arrive here proves nothing), one that enforces and one that observes. A tap
//! at the target decides whether a frame arrived, never the agent's own counters. The networks are bridged
//! or routed ([`Topology`]).
//!
//! The families with their members are in [`families`]. [`generate`] derives cases from them,
//! [`model`] predicts the verdict independently of the programs, [`run`] sends and receives,
//! [`report`] counts.

pub mod builder;
pub mod case;
pub mod craft;
pub mod families;
pub mod family;
pub mod fixture;
pub mod generate;
pub mod model;
pub mod network;
pub mod pcap;
pub mod recording;
pub mod rejection;
pub mod report;
pub mod rng;
pub mod run;
pub mod traffic;
pub mod wire;

use std::time::Instant;

use anyhow::Result;

use case::Case;

pub use families::{FAMILIES, ROUTED_FAMILIES};
pub use family::Family;
pub use generate::Generator;
pub use network::Topology;
pub use report::Tally;
pub use run::{Cause, Loss, Networks, SentAgain};

/// Cases after which the fence's conntrack and fragment state is cleared.
const CASES: usize = 100;

/// Sends at least `frames` frames of a family, and every member at least once.
pub fn attack(networks: &mut Networks, family: &Family, frames: u64, seed: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let (start, before) = (Instant::now(), networks.enforce.rejects()?);
    let mut generator = Generator::new(*family, seed);
    if networks.topology() == Topology::Routed {
        // A router forwards few of the mutated frames, so they would prove little.
        generator = generator.unchanged();
    }
    let mut held = None;
    while tally.sent < frames || generator.has_members_left() || held.is_some() {
        crate::interrupt::check()?;
        let run = next_run(&mut generator, &mut held, frames.saturating_sub(tally.sent));
        for result in networks.run(run)? {
            tally.count(&result);
        }
    }
    let counted = networks.enforce.rejects()?.since(&before);
    tally.rejects.limit(start.elapsed(), counted);
    Ok(tally)
}

/// The cases of the next run, with at least `frames` frames if they are not too many. Cases that
/// share their ends are in different runs: the one that must wait is held for the next.
fn next_run(generator: &mut Generator, held: &mut Option<Case>, frames: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    let (mut count, mut shared) = (0, false);
    while cases.len() < CASES {
        let case = match held.take() {
            Some(case) => case,
            None if count < frames || generator.has_members_left() => generator.next_case(),
            None => break,
        };
        if case.shares_its_ends() && std::mem::replace(&mut shared, true) {
            *held = Some(case);
            break;
        }
        count += case.frames.len() as u64;
        cases.push(case);
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_run_has_two_cases_that_share_their_ends_and_no_case_is_left_out() {
        for family in FAMILIES {
            let mut expected = Generator::new(*family, 3);
            let (mut generator, mut held) = (Generator::new(*family, 3), None);
            let mut seen = 0;
            for _ in 0..30 {
                let run = next_run(&mut generator, &mut held, 150);
                let shared = run.iter().filter(|case| case.shares_its_ends()).count();
                assert!(shared <= 1, "{}: {shared}", family.name);
                seen += run.len();
                for case in run {
                    assert_eq!(case.frames, expected.next_case().frames, "{}", family.name);
                }
            }
            assert!(seen > 30, "{}: {seen} cases", family.name);
        }
    }
}
