//! Interfaces that are renamed, have alternative names, or leave for another network namespace.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, NetNs};

use crate::testbed::{CLIENT_TO_SERVER, Ping, ProbeSpec, SOON, Tcp, Testbed};

const ALLOWED: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const DENIED: [ProbeSpec; 2] = [("client", "server", Tcp(8081)), ("client", "server", Ping)];

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])
}

/// Waits until the agent has seen what happened to interfaces so far: a workload's interface that is
/// removed and created again is fenced.
fn seen(testbed: &mut Testbed, agent: &Agent) -> Result<()> {
    let Testbed { node, hosts, .. } = testbed;
    let client = hosts.iter_mut().find(|host| host.workload.name == "client");
    let client = &mut client.context("the client")?.workload;
    node.recreate(client)?;
    let ifindex = node.ifindex(&client.interface)?;
    let fenced = || {
        let endpoints = agent.cli_json(&["endpoints"])?;
        let mut endpoints = endpoints.as_array().context("a list")?.iter();
        Ok(endpoints.any(|it| it["ifindex"] == ifindex && it["attached"] == true))
    };
    agent.wait_until(fenced, SOON, "a fence on the client's new interface")
}

#[test]
fn a_fence_follows_its_interface_through_renames_and_a_restart() -> Result<()> {
    let mut testbed = testbed()?;
    let mut agent = testbed.agent("enforce", CLIENT_TO_SERVER)?;
    let mut name = testbed.host("server").workload.interface.clone();
    for new in ["rf-renamed", "rf-again"] {
        testbed
            .node
            .ns
            .ip(&format!("link set {name} name {new}\n"))?;
        new.clone_into(&mut name);
        seen(&mut testbed, &agent)?;
        testbed
            .expect_silent(&DENIED)
            .with_context(|| new.to_owned())?;
        testbed.expect_answered(&ALLOWED)?;
    }
    let status = agent.cli_json(&["status"])?;
    ensure!(
        status["ready"] == true && status["attached"] == 2,
        "{status}"
    );
    agent.restart()?;
    seen(&mut testbed, &agent)?;
    testbed.expect_silent(&DENIED).context("after a restart")?;
    testbed.expect_answered(&ALLOWED)?;
    testbed.set_mode(&agent, "observe")?;
    testbed.expect_answered(&DENIED).context("the control")
}

#[test]
fn an_inventory_may_name_an_interface_by_an_alternative_name() -> Result<()> {
    let testbed = testbed()?;
    let interface = &testbed.host("server").workload.interface;
    let alternative = "an-alternative-name-of-the-server";
    let spec = AgentSpec {
        inventory: testbed
            .inventory()
            .build()
            .replace(interface.as_str(), alternative),
        policies: CLIENT_TO_SERVER.to_owned(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let agent = Agent::start(&testbed.node, &spec)?;
    testbed
        .expect_answered(&DENIED)
        .context("the control: there is no such name yet")?;
    testbed.node.ns.ip(&format!(
        "link property add dev {interface} altname {alternative}\n"
    ))?;
    let fenced = || Ok(agent.cli_json(&["status"])?["attached"] == 2);
    agent.wait_until(fenced, SOON, "the server's fence")?;
    testbed.expect_silent(&DENIED)?;
    testbed.expect_answered(&ALLOWED)
}

#[test]
fn an_interface_that_leaves_loses_its_fence_and_is_alarmed() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", CLIENT_TO_SERVER)?;
    let interface = &testbed.host("server").workload.interface;
    let elsewhere = NetNs::new()?;
    let path = elsewhere.path();
    testbed
        .node
        .ns
        .ip(&format!("link set {interface} netns {}\n", path.display()))?;
    let mut status = serde_json::Value::Null;
    let reported = || {
        status = agent.cli_json(&["status"])?;
        let reason = status["unfenced"][0]["reason"].as_str().unwrap_or_default();
        Ok(reason.contains("moved to another network namespace"))
    };
    agent.wait_until(reported, SOON, "the alarm")?;
    ensure!(
        status["ready"] == false && status["attached"] == 1,
        "{status}"
    );
    let metrics = agent.metrics()?;
    ensure!(
        metrics.contains("ringfence_unfenced_workloads{reason=\"left\"} 1\n"),
        "{metrics}"
    );
    let log = agent.stderr();
    let warned = log.lines().any(|line| {
        line.contains(" WARN ") && line.contains("shop/server") && line.contains("another network")
    });
    ensure!(warned, "{log}");
    let pins: Vec<_> = std::fs::read_dir(agent.bpffs())?.collect::<Result<_, _>>()?;
    let links = pins
        .iter()
        .map(|abi| std::fs::read_dir(abi.path().join("links")));
    let links = links
        .filter_map(Result::ok)
        .map(Iterator::count)
        .sum::<usize>();
    ensure!(
        links == 2,
        "{links} links are pinned, and one endpoint is fenced"
    );
    // Back here it is the server's again.
    elsewhere.ip(&format!(
        "link set {interface} netns /proc/{}/ns/net\n",
        agent.pid().context("a pid")?
    ))?;
    let fenced = || Ok(agent.cli_json(&["status"])?["attached"] == 2);
    agent.wait_until(fenced, SOON, "the server's fence")?;
    agent.status_text().map(drop)
}
