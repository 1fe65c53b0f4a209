//! Files that change while the agent runs: policies under load, relabelled and new workloads.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Attributes, Load, LoadSpec, Proto};

use crate::world::{SOON, Tcp, Try, Udp, World, apply, apply_inventory, run};

/// Everything that the load needs; `extra` makes another table of it.
fn allowing(extra: u16) -> String {
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = ["tcp/8080", "udp/53", "tcp/{extra}"]

[[policy]]
name = "client"
namespace = "shop"
subject = "app=client"

[[policy.egress]]
to = [{{ pods = "app=server" }}]
ports = ["tcp/8080", "udp/53", "tcp/{extra}", "tcp/9011"]
"#
    )
}

/// Load over TCP and UDP in both families, at a rate that leaves the machine some air.
pub(crate) fn load(world: &World, from: &str, to: &str) -> Result<Vec<Load>> {
    let spec = LoadSpec {
        clients: 1,
        // A lost first packet of a connection would come again after a second, unnoticed.
        reply_within: Duration::from_millis(900),
        interval: Duration::from_millis(2),
    };
    let mut loads = Vec::new();
    for ip in world.at(to).workload.ips() {
        for (proto, port) in [(Proto::Tcp, 8080), (Proto::Udp, 53)] {
            let ns = &world.at(from).workload.ns;
            loads.push(Load::start(ns, proto, SocketAddr::new(ip, port), spec)?);
        }
    }
    for load in &loads {
        load.wait_for_answers(5, SOON)?;
    }
    Ok(loads)
}

/// Ends loads, of which not one request may have failed.
pub(crate) fn unharmed(loads: Vec<Load>) -> Result<()> {
    for load in loads {
        load.wait_for_answers(5, SOON)?;
        let totals = load.stop()?;
        ensure!(totals.failed == 0 && totals.answered > 10, "{totals:?}");
    }
    Ok(())
}

#[test]
fn fifty_reloads_under_load_lose_nothing() -> Result<()> {
    let world = World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/server", &[("app", "server")])?;
    let agent = world.agent("enforce", &allowing(9000))?;
    let loads = load(&world, "client", "server")?;
    let denied: [Try; 1] = [("client", "server", Tcp(9011))];
    for round in 0..50 {
        let extra = if round % 2 == 0 { 9004 } else { 9005 };
        apply(&agent, &allowing(extra))?;
        if round % 10 == 9 {
            world.vanish(&denied)?;
        }
    }
    unharmed(loads)?;
    world.arrive(&[("client", "server", Tcp(9005))])?;
    world.vanish(&[("client", "server", Tcp(9004))])?;
    world.set_mode(&agent, "observe")?;
    world.arrive(&denied).context("the control")
}

const WEB_ONLY: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=web" }]
"#;

#[test]
fn a_peer_is_what_the_inventory_says_now() -> Result<()> {
    let mut world = World::new(&[("shop", &[])])?
        .labelled("shop/server", &[("app", "server")])?
        .labelled("shop/peer", &[("app", "other")])?;
    let agent = world.agent("enforce", WEB_ONLY)?;
    let tries: [Try; 2] = [("peer", "server", Tcp(8080)), ("peer", "server", Udp(53))];
    world.vanish(&tries)?;

    world.at_mut("peer").attributes = Attributes::labels(&[("app", "web")]);
    apply_inventory(&agent, world.inventory())?;
    world.arrive(&tries).context("a peer that has become web")?;
    let server = &world.at("server").workload;
    let peer = &world.at("peer").workload;
    let mut streams = Vec::new();
    for ip in server.ips() {
        let stream = ringfence_testbed::Stream::open(&peer.ns, &server.ns, ip, 0, SOON)?;
        streams.push(stream);
    }

    world.at_mut("peer").attributes = Attributes::labels(&[("app", "other")]);
    apply_inventory(&agent, world.inventory())?;
    world
        .vanish(&tries)
        .context("a peer that is web no longer")?;
    for stream in &mut streams {
        stream.expect_silent(ringfence_testbed::End::Client, crate::world::SHORT)?;
    }

    // A new workload, known to the inventory only after it has tried.
    let late = world.node.workload("shop", "late")?;
    world.adopt(late, Attributes::labels(&[("app", "web")]))?;
    let tries: [Try; 2] = [("late", "server", Tcp(8080)), ("late", "server", Udp(53))];
    world
        .vanish(&tries)
        .context("a workload that no inventory knows")?;
    apply_inventory(&agent, world.inventory())?;
    world.arrive(&tries).context("a new workload")?;

    // And gone from the inventory, though not from the wire.
    let late = world.members.pop().context("late")?;
    let without = world.inventory();
    world.members.push(late);
    apply_inventory(&agent, without)?;
    world.vanish(&tries).context("a removed workload")?;
    world.set_mode(&agent, "observe")?;
    // The kernel takes the fence off the interface of what is gone in its own time; TCP asks again.
    world
        .arrive(&tries[..1])
        .context("a fence that is taken off")?;
    world.arrive(&tries).context("the control")
}

#[test]
fn a_bad_policy_file_changes_nothing_but_the_status() -> Result<()> {
    let world = World::new(&[("shop", &[])])?
        .labelled("shop/server", &[("app", "server")])?
        .labelled("shop/web", &[("app", "web")])?
        .labelled("shop/peer", &[("app", "other")])?;
    let agent = world.agent("enforce", WEB_ONLY)?;
    let allowed: [Try; 1] = [("web", "server", Tcp(8080))];
    let denied: [Try; 1] = [("peer", "server", Tcp(8080))];
    let bad = WEB_ONLY.replace("from = [{ pods", "form = [{ pods");
    agent.write_policies(&bad)?;
    let error = || -> Result<Option<String>> {
        let status = agent.cli_json(&["status"])?;
        let sources = status["sources"].as_array().context("sources")?.clone();
        let policies = sources.iter().find(|source| source["kind"] == "policies");
        let policies = policies.context("a policies source")?;
        let state = policies["state"].as_str().context("a state")?;
        let error = policies["error"].as_str().map(str::to_owned);
        ensure!((state == "error") == error.is_some(), "{policies}");
        Ok(error)
    };
    let mut found = None;
    agent.wait_until(
        || {
            found = error()?;
            Ok(found.is_some())
        },
        SOON,
        "an error in the status",
    )?;
    let found = found.context("an error")?;
    let line = bad
        .lines()
        .position(|l| l.contains("form"))
        .context("a line")?
        + 1;
    ensure!(
        found.contains(&format!("policies.toml:{line}:1")),
        "{found}"
    );
    ensure!(found.contains("form"), "{found}");
    for _ in 0..3 {
        world.arrive(&allowed).context("the last good policies")?;
        world.vanish(&denied).context("the last good policies")?;
    }
    ensure!(run(&agent, &["policies"])?.contains("shop/server"));

    let wider = WEB_ONLY.replace("app=web", "app in (web,other)");
    apply(&agent, &wider)?;
    ensure!(error()?.is_none(), "mended");
    world.arrive(&denied).context("the mended file is in force")
}
