//! `action = "reject"`: the sender receives a reject packet, and nothing arrives.

use std::io::{ErrorKind, Read as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_testbed::frame::{self, Tap, checksum};
use ringfence_testbed::{End, Stream, eventually};

use crate::testbed::{Ping, ProbeSpec, SOON, Tcp, Testbed, Traffic, Udp, apply};

/// `closed` rejects on ingress, `quiet` on egress; both silently deny two ports.
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

/// Sender and receiver of rejected packets: within the node, from an external host, to an external
/// host, to the host.
const PAIRS: [(&str, &str); 5] = [
    ("client", "closed"),
    ("ext", "closed"),
    ("quiet", "client"),
    ("quiet", "ext"),
    ("quiet", "node"),
];

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/closed", &[("app", "closed")])?
        .with_labels("shop/quiet", &[("app", "quiet")])?
        .with_labels("ext", &[])
}

fn all(what: &[Traffic]) -> Vec<ProbeSpec> {
    let pairs = PAIRS.iter();
    pairs
        .flat_map(|(from, to)| what.iter().map(|what| (*from, *to, *what)))
        .collect()
}

fn seen(testbed: &Testbed) -> Result<Vec<usize>> {
    testbed.hosts.iter().map(|m| m.server.seen()).collect()
}

#[test]
fn rejected_probes_fail_at_once() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("observe", REJECT)?;
    let refused = all(&[Tcp(8080), Udp(53)]);
    let prohibited = all(&[Ping]);
    let silent = all(&[Tcp(8081), Udp(9005)]);
    let everything = [&refused[..], &prohibited, &silent].concat();
    testbed
        .expect_answered(&everything)
        .context("the control, in observe")?;

    testbed.set_mode(&agent, "enforce")?;
    let before = seen(&testbed)?;
    testbed.expect_refused(&refused)?;
    testbed.expect_prohibited(&prohibited)?;
    testbed
        .expect_silent(&silent)
        .context("ports with action deny")?;
    ensure!(seen(&testbed)? == before, "a rejected packet arrived");
    testbed
        .expect_answered(&[
            ("quiet", "client", Tcp(9000)),
            ("closed", "client", Tcp(8080)),
        ])
        .context("ports that no rule rejects")?;

    let page = agent.metrics()?;
    let sent = "ringfence_rejects_total{outcome=\"sent\"} ";
    ensure!(page.contains(sent), "{page}");
    ensure!(!page.contains(&format!("{sent}0\n")), "{page}");
    testbed.set_mode(&agent, "lockdown")?;
    testbed
        .expect_silent(&refused)
        .context("lockdown is silent")?;
    testbed.set_mode(&agent, "enforce")?;
    apply(&agent, "")?;
    testbed
        .expect_answered(&everything)
        .context("without the policy")
}

#[test]
fn a_live_connection_is_reset() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", "")?;
    let (client, closed) = (
        &testbed.host("client").workload,
        &testbed.host("closed").workload,
    );
    for ip in closed.ips() {
        for end in [End::Client, End::Server] {
            apply(&agent, "")?;
            let mut stream = Stream::open(&client.ns, &closed.ns, ip, 0, SOON)?;
            stream.expect_delivered(End::Client, SOON)?;
            apply(&agent, REJECT_ALL)?;
            let mut socket = stream.socket(end);
            socket.write_all(b"after the change")?;
            // The sender receives a reset; the other end does not.
            eventually(SOON, "a reset", || match socket.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(())),
                other => bail!("{ip}, {end:?}: {other:?}"),
            })?;
        }
    }
    Ok(())
}

/// The first TCP segment with RST that arrives, starting with its IP header.
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

/// The checksums over the pseudo-header and segment, and over the pseudo-header alone.
fn sums(packet: &[u8]) -> (u16, u16) {
    let pseudo = [&packet[12..20], &[0, 6, 0, 20]].concat();
    (checksum(&[&pseudo, &packet[20..40]]), checksum(&[&pseudo]))
}

#[test]
fn a_reset_has_checksum_offload_if_the_rejected_packet_had_it() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", REJECT)?;
    let (quiet, client) = (
        &testbed.host("quiet").workload,
        &testbed.host("client").workload,
    );
    let tap = Tap::open(&quiet.ns, "eth0")?;

    // A socket uses checksum offload: the field contains the pseudo-header's sum.
    testbed.expect_refused(&[("quiet", "client", Tcp(8080))])?;
    let packet = reset_at(&tap)?;
    let (_, pseudo) = sums(&packet);
    ensure!(
        packet[36..38] == (!pseudo).to_be_bytes(),
        "{packet:02x?} has no checksum offload"
    );

    // An injected frame has no checksum offload.
    let to = frame::mac(&testbed.node.ns, &quiet.interface)?;
    let from = frame::mac(&quiet.ns, "eth0")?;
    let mut segment = [&40000_u16.to_be_bytes()[..], &8080_u16.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let packet = frame::ipv4(quiet.ip4, client.ip4, 6, &segment);
    let syn = frame::ethernet(to, from, frame::IPV4, &packet);
    frame::inject(&quiet.ns, "eth0", &syn)?;
    let packet = reset_at(&tap)?;
    ensure!(packet[28..32] == [0, 0, 0, 10], "{packet:02x?}");
    ensure!(sums(&packet).0 == 0, "{packet:02x?} has a wrong checksum");
    drop(agent);
    Ok(())
}
