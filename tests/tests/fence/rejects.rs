//! `action = "reject"`: the sender is told, and nothing arrives.

use std::io::{ErrorKind, Read as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_testbed::frame::{self, Tap, checksum};
use ringfence_testbed::{End, Stream, eventually};

use crate::world::{Ping, SOON, Tcp, Try, Udp, What, World, apply};

/// `closed` rejects what arrives, `quiet` what it sends; both deny two ports in silence.
const REJECT: &str = r#"
[[policy]]
name = "closed"
namespace = "shop"
subject = "app=closed"
[[policy.ingress]]
action = "deny"
ports = ["tcp/8081", "udp/9005"]
[[policy.ingress]]
action = "reject"
ports = ["tcp/8080", "udp/53", "icmp"]

[[policy]]
name = "quiet"
namespace = "shop"
subject = "app=quiet"
[[policy.egress]]
action = "deny"
ports = ["tcp/8081", "udp/9005"]
[[policy.egress]]
action = "reject"
ports = ["tcp/8080", "udp/53", "icmp"]
[[policy.egress]]
ports = ["tcp/9000"]
"#;

const REJECT_ALL: &str = r#"
[[policy]]
name = "closed"
namespace = "shop"
subject = "app=closed"
[[policy.ingress]]
action = "reject"
"#;

/// Who is rejected by whom: within the node, from outside, to the outside, to the node.
const PAIRS: [(&str, &str); 5] = [
    ("client", "closed"),
    ("ext", "closed"),
    ("quiet", "client"),
    ("quiet", "ext"),
    ("quiet", "node"),
];

fn world() -> Result<World> {
    World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/closed", &[("app", "closed")])?
        .labelled("shop/quiet", &[("app", "quiet")])?
        .labelled("ext", &[])
}

fn all(what: &[What]) -> Vec<Try> {
    let pairs = PAIRS.iter();
    pairs
        .flat_map(|(from, to)| what.iter().map(|what| (*from, *to, *what)))
        .collect()
}

fn seen(world: &World) -> Result<Vec<usize>> {
    world.members.iter().map(|m| m.server.seen()).collect()
}

#[test]
fn what_is_rejected_fails_at_once() -> Result<()> {
    let world = world()?;
    let agent = world.agent("observe", REJECT)?;
    let refused = all(&[Tcp(8080), Udp(53)]);
    let prohibited = all(&[Ping]);
    let silent = all(&[Tcp(8081), Udp(9005)]);
    let everything = [&refused[..], &prohibited, &silent].concat();
    world
        .arrive(&everything)
        .context("the control, in observe")?;

    world.set_mode(&agent, "enforce")?;
    let before = seen(&world)?;
    world.refused(&refused)?;
    world.prohibited(&prohibited)?;
    world.vanish(&silent).context("a deny beside the reject")?;
    ensure!(seen(&world)? == before, "something arrived");
    world
        .arrive(&[
            ("quiet", "client", Tcp(9000)),
            ("closed", "client", Tcp(8080)),
        ])
        .context("what no rule rejects")?;

    let page = agent.metrics()?;
    let sent = "ringfence_rejects_total{outcome=\"sent\"} ";
    ensure!(page.contains(sent), "{page}");
    ensure!(!page.contains(&format!("{sent}0\n")), "{page}");
    world.set_mode(&agent, "lockdown")?;
    world.vanish(&refused).context("lockdown is silent")?;
    world.set_mode(&agent, "enforce")?;
    apply(&agent, "")?;
    world.arrive(&everything).context("without the policy")
}

#[test]
fn a_live_connection_is_reset() -> Result<()> {
    let world = world()?;
    let agent = world.agent("enforce", "")?;
    let (client, closed) = (&world.at("client").workload, &world.at("closed").workload);
    for ip in closed.ips() {
        for end in [End::Client, End::Server] {
            apply(&agent, "")?;
            let mut stream = Stream::open(&client.ns, &closed.ns, ip, 0, SOON)?;
            stream.expect_delivered(End::Client, SOON)?;
            apply(&agent, REJECT_ALL)?;
            let mut socket = stream.socket(end);
            socket.write_all(b"after the change")?;
            // Who sends is told; the other end hears nothing of it.
            eventually(SOON, "a reset", || match socket.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(())),
                other => bail!("{ip}, {end:?}: {other:?}"),
            })?;
        }
    }
    Ok(())
}

/// The first TCP segment with RST that arrives, from its IP header on.
fn reset_at(tap: &Tap) -> Result<Vec<u8>> {
    let flags = |frame: &[u8]| match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, packet @ ..] if packet.get(9) == Some(&6) => {
            packet.get(33).copied()
        }
        _ => None,
    };
    let found = tap.find(SOON, |frame| {
        flags(frame).is_some_and(|flags| flags & 4 != 0)
    })?;
    Ok(found.context("a reset")?[14..54].to_vec())
}

/// The sum over pseudo-header and segment, and over the pseudo-header alone.
fn sums(packet: &[u8]) -> (u16, u16) {
    let pseudo = [&packet[12..20], &[0, 6, 0, 20]].concat();
    (checksum(&[&pseudo, &packet[20..40]]), checksum(&[&pseudo]))
}

#[test]
fn a_checksum_is_left_to_the_kernel_if_the_packet_left_it() -> Result<()> {
    let world = world()?;
    let agent = world.agent("enforce", REJECT)?;
    let (quiet, client) = (&world.at("quiet").workload, &world.at("client").workload);
    let tap = Tap::open(&quiet.ns, "eth0")?;

    // A socket leaves the sum to the device: what is there is the pseudo-header's.
    world.refused(&[("quiet", "client", Tcp(8080))])?;
    let packet = reset_at(&tap)?;
    let (_, pseudo) = sums(&packet);
    ensure!(
        packet[36..38] == (!pseudo).to_be_bytes(),
        "{packet:02x?} is not for the kernel to finish"
    );

    // A frame made by hand has none to be finished.
    let to = frame::mac(&world.node.ns, &quiet.interface)?;
    let from = frame::mac(&quiet.ns, "eth0")?;
    let mut segment = [&40000_u16.to_be_bytes()[..], &8080_u16.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let packet = frame::ipv4(quiet.ip4, client.ip4, 6, &segment);
    let syn = frame::ethernet(to, from, frame::IPV4, &packet);
    frame::inject(&quiet.ns, "eth0", &syn)?;
    let packet = reset_at(&tap)?;
    ensure!(packet[28..32] == [0, 0, 0, 10], "{packet:02x?}");
    ensure!(sums(&packet).0 == 0, "{packet:02x?} sums up wrong");
    drop(agent);
    Ok(())
}
