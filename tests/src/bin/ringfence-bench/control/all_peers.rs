//! Checks the full effect of a request with a datagram from every remote workload.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};

use crate::bench_node::{ALL, Network};
use crate::world;

/// Datagrams sent before receiving: fewer than a socket's buffer holds.
const BATCH: usize = 50;

/// Checks that a datagram from each remote workload arrives at the target, over both families.
pub(super) fn check_all_allowed(network: &Network, peers: u32) -> Result<()> {
    for v6 in [false, true] {
        let at = SocketAddr::new(network.target.ip(v6), ALL);
        let receiver = network.target.ns.run(|| UdpSocket::bind(at))??;
        receiver.set_nonblocking(true)?;
        let all: Vec<IpAddr> = (0..peers)
            .map(world::remote)
            .map(|[ip4, ip6]| if v6 { ip6 } else { ip4 })
            .collect();
        let missing = network.outside.ns.run(|| missing(&all, at, &receiver))??;
        ensure!(
            missing.is_empty(),
            "{} of {peers} workloads are not allowed, among them {:?}",
            missing.len(),
            missing.iter().min()
        );
    }
    Ok(())
}

/// The addresses whose datagram did not arrive. A veth pair delivers before the sender's system
/// call returns, so there is no need to wait.
fn missing(all: &[IpAddr], at: SocketAddr, receiver: &UdpSocket) -> Result<HashSet<IpAddr>> {
    let mut missing: HashSet<IpAddr> = all.iter().copied().collect();
    for batch in all.chunks(BATCH) {
        for from in batch {
            let sender = UdpSocket::bind(SocketAddr::new(*from, 0));
            let sender = sender.with_context(|| format!("sending from {from}"))?;
            sender.send_to(&[], at)?;
        }
        loop {
            match receiver.recv_from(&mut []) {
                Ok((_, from)) => missing.remove(&from.ip()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("receiving a datagram"),
            };
        }
    }
    Ok(missing)
}
