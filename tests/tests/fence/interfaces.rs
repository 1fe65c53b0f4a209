//! Interfaces that appear late or are recreated: the agent fences them automatically.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Addresses, Agent, Attributes};

use crate::testbed::{CLIENT_TO_SERVER, Ping, ProbeSpec, SOON, Tcp, Testbed, Udp};

const ALLOWED: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const DENIED: [ProbeSpec; 3] = [
    ("client", "server", Tcp(8081)),
    ("client", "server", Udp(53)),
    ("client", "server", Ping),
];

/// Waits until the agent reports a fence on the workload's interface with its current ifindex.
fn fenced(testbed: &Testbed, agent: &Agent, name: &str) -> Result<u32> {
    let interface = &testbed.host(name).workload.interface;
    let ifindex = testbed.node.ifindex(interface)?;
    let what = format!("a fence on {interface}, ifindex {ifindex}");
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
    let mut testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    let agent = testbed.agent("enforce", CLIENT_TO_SERVER)?;
    let mut before = fenced(&testbed, &agent, "server")?;
    for _ in 0..3 {
        let Testbed { node, hosts, .. } = &mut testbed;
        for host in hosts.iter_mut() {
            node.recreate(&mut host.workload)?;
        }
        let now = fenced(&testbed, &agent, "server")?;
        fenced(&testbed, &agent, "client")?;
        ensure!(now != before, "the ifindex did not change");
        before = now;
        testbed.expect_silent(&DENIED)?;
        testbed.expect_answered(&ALLOWED)?;
    }
    testbed.set_mode(&agent, "observe")?;
    testbed.expect_answered(&DENIED).context("the control")
}

#[test]
fn an_interface_created_after_the_agent_starts_is_fenced() -> Result<()> {
    let mut testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    // The inventory contains a workload whose interface does not exist yet.
    let server = testbed.hosts.pop().context("the server")?.workload;
    let (interface, at) = (
        server.interface.clone(),
        Addresses {
            ip4: server.ip4,
            ip6: server.ip6,
        },
    );
    let attributes = Attributes::labels(&[("app", "server")]);
    let inventory = testbed.inventory().local(&server, &attributes);
    testbed.node.remove(server)?;
    let agent = testbed.agent("enforce", "")?;
    agent.write_inventory(&inventory.build())?;
    crate::testbed::apply(&agent, CLIENT_TO_SERVER)?;
    let absent = agent.cli_json(&["endpoints"])?;
    let listed = absent.as_array().context("a list")?.iter();
    let listed: Vec<_> = listed
        .filter(|e| e["interface"] == interface.as_str())
        .collect();
    ensure!(
        listed.len() == 1 && listed[0]["attached"] == false && listed[0]["ifindex"].is_null(),
        "{absent}"
    );

    let server = testbed.node.workload_on("shop", "server", at, &interface)?;
    testbed.add(server, attributes)?;
    fenced(&testbed, &agent, "server")?;
    testbed.expect_silent(&DENIED)?;
    testbed.expect_answered(&ALLOWED)?;
    testbed.set_mode(&agent, "observe")?;
    testbed.expect_answered(&DENIED).context("the control")
}
