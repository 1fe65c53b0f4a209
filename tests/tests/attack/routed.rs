//! The families that a node which routes forwards, with and without a fence.

use anyhow::{Result, ensure};
use ringfence_testbed::attack::{Networks, ROUTED_FAMILIES, Topology, attack, wire};

use crate::families::{members, seed};

const FRAMES: u64 = 500;

#[test]
fn discovery_is_no_way_through_a_router() -> Result<()> {
    let mut networks = Networks::new(Topology::Routed)?;
    wire::stay_on_one_cpu()?;
    for family in ROUTED_FAMILIES {
        members(&mut networks, family)?;
        let tally = attack(&mut networks, family, FRAMES, seed())?;
        println!("{}", tally.row(family.name));
        ensure!(
            tally.is_good() && tally.denied > 0 && tally.permitted > 0,
            "seed {}\n{}\n{}",
            seed(),
            tally.row(family.name),
            tally.failures_text()
        );
    }
    Ok(())
}
