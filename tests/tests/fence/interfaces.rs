//! Interfaces that come late, or come back: fenced by themselves.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Addresses, Agent, Attributes};

use crate::world::{Ping, SOON, Tcp, Try, Udp, World};

const POLICIES: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080"]
"#;

const ALLOWED: [Try; 1] = [("client", "server", Tcp(8080))];
const DENIED: [Try; 3] = [
    ("client", "server", Tcp(8081)),
    ("client", "server", Udp(53)),
    ("client", "server", Ping),
];

/// Waits until the agent says that the workload's interface of this number is fenced.
fn fenced(world: &World, agent: &Agent, name: &str) -> Result<u32> {
    let interface = &world.at(name).workload.interface;
    let ifindex = world.node.ifindex(interface)?;
    let what = format!("a fence on {interface}, number {ifindex}");
    agent.wait_until(
        || {
            let endpoints = agent.cli_json(&["endpoints"])?;
            let endpoints = endpoints.as_array().context("a list")?.clone();
            Ok(endpoints.iter().any(|e| {
                e["interface"] == interface.as_str()
                    && e["ifindex"] == ifindex
                    && e["attached"] == true
            }))
        },
        SOON,
        &what,
    )?;
    Ok(ifindex)
}

#[test]
fn a_recreated_interface_is_fenced_again() -> Result<()> {
    let mut world = World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/server", &[("app", "server")])?;
    let agent = world.agent("enforce", POLICIES)?;
    let mut before = fenced(&world, &agent, "server")?;
    for _ in 0..3 {
        let World { node, members, .. } = &mut world;
        for member in members.iter_mut() {
            node.recreate(&mut member.workload)?;
        }
        let now = fenced(&world, &agent, "server")?;
        fenced(&world, &agent, "client")?;
        ensure!(now != before, "another number");
        before = now;
        world.vanish(&DENIED)?;
        world.arrive(&ALLOWED)?;
    }
    world.set_mode(&agent, "observe")?;
    world.arrive(&DENIED).context("the control")
}

#[test]
fn an_interface_may_come_after_the_agent() -> Result<()> {
    let mut world = World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/server", &[("app", "server")])?;
    // The inventory knows a workload whose interface does not exist yet.
    let server = world.members.pop().context("the server")?.workload;
    let (interface, at) = (
        server.interface.clone(),
        Addresses {
            ip4: server.ip4,
            ip6: server.ip6,
        },
    );
    let attributes = Attributes::labels(&[("app", "server")]);
    let inventory = world.inventory().local(&server, &attributes);
    world.node.remove(server)?;
    let agent = world.agent("enforce", "")?;
    agent.write_inventory(&inventory.build())?;
    crate::world::apply(&agent, POLICIES)?;
    let absent = agent.cli_json(&["endpoints"])?;
    let listed = absent.as_array().context("a list")?.iter();
    let listed: Vec<_> = listed
        .filter(|e| e["interface"] == interface.as_str())
        .collect();
    ensure!(
        listed.len() == 1 && listed[0]["attached"] == false && listed[0]["ifindex"].is_null(),
        "{absent}"
    );

    let server = world.node.workload_on("shop", "server", at, &interface)?;
    world.adopt(server, attributes)?;
    fenced(&world, &agent, "server")?;
    world.vanish(&DENIED)?;
    world.arrive(&ALLOWED)?;
    world.set_mode(&agent, "observe")?;
    world.arrive(&DENIED).context("the control")
}
