//! Connections that live while policy or mode changes under them.

use anyhow::{Result, ensure};
use ringfence_testbed::{Agent, Delivery, End, Stream};

use crate::world::{SHORT, SHUT, SOON, World, apply, run};

/// The server's fence lets its clients in on one port.
fn shop(port: u16) -> String {
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

/// The client's own fence lets it out to the same port.
fn careful(port: u16) -> String {
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

fn world() -> Result<World> {
    World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/server", &[("app", "server")])
}

fn open(world: &World, v6: bool, port: u16) -> Result<Stream> {
    let (client, server) = (&world.at("client").workload, &world.at("server").workload);
    Stream::open(&client.ns, &server.ns, server.ip(v6), port, SOON)
}

const ENDS: [End; 2] = [End::Client, End::Server];

fn other(end: End) -> End {
    match end {
        End::Client => End::Server,
        End::Server => End::Client,
    }
}

/// A stream on each of two ports, for each family and each end that will speak first afterwards.
struct Pair {
    stays: Stream,
    goes: Stream,
    first: End,
}

/// Streams over ports of which one is allowed in the end; both must work now.
fn pairs(world: &World, stays: u16, goes: u16) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (index, (v6, first)) in [false, true]
        .into_iter()
        .flat_map(|v6| ENDS.map(|end| (v6, end)))
        .enumerate()
    {
        // One listener each: several share a port on the two families and rebinding is free.
        let index = u16::try_from(index)?;
        let mut pair = Pair {
            stays: open(world, v6, stays + index)?,
            goes: open(world, v6, goes + index)?,
            first,
        };
        for end in ENDS {
            pair.stays.expect_delivered(end, SOON)?;
            pair.goes.expect_delivered(end, SOON)?;
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

fn outlive(pairs: &mut [Pair]) -> Result<()> {
    for pair in pairs {
        pair.goes.expect_silent(pair.first, SHORT)?;
        pair.goes.expect_silent(other(pair.first), SHORT)?;
        pair.stays.expect_delivered(pair.first, SOON)?;
        pair.stays.expect_delivered(other(pair.first), SOON)?;
    }
    Ok(())
}

/// Ranges of four ports.
const STAYS: u16 = 9200;
const GOES: u16 = 9300;

fn ranged(policy: &str, first: u16) -> String {
    policy.replace(
        &format!("tcp/{first}"),
        &format!("tcp/{first}-{}", first + 3),
    )
}

#[test]
fn from_observe_to_enforce_what_is_allowed_lives_and_the_rest_dies() -> Result<()> {
    let world = world()?;
    let policies = ranged(&shop(STAYS), STAYS) + &ranged(&careful(STAYS), STAYS);
    let agent = world.agent("observe", &policies)?;
    let mut pairs = pairs(&world, STAYS, GOES)?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    outlive(&mut pairs)?;
    // And back: nothing was torn down, only held up. TCP repeats itself after a while.
    run(&agent, &["mode", "set", "shop", "observe"])?;
    for pair in &mut pairs {
        pair.goes.expect_delivered(pair.first, SOON)?;
    }
    Ok(())
}

#[test]
fn a_connection_older_than_the_agent_lives_if_policy_allows_it() -> Result<()> {
    let world = world()?;
    let mut pairs = pairs(&world, STAYS, GOES)?;
    // Were a direction open, a connection could as well have been opened by its other end.
    let policies = ranged(&shop(STAYS), STAYS) + &ranged(&careful(STAYS), STAYS) + SHUT;
    let _agent = world.agent("enforce", &policies)?;
    outlive(&mut pairs)
}

#[test]
fn a_first_policy_cuts_what_it_does_not_allow() -> Result<()> {
    let world = world()?;
    let agent = world.agent("enforce", "")?;
    let mut pairs = pairs(&world, STAYS, GOES)?;
    apply(&agent, &ranged(&shop(STAYS), STAYS))?;
    outlive(&mut pairs)
}

/// Revokes by one side's policy alone, so that this side's fence is what stops both directions.
fn revoke(agent: &Agent, world: &World, before: &str, after: &str) -> Result<()> {
    apply(agent, before)?;
    let mut streams = Vec::new();
    for v6 in [false, true] {
        for first in ENDS {
            let mut stream = open(world, v6, 0)?;
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
        // The other end's repeated segment may come first; nothing was lost for good.
        let delivery = stream.deliver(*first, SOON)?;
        ensure!(
            delivery == Delivery::Delivered,
            "granted again: {delivery:?}"
        );
    }
    Ok(())
}

#[test]
fn a_revoked_connection_dies_on_its_next_packet_in_both_directions() -> Result<()> {
    let world = world()?;
    let agent = world.agent("enforce", "")?;
    let any_port = |policy: String| policy.replace("tcp/1", "tcp");
    revoke(&agent, &world, &any_port(shop(1)), &shop(1))?;
    revoke(&agent, &world, &any_port(careful(1)), &careful(1))
}
