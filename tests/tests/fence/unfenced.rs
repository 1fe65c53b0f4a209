//! Workloads without a fence are visible everywhere, and unsuitable interfaces get none.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, Attributes, InventoryBuilder, Node};

use crate::testbed::SOON;

/// An inventory with a workload on each of these interfaces.
fn inventory(node: &Node, interfaces: &[&str]) -> Result<InventoryBuilder> {
    let mut inventory = node.inventory().namespace("shop", &[]);
    for (number, interface) in interfaces.iter().enumerate() {
        let address = format!("198.18.1.{}", number + 1).parse()?;
        let (name, attributes) = (format!("on-{interface}"), Attributes::default());
        inventory = inventory.workload("shop", &name, &[address], Some(interface), &attributes);
    }
    Ok(inventory)
}

fn agent(node: &Node, interfaces: &[&str], allow_uplink: bool) -> Result<Agent> {
    let spec = AgentSpec {
        inventory: inventory(node, interfaces)?.build(),
        default_mode: "observe".to_owned(),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(node, &spec)?;
    if allow_uplink {
        // It must precede the first table of the file.
        let config = std::fs::read_to_string(agent.config_path())?;
        agent.write_document("ringfence.toml", &format!("allow-uplink = true\n{config}"))?;
        agent.restart()?;
    }
    Ok(agent)
}

/// Waits until the workloads on these interfaces, and no others, are reported as unfenced: in the
/// status, by readiness, as a metric and in the log.
fn expect_unfenced(agent: &Agent, reasons: &[(&str, &str)], metric: &str) -> Result<()> {
    let mut status = serde_json::Value::Null;
    let seen = || {
        status = agent.cli_json(&["status"])?;
        let unfenced = status["unfenced"].as_array().context("unfenced")?;
        Ok(unfenced.len() == reasons.len())
    };
    let outcome = agent.wait_until(seen, SOON, "the unfenced workloads");
    outcome.with_context(|| format!("{status}"))?;
    ensure!(status["ready"] == reasons.is_empty(), "{status}");
    let all = status["endpoints"].as_u64().context("endpoints")?;
    let attached = all - reasons.len() as u64;
    ensure!(status["attached"] == attached, "{status}");
    let (text, healthy) = agent.status_text()?;
    ensure!(healthy == reasons.is_empty(), "{text}");
    for (interface, reason) in reasons {
        let line = text
            .lines()
            .find(|line| line.starts_with("Unfenced:") && line.contains(interface));
        let line = line.with_context(|| format!("no {interface} in:\n{text}"))?;
        ensure!(line.contains(reason), "no {reason:?} in {line}");
        let logged = agent.stderr();
        // The last one: the log may have an earlier reason, too.
        let logged = logged.lines().rfind(|line| {
            line.contains("has no fence") && line.contains(&format!("interface {interface}:"))
        });
        ensure!(
            logged.is_some_and(|line| line.contains(reason)),
            "{logged:?}"
        );
    }
    let readyz = agent.http_get("/readyz");
    match reasons.first() {
        None => ensure!(readyz.is_ok(), "{readyz:?}"),
        Some(_) => {
            let error = format!("{:?}", readyz.err().context("it is ready")?);
            ensure!(error.contains("503"), "{error}");
        }
    }
    let metrics = agent.metrics()?;
    ensure!(
        metrics.contains(&format!(
            "ringfence_unfenced_workloads{{reason=\"{metric}\"}} {}\n",
            reasons.len()
        )),
        "{metrics}"
    );
    Ok(())
}

#[test]
fn a_missing_interface_is_reported_until_it_is_there() -> Result<()> {
    let node = Node::new()?;
    let here = node.workload("shop", "here")?;
    let agent = agent(&node, &[&here.interface, "rf-absent"], false)?;
    let reason = "no interface has this name";
    expect_unfenced(&agent, &[("rf-absent", reason)], "missing")?;
    node.ns
        .ip("link add rf-absent type veth peer name rf-peer\n")?;
    expect_unfenced(&agent, &[], "missing").context("the control")?;
    node.ns.ip("link del rf-absent\n")?;
    expect_unfenced(&agent, &[("rf-absent", reason)], "missing")
}

/// The node may have a default route from a router advertisement of a workload.
#[test]
fn a_default_route_takes_no_fence_off() -> Result<()> {
    let node = Node::new()?;
    let here = node.workload("shop", "here")?;
    let mut agent = agent(&node, &[&here.interface, "rf-uplink"], false)?;
    expect_unfenced(
        &agent,
        &[("rf-uplink", "no interface has this name")],
        "missing",
    )?;
    agent.kill()?;
    node.ns.ip(&format!(
        "link add rf-uplink type veth peer name rf-router\n\
         link set rf-uplink up\n\
         link set rf-router up\n\
         route add default dev {} metric 10\n\
         route add default dev rf-uplink metric 20\n",
        here.interface
    ))?;
    agent.restart()?;
    // The control: what had no fence before gets none.
    expect_unfenced(
        &agent,
        &[("rf-uplink", "allow-uplink = true")],
        "unsuitable",
    )
}

#[test]
fn unsuitable_interfaces_get_no_fence() -> Result<()> {
    let node = Node::new()?;
    let here = node.workload("shop", "here")?;
    node.ns.ip("link add rf-bridge type bridge\n\
         tuntap add dev rf-tun mode tun\n\
         link add rf-uplink type veth peer name rf-router\n\
         link set rf-uplink up\n\
         link set rf-router up\n\
         addr add 198.18.2.1/24 dev rf-uplink\n\
         route add default via 198.18.2.2\n")?;
    let interfaces = [&here.interface, "lo", "rf-bridge", "rf-tun", "rf-uplink"];
    let fenceable = agent(&node, &interfaces, false)?;
    let others = [
        ("lo", "loopback device"),
        ("rf-bridge", "it is a bridge"),
        ("rf-tun", "hardware type 65534"),
    ];
    let uplink = ("rf-uplink", "allow-uplink = true");
    expect_unfenced(&fenceable, &[&others[..], &[uplink]].concat(), "unsuitable")?;
    drop(fenceable);
    // The control: what the key allows is fenced.
    let allowed = agent(&node, &interfaces, true)?;
    expect_unfenced(&allowed, &others, "unsuitable")
}
