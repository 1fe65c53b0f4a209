//! The time of map writes, made one at a time by the agent's code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use anyhow::Result;
use ringfence::datapath::Datapath as _;
use ringfence::plan::Action;
use ringfence_common::ids::IdentityId;
use ringfence_testbed::interrupt;

use crate::loaded::LoadedPrograms;

/// Number of addresses that are added, changed and removed.
const ADDRESSES: u32 = 10_000;

/// A kind of write, and samples of one write in nanoseconds.
pub(crate) type Kind = (&'static str, Vec<f64>);

/// Makes the write for an address.
type Write = fn(IpAddr) -> Action;

/// Measures on the world that is published.
pub(crate) fn measure(loaded: &mut LoadedPrograms, rounds: usize) -> Result<Vec<Kind>> {
    let addresses_of = |number| {
        [
            IpAddr::V4(Ipv4Addr::from_bits(0x64_40_00_00 + number)),
            IpAddr::V6(Ipv6Addr::from_bits((0xfd64 << 112) + u128::from(number))),
        ]
    };
    let addresses: Vec<IpAddr> = (0..ADDRESSES).flat_map(addresses_of).collect();
    let mut kinds: [(Kind, Write); 4] = [
        (("put a new address", Vec::new()), |at| {
            Action::PutAddress(at, IdentityId(1))
        }),
        (("put a known address", Vec::new()), |at| {
            Action::PutAddress(at, IdentityId(2))
        }),
        (("bump an address's epoch", Vec::new()), Action::BumpEpoch),
        (("delete an address", Vec::new()), Action::DeleteAddress),
    ];
    for _ in 0..rounds {
        for ((_, samples), action) in &mut kinds {
            interrupt::check()?;
            let started = Instant::now();
            for at in &addresses {
                loaded.datapath.write(&action(*at))?;
            }
            samples.push(started.elapsed().as_secs_f64() * 1e9 / addresses.len() as f64);
        }
    }
    Ok(kinds.into_iter().map(|(kind, _)| kind).collect())
}
