//! Attacks on the wire: an attacker with root inside one workload crafts any frame on its
//! interface.
//!
//! Every frame is sent in three networks that differ only in their fence: none (the control: a
//! frame that does not arrive here proves nothing), one that enforces and one that observes. A tap
//! at the target decides whether a frame arrived, never the agent's own counters.
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
pub mod report;
pub mod rng;
pub mod run;
pub mod wire;

use anyhow::Result;

pub use families::FAMILIES;
pub use family::Family;
pub use generate::Generator;
pub use report::Tally;
pub use run::Networks;

/// Cases after which the fence's conntrack and fragment state is cleared.
const CASES: usize = 100;

/// Sends at least `frames` frames of a family, and every member at least once.
pub fn attack(networks: &mut Networks, family: &Family, frames: u64, seed: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut generator = Generator::new(*family, seed);
    while tally.sent < frames || generator.has_members_left() {
        crate::interrupt::check()?;
        let mut cases = Vec::new();
        let mut count = 0;
        while cases.len() < CASES && (tally.sent + count < frames || generator.has_members_left()) {
            let case = generator.next_case();
            count += u64::try_from(case.frames.len())?;
            cases.push(case);
        }
        for result in networks.run(cases)? {
            tally.count(&result);
        }
    }
    Ok(tally)
}
