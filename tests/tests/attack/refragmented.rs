//! Fragments forwarded by a node with conntrack: it reassembles packets and fragments them again,
//! and the new fragments have no ingress interface. They must not be taken for packets of the host.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::attack::craft;
use ringfence_testbed::frame::{Tap, ethernet, inject, mac};
use ringfence_testbed::probe::run_all;
use ringfence_testbed::{
    Agent, AgentSpec, Attributes, Node, Nonce, Outcome, Probe, Proto, Server, Workload,
};

use crate::netfilter::track_connections;

const SOON: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_millis(400);
/// IPv4, and IPv6 by the fast and the slow path of fragmentation.
const FRAGMENTS: [Fragments; 3] = [Fragments::Four, Fragments::Six, Fragments::SixUneven];
const POLICY: &str =
    "[[policy]]\nname = \"closed\"\nnamespace = \"shop\"\nsubject = \"\"\ningress = []\n";

/// The fragments of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fragments {
    Four,
    Six,
    /// The first fragment has destination options and the others have not. There is then no room in
    /// front of the others for the new headers, and the node uses its slow path of fragmentation,
    /// whose fragments have no ingress interface (`ip6_fragment`). Those of the fast path have one.
    SixUneven,
}

#[test]
fn refragmented_packets_are_not_taken_for_host_packets() -> Result<()> {
    let node = Node::new()?;
    let target = node.workload("shop", "target")?;
    let outside = node.outside("outside")?;
    let server = Server::start(&target.ns, &[(Proto::Udp, 9000)])?;
    for v6 in [false, true] {
        track_connections(&node.ns, v6)?;
    }
    for fragments in FRAGMENTS {
        ensure!(
            arrives(&node, &outside, &target, fragments, SOON)?,
            "control: without a fence, {fragments:?}"
        );
    }
    let inventory = node.inventory().namespace("shop", &[]);
    let spec = AgentSpec {
        inventory: inventory.local(&target, &Attributes::default()).build(),
        policies: POLICY.to_owned(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let agent = Agent::start(&node, &spec)?;
    for fragments in FRAGMENTS {
        ensure!(
            !arrives(&node, &outside, &target, fragments, SHORT)?,
            "denied fragments arrived, {fragments:?}"
        );
    }
    for v6 in [false, true] {
        let to = SocketAddr::new(target.ip(v6), 9000);
        let own = Probe::new(Proto::Udp, to).size(4000).seen_by(&server);
        let outcomes = run_all(&node.ns, &[own], SOON)?;
        ensure!(
            outcomes == [Outcome::Answered],
            "fragments of the host, v6 {v6}: {outcomes:?}"
        );
    }
    let output = agent.cli(&["mode", "set", "shop", "observe"])?;
    ensure!(output.status.success(), "mode set");
    for fragments in FRAGMENTS {
        ensure!(
            arrives(&node, &outside, &target, fragments, SOON)?,
            "control: observe, {fragments:?}"
        );
    }
    Ok(())
}

/// Whether a datagram in two fragments of unequal size gets from the external host to the workload.
fn arrives(
    node: &Node,
    from: &Workload,
    to: &Workload,
    fragments: Fragments,
    wait: Duration,
) -> Result<bool> {
    let (nonce, v6) = (Nonce::fresh(), fragments != Fragments::Four);
    let (source, destination) = (from.ip(v6), to.ip(v6));
    let payload = nonce.header().repeat(125);
    let datagram = with_checksum(source, destination, craft::udp(7, 9999, &payload));
    let (head, rest) = datagram.split_at_checked(1200).context("a long datagram")?;
    let gateway = mac(&node.ns, &from.interface)?;
    let own = mac(&from.ns, "eth0")?;
    let tap = Tap::open(&to.ns, "eth0")?;
    // A separate identification for each call: leftovers of the last one must not complete the
    // datagram.
    let id = u16::from_be_bytes([nonce.header()[14], nonce.header()[15]]);
    for (place, fragment) in [((0, true), head), ((150, false), rest)] {
        let frame = craft::fragment((source, destination), 17, place, id, fragment);
        let packet = frame.get(craft::IP..).context("a packet")?;
        let packet = match fragments {
            Fragments::Four => with_header_checksum(packet),
            Fragments::SixUneven if place.1 => with_destination_options(packet),
            Fragments::Six | Fragments::SixUneven => packet.to_vec(),
        };
        let frame = ethernet(gateway, own, craft::ethertype_of(destination), &packet);
        inject(&from.ns, "eth0", &frame)?;
    }
    tap.saw(&nonce.header(), wait)
}

/// Inserts destination options between the IPv6 header and the fragment header.
fn with_destination_options(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let length = packet.get(4..6).and_then(<[u8]>::first_chunk);
    let length = length.map_or(0, |length| u16::from_be_bytes(*length)) + 8;
    craft::write(&mut packet, 4, &length.to_be_bytes());
    craft::write(&mut packet, 6, &[60]);
    // Next header (fragment), length, and padding of six bytes.
    packet.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0]);
    packet
}

/// Fills in the UDP checksum: conntrack drops packets with a wrong one.
fn with_checksum(from: IpAddr, to: IpAddr, mut datagram: Vec<u8>) -> Vec<u8> {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let length = u16::try_from(datagram.len()).unwrap_or(0).to_be_bytes();
    let pseudo = [octets(from), octets(to), vec![0, 17, length[0], length[1]]].concat();
    let sum = ringfence_testbed::frame::checksum(&[&pseudo, &datagram]);
    craft::write(&mut datagram, 6, &sum.to_be_bytes());
    datagram
}

fn with_header_checksum(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    craft::write(&mut packet, 10, &[0, 0]);
    let sum = ringfence_testbed::frame::checksum(&[packet.get(..20).unwrap_or_default()]);
    craft::write(&mut packet, 10, &sum.to_be_bytes());
    packet
}
