//! Fences on interfaces that come and go in numbers: none is missed, and nothing of it is an error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, Attributes, InventoryBuilder, NetNs, Node};

use crate::testbed::{SOON, Testbed};

/// Interfaces that come and go together.
const BATCH: usize = 10;
/// How often they do.
const ROUNDS: usize = 100;
/// Pairs of interfaces without a workload, so that a list of all takes a while.
const BYSTANDERS: usize = 200;
/// Deadline for the fences of a batch.
const FENCED: Duration = Duration::from_secs(20);

fn name(slot: usize) -> String {
    format!("rf-slot{slot}")
}

/// An inventory with a workload on each slot's interface.
fn inventory(node: &Node, slots: usize) -> Result<InventoryBuilder> {
    let mut inventory = node.inventory().namespace("shop", &[]);
    for slot in 0..slots {
        let address = format!("198.18.0.{}", slot + 1).parse()?;
        let attributes = Attributes::default();
        let (name, interface) = (format!("w{slot}"), name(slot));
        inventory = inventory.workload("shop", &name, &[address], Some(&interface), &attributes);
    }
    Ok(inventory)
}

fn agent(node: &Node, inventory: &InventoryBuilder) -> Result<Agent> {
    let spec = AgentSpec {
        inventory: inventory.build(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    Agent::start(node, &spec)
}

/// Adds or removes pairs of interfaces in one go.
fn change(ns: &NetNs, names: impl Iterator<Item = String>, add: bool) -> Result<()> {
    let mut batch = String::new();
    for name in names {
        match add {
            true => writeln!(batch, "link add {name} type veth peer name {name}-p")?,
            false => writeln!(batch, "link del {name}")?,
        }
    }
    ns.ip(&batch)
}

/// Waits until each slot's interface is fenced with the index that it has now.
fn all_fenced(node: &Node, agent: &Agent, slots: usize) -> Result<()> {
    let indices = (0..slots).map(|slot| Ok((name(slot), node.ifindex(&name(slot))?)));
    let indices: BTreeMap<String, u32> = indices.collect::<Result<_>>()?;
    let mut missing = indices.len();
    let fenced = || {
        let endpoints = agent.cli_json(&["endpoints"])?;
        let endpoints = endpoints.as_array().context("a list")?;
        let fenced = endpoints.iter().filter(|endpoint| {
            let interface = endpoint["interface"].as_str().unwrap_or_default();
            let index = indices.get(interface);
            endpoint["attached"] == true && index.is_some_and(|i| endpoint["ifindex"] == *i)
        });
        missing = indices.len() - fenced.count();
        Ok(missing == 0)
    };
    let outcome = agent.wait_until(fenced, FENCED, "a fence on each interface");
    outcome.with_context(|| format!("{missing} of {slots} interfaces without a fence"))
}

/// Lines of the agent's log that say that something is wrong.
fn complaints(agent: &Agent) -> Vec<String> {
    let log = agent.stderr();
    let lines = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_interface_of_many_that_come_and_go_is_fenced() -> Result<()> {
    let node = Node::new()?;
    change(&node.ns, (0..BYSTANDERS).map(|n| format!("by{n}")), true)?;
    let agent = agent(&node, &inventory(&node, BATCH)?)?;
    for round in 0..ROUNDS {
        change(&node.ns, (0..BATCH).map(name), true)?;
        all_fenced(&node, &agent, BATCH).with_context(|| format!("round {round}"))?;
        change(&node.ns, (0..BATCH).map(name), false)?;
    }
    Ok(())
}

#[test]
fn a_day_on_which_interfaces_come_and_go_logs_no_warning() -> Result<()> {
    let node = Node::new()?;
    let agent = agent(&node, &inventory(&node, 0)?)?;
    for _ in 0..5 {
        change(&node.ns, (0..BATCH).map(name), true)?;
        agent.write_inventory(&inventory(&node, BATCH)?.build())?;
        all_fenced(&node, &agent, BATCH)?;
        agent.write_inventory(&inventory(&node, 0)?.build())?;
        let none = || Ok(agent.cli_json(&["status"])?["endpoints"] == 0);
        agent.wait_until(none, SOON, "no endpoint")?;
        change(&node.ns, (0..BATCH).map(name), false)?;
        // Others, on which no workload is.
        change(&node.ns, (0..BYSTANDERS).map(|n| format!("by{n}")), true)?;
        change(&node.ns, (0..BYSTANDERS).map(|n| format!("by{n}")), false)?;
    }
    let complaints = complaints(&agent);
    ensure!(
        complaints.is_empty(),
        "{} lines, such as {:?}",
        complaints.len(),
        complaints.first()
    );
    ensure!(
        agent.stderr().contains(" INFO "),
        "the control: the log has lines"
    );
    Ok(())
}

#[test]
fn neither_a_burst_nor_a_flapping_interface_ends_the_agent() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?.with_labels("shop/flapping", &[])?;
    let agent = testbed.agent("enforce", "")?;
    let node = &testbed.node;
    change(&node.ns, (0..BYSTANDERS).map(|n| format!("by{n}")), true)?;
    let burst = || (0..250).map(|n| format!("burst{n}"));
    let flapping = &testbed.host("flapping").workload.ns;
    std::thread::scope(|scope| -> Result<()> {
        let flaps = scope.spawn(|| -> Result<()> {
            let end = Instant::now() + Duration::from_secs(10);
            let flap = "link set eth0 down\nlink set eth0 up\n".repeat(100);
            while Instant::now() < end {
                flapping.ip(&flap)?;
            }
            Ok(())
        });
        while !flaps.is_finished() {
            change(&node.ns, burst(), true)?;
            change(&node.ns, burst(), false)?;
        }
        flaps.join().unwrap()
    })?;
    agent.status_text().context("the agent is gone")?;
    change(&node.ns, [name(0)].into_iter(), true)?;
    agent.write_inventory(&inventory(node, 1)?.build())?;
    all_fenced(node, &agent, 1)
}
