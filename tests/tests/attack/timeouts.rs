//! Late replies: once the entry of a request has expired, its reply is denied.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_testbed::attack::fixture::{Direction, allowed_port, protocol};
use ringfence_testbed::attack::network::{Fence, Network, Topology};
use ringfence_testbed::attack::{craft, wire};
use ringfence_testbed::eventually;

/// Unreplied entries expire after 30 seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// One request for each late reply, because a reply that arrives keeps its entry alive.
const REQUESTS: u16 = 600;
const FIRST: u16 = 20_000;

/// A datagram and an echo request with one port and identifier, or the replies to them.
fn frames(v6: bool, direction: Direction, index: u16) -> [Vec<u8>; 2] {
    let own = ringfence_testbed::attack::fixture::workload(v6);
    let mut rng = ringfence_testbed::attack::rng::Rng::new(11);
    let peer = ringfence_testbed::attack::fixture::peer(v6, &mut rng);
    let (port, peer_port) = (FIRST + index, allowed_port(Direction::Out, protocol::UDP));
    let icmp = craft::icmp_of(v6);
    if direction == Direction::Out {
        let request = craft::udp(port, peer_port, b"request");
        [
            craft::ip_frame(own, peer, protocol::UDP, &request),
            craft::ip_frame(own, peer, icmp, &craft::echo(v6, port)),
        ]
    } else {
        let reply = craft::udp(peer_port, port, b"reply");
        [
            craft::ip_frame(peer, own, protocol::UDP, &reply),
            craft::ip_frame(peer, own, icmp, &craft::echo_reply(v6, port)),
        ]
    }
}

/// Sends frames in a direction and returns how many of them arrived.
fn arrived(
    network: &Network,
    direction: Direction,
    frames: Vec<Vec<u8>>,
    next: &mut u32,
) -> Result<usize> {
    for mut frame in frames {
        wire::mark(&mut frame, *next);
        *next += 1;
        network.sender(direction).send(&frame, None)?;
    }
    let mut sentinel = craft::ip_frame(
        [10, 9, 9, 9].into(),
        ringfence_testbed::attack::fixture::workload(false),
        protocol::UDP,
        &craft::udp(9, allowed_port(Direction::In, protocol::UDP), b"sentinel"),
    );
    if direction == Direction::Out {
        let request = craft::udp(9, allowed_port(Direction::Out, protocol::UDP), b"sentinel");
        let own = ringfence_testbed::attack::fixture::workload(false);
        sentinel = craft::ip_frame(own, [10, 9, 9, 8].into(), protocol::UDP, &request);
    }
    let number = *next;
    *next += 1;
    wire::mark(&mut sentinel, number);
    network.sender(direction).send(&sentinel, None)?;
    let mut count = 0;
    network
        .target(direction)
        .receive_until(number, |_| count += 1)?;
    Ok(count)
}

#[test]
fn replies_to_expired_requests_do_not_arrive() -> Result<()> {
    let network = Network::new(Fence::Enforce, Topology::Bridge)?;
    wire::stay_on_one_cpu()?;
    let mut next = 1;
    let of = |direction, index| {
        [false, true]
            .map(|v6| frames(v6, direction, index))
            .concat()
    };
    for index in 0..REQUESTS {
        let count = arrived(
            &network,
            Direction::Out,
            of(Direction::Out, index),
            &mut next,
        )?;
        ensure!(count == 4, "{count} of 4 requests arrived");
    }
    let count = arrived(&network, Direction::In, of(Direction::In, 0), &mut next)?;
    ensure!(count == 4, "control: {count} of 4 timely replies arrived");
    let mut indices = 1..REQUESTS;
    eventually(DEADLINE, "late replies dropped", || {
        // Limits the rate, so that there are requests left for later.
        std::thread::park_timeout(Duration::from_millis(150));
        let Some(index) = indices.next() else {
            anyhow::bail!("no request is left");
        };
        let count = arrived(&network, Direction::In, of(Direction::In, index), &mut next)?;
        Ok((count == 0).then_some(()))
    })
}
