//! Established connections while policy or mode changes.

use anyhow::{Result, ensure};
use ringfence_testbed::{Agent, Delivery, End, Stream};

use crate::testbed::{DENY_ALL, SHORT, SOON, Testbed, apply, run};

/// The server accepts its clients on one port.
fn ingress_policy(port: u16) -> String {
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = ["tcp/{port}"]
"#
    )
}

/// The client may connect to the server on the same port.
fn egress_policy(port: u16) -> String {
    format!(
        r#"
[[policy]]
name = "client"
namespace = "shop"
subject = "app=client"

[[policy.egress]]
to = [{{ pods = "app=server" }}]
ports = ["tcp/{port}"]
"#
    )
}

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])
}

fn open(testbed: &Testbed, v6: bool, port: u16) -> Result<Stream> {
    let (client, server) = (
        &testbed.host("client").workload,
        &testbed.host("server").workload,
    );
    Stream::open(&client.ns, &server.ns, server.ip(v6), port, SOON)
}

const ENDS: [End; 2] = [End::Client, End::Server];

fn other(end: End) -> End {
    match end {
        End::Client => End::Server,
        End::Server => End::Client,
    }
}

/// A stream on each of two ports, for each family and for each end that sends first after the
/// change.
struct Pair {
    kept: Stream,
    revoked: Stream,
    first: End,
}

/// Streams on ports of which only one remains allowed; all must work now.
fn pairs(testbed: &Testbed, kept: u16, revoked: u16) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (index, (v6, first)) in [false, true]
        .into_iter()
        .flat_map(|v6| ENDS.map(|end| (v6, end)))
        .enumerate()
    {
        // Each pair has its own ports, so that each has its own listener.
        let index = u16::try_from(index)?;
        let mut pair = Pair {
            kept: open(testbed, v6, kept + index)?,
            revoked: open(testbed, v6, revoked + index)?,
            first,
        };
        for end in ENDS {
            pair.kept.expect_delivered(end, SOON)?;
            pair.revoked.expect_delivered(end, SOON)?;
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

fn expect_revoked_and_kept(pairs: &mut [Pair]) -> Result<()> {
    for pair in pairs {
        pair.revoked.expect_silent(pair.first, SHORT)?;
        pair.revoked.expect_silent(other(pair.first), SHORT)?;
        pair.kept.expect_delivered(pair.first, SOON)?;
        pair.kept.expect_delivered(other(pair.first), SOON)?;
    }
    Ok(())
}

/// Ranges of four ports.
const KEPT: u16 = 9200;
const REVOKED: u16 = 9300;

fn ranged(policy: &str, first: u16) -> String {
    policy.replace(
        &format!("tcp/{first}"),
        &format!("tcp/{first}-{}", first + 3),
    )
}

#[test]
fn enforcing_stops_denied_connections_and_keeps_allowed_ones() -> Result<()> {
    let testbed = testbed()?;
    let policies = ranged(&ingress_policy(KEPT), KEPT) + &ranged(&egress_policy(KEPT), KEPT);
    let agent = testbed.agent("observe", &policies)?;
    let mut pairs = pairs(&testbed, KEPT, REVOKED)?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    expect_revoked_and_kept(&mut pairs)?;
    // In observe mode again, the connection continues: it was not reset, and TCP retransmits.
    run(&agent, &["mode", "set", "shop", "observe"])?;
    for pair in &mut pairs {
        pair.revoked.expect_delivered(pair.first, SOON)?;
    }
    Ok(())
}

#[test]
fn a_connection_older_than_the_agent_is_picked_up_if_policy_allows_it() -> Result<()> {
    let testbed = testbed()?;
    let mut pairs = pairs(&testbed, KEPT, REVOKED)?;
    // If a direction were open, the connection could be picked up as one that the other end opened.
    let policies =
        ranged(&ingress_policy(KEPT), KEPT) + &ranged(&egress_policy(KEPT), KEPT) + DENY_ALL;
    let _agent = testbed.agent("enforce", &policies)?;
    expect_revoked_and_kept(&mut pairs)
}

#[test]
fn a_first_policy_stops_connections_that_it_does_not_allow() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", "")?;
    let mut pairs = pairs(&testbed, KEPT, REVOKED)?;
    apply(&agent, &ranged(&ingress_policy(KEPT), KEPT))?;
    expect_revoked_and_kept(&mut pairs)
}

/// Revokes with one endpoint's policy only, so that its fence must stop both directions.
fn revoke(agent: &Agent, testbed: &Testbed, before: &str, after: &str) -> Result<()> {
    apply(agent, before)?;
    let mut streams = Vec::new();
    for v6 in [false, true] {
        for first in ENDS {
            let mut stream = open(testbed, v6, 0)?;
            for end in ENDS {
                stream.expect_delivered(end, SOON)?;
            }
            streams.push((stream, first));
        }
    }
    apply(agent, after)?;
    for (stream, first) in &mut streams {
        stream.expect_silent(*first, SHORT)?;
        stream.expect_silent(other(*first), SHORT)?;
    }
    apply(agent, before)?;
    for (stream, first) in &mut streams {
        // The other end's retransmission may arrive first; both are delivered eventually.
        let delivery = stream.deliver(*first, SOON)?;
        ensure!(
            delivery == Delivery::Delivered,
            "allowed again: {delivery:?}"
        );
    }
    Ok(())
}

#[test]
fn a_revoked_connection_is_denied_on_its_next_packet_in_both_directions() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", "")?;
    let any_port = |policy: String| policy.replace("tcp/1", "tcp");
    revoke(
        &agent,
        &testbed,
        &any_port(ingress_policy(1)),
        &ingress_policy(1),
    )?;
    revoke(
        &agent,
        &testbed,
        &any_port(egress_policy(1)),
        &egress_policy(1),
    )
}
