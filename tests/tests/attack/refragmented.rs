//! Fragments through a node that tracks connections: it reassembles what it forwards and cuts it
//! anew, and the new pieces do not tell which interface they came by. They are not the node's own.

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
/// IPv4, and IPv6 by the fast and the slow path of cutting.
const PIECES: [Pieces; 3] = [Pieces::Four, Pieces::Six, Pieces::SixUneven];
const POLICY: &str =
    "[[policy]]\nname = \"closed\"\nnamespace = \"shop\"\nsubject = \"\"\ningress = []\n";

/// What a datagram comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pieces {
    Four,
    Six,
    /// The first piece has destination options and the others have none: so there is no room before
    /// theirs for the headers of the new pieces, and the node has to cut the packet by its slow path,
    /// whose pieces do not tell where they came from (`ip6_fragment`). Those of its fast path do.
    SixUneven,
}

#[test]
fn fragments_that_the_node_cuts_anew_are_not_its_own() -> Result<()> {
    let node = Node::new()?;
    let target = node.workload("shop", "target")?;
    let outside = node.outside("outside")?;
    let server = Server::start(&target.ns, &[(Proto::Udp, 9000)])?;
    for v6 in [false, true] {
        track_connections(&node.ns, v6)?;
    }
    for pieces in PIECES {
        ensure!(
            arrives(&node, &outside, &target, pieces, SOON)?,
            "control: without a fence, {pieces:?}"
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
    for pieces in PIECES {
        ensure!(
            !arrives(&node, &outside, &target, pieces, SHORT)?,
            "denied fragments arrived, {pieces:?}"
        );
    }
    for v6 in [false, true] {
        let to = SocketAddr::new(target.ip(v6), 9000);
        let own = Probe::new(Proto::Udp, to).size(4000).seen_by(&server);
        let outcomes = run_all(&node.ns, &[own], SOON)?;
        ensure!(
            outcomes == [Outcome::Answered],
            "the node's own fragments, v6 {v6}: {outcomes:?}"
        );
    }
    let output = agent.cli(&["mode", "set", "shop", "observe"])?;
    ensure!(output.status.success(), "mode set");
    for pieces in PIECES {
        ensure!(
            arrives(&node, &outside, &target, pieces, SOON)?,
            "control: observe, {pieces:?}"
        );
    }
    Ok(())
}

/// Whether a datagram in two fragments, of odd sizes, gets from the host outside to the workload.
fn arrives(
    node: &Node,
    from: &Workload,
    to: &Workload,
    pieces: Pieces,
    wait: Duration,
) -> Result<bool> {
    let (nonce, v6) = (Nonce::fresh(), pieces != Pieces::Four);
    let (source, destination) = (from.ip(v6), to.ip(v6));
    let payload = nonce.header().repeat(125);
    let datagram = with_checksum(source, destination, craft::udp(7, 9999, &payload));
    let (head, rest) = datagram.split_at_checked(1200).context("a long datagram")?;
    let gateway = mac(&node.ns, &from.interface)?;
    let own = mac(&from.ns, "eth0")?;
    let tap = Tap::open(&to.ns, "eth0")?;
    // A piece of its own for each attempt: leftovers of the last one must not complete it.
    let id = u16::from_be_bytes([nonce.header()[14], nonce.header()[15]]);
    for (place, piece) in [((0, true), head), ((150, false), rest)] {
        let frame = craft::fragment((source, destination), 17, place, id, piece);
        let packet = frame.get(craft::IP..).context("a packet")?;
        let packet = match pieces {
            Pieces::Four => with_header_checksum(packet),
            Pieces::SixUneven if place.1 => longer_by_options(packet),
            Pieces::Six | Pieces::SixUneven => packet.to_vec(),
        };
        let frame = ethernet(gateway, own, craft::ethertype_of(destination), &packet);
        inject(&from.ns, "eth0", &frame)?;
    }
    tap.saw(&nonce.header(), wait)
}

/// Destination options between an IPv6 header and a fragment header.
fn longer_by_options(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let length = packet.get(4..6).and_then(<[u8]>::first_chunk);
    let length = length.map_or(0, |length| u16::from_be_bytes(*length)) + 8;
    craft::write(&mut packet, 4, &length.to_be_bytes());
    craft::write(&mut packet, 6, &[60]);
    // The next header is the fragment's; six bytes of padding.
    packet.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0]);
    packet
}

/// Conntrack drops what does not add up.
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
