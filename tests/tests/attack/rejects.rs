//! The limit of reject packets, on the wire and by what arrives at the senders.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringfence_common::reject::REJECTS_PER_SECOND;
use ringfence_testbed::attack::builder::CaseBuilder;
use ringfence_testbed::attack::case::Case;
use ringfence_testbed::attack::fixture::{self, Direction};
use ringfence_testbed::attack::rng::Rng;
use ringfence_testbed::eventually;

use crate::families::seed;
use crate::shared::{lock, networks};

const SOON: Duration = Duration::from_secs(10);
const FRAMES: u64 = 6 * REJECTS_PER_SECOND;

/// A rejected datagram of any direction and IP version.
fn datagram(rng: &mut Rng) -> Case {
    let directions = [Direction::Out, Direction::In];
    let (v6, direction) = (rng.one_in(2), rng.choose(&directions, Direction::Out));
    let peer = fixture::rejected_peer(v6, rng);
    let mut builder = CaseBuilder::new(rng, v6, direction);
    builder.peer = peer;
    builder.reject(builder.datagram(53));
    Case {
        member: "a datagram",
        mutated: false,
        frames: builder.into_frames(),
    }
}

#[test]
fn one_endpoint_causes_at_most_a_thousand_reject_packets_a_second() -> Result<()> {
    let networks = networks()?;
    let mut networks = lock(&networks)?;
    let mut rng = Rng::new(seed());
    let cases = (0..FRAMES).map(|_| datagram(&mut rng)).collect();
    let (start, before) = (Instant::now(), networks.enforce.rejects()?);
    let results = networks.run(cases)?;
    let counted = networks.enforce.rejects()?.since(&before);
    // The first and the last second are parts of one.
    let seconds = start.elapsed().as_secs() + 2;
    let arrived = results.iter().filter(|it| it.reject_packet.is_some());
    let arrived = arrived.count() as u64;
    println!("{arrived} reject packets in {seconds} s: {counted:?}");
    ensure!(
        arrived <= counted.sent && counted.sent <= seconds * REJECTS_PER_SECOND,
        "{arrived} arrived in {seconds} s: {counted:?}"
    );
    ensure!(arrived > 0, "void: {counted:?}");
    ensure!(counted.limited > 0 || seconds > 7, "void: {counted:?}");
    for result in &results {
        ensure!(result.arrived.control, "void: {result:?}");
        ensure!(
            !result.leaked() && result.reject_fault().is_none(),
            "{result:?}"
        );
    }
    eventually(SOON, "the next second", || {
        let results = networks.run(vec![datagram(&mut rng)])?;
        let arrived = results.iter().any(|it| it.reject_packet.is_some());
        Ok(arrived.then_some(()))
    })
}
