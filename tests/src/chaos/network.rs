//! The node with its agent, and the files from which the agent has its desired state.
//!
//! Modes are set at run time and the configured default is `observe`: an agent that loses them lets
//! denied packets through.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::desired::{Desired, namespaces};
use super::hosts::{Hosts, SLOTS, add_slots, slot_indices};
use crate::agent::{Agent, AgentSpec};
use crate::topology::Node;
use crate::wait::eventually;

/// Deadline for what must happen, generous for a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// As long as an agent may take to start on a busy machine.
const START: Duration = Duration::from_secs(120);

/// The node with its agent. The agent is dropped first.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) agent: Agent,
    pub(super) hosts: Arc<Hosts>,
    pub(super) desired: Desired,
    /// Below the agent's directory.
    pub(super) policy_file: &'static str,
    config: String,
    markers: u64,
}

impl Network {
    /// The node, with an agent that observes.
    pub(super) fn build(remote: usize, binary: Option<PathBuf>) -> Result<Self> {
        let desired = Desired::first(remote);
        let node = Node::new()?;
        let spec = AgentSpec {
            inventory: namespaces(&node).build(),
            policies: desired.policies(),
            default_mode: "observe".to_owned(),
            binary,
            ..AgentSpec::default()
        };
        let agent = Agent::start(&node, &spec)?;
        // Interfaces that stand before the first start have a pick-up window, in which a fence that
        // forgets connections would not be noticed.
        add_slots(&node)?;
        let hosts = Arc::new(Hosts::new(node)?);
        let config = std::fs::read_to_string(agent.config_path())?;
        let mut network = Self {
            agent,
            hosts,
            desired,
            policy_file: "policies.toml",
            config,
            markers: 0,
        };
        network.renew_inventory()?;
        let count = u64::try_from(network.hosts.all().len() + SLOTS)?;
        let fenced = || {
            let status = network.agent.cli(&["status", "-o", "json"])?;
            let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
            let attached = status.get("attached").and_then(serde_json::Value::as_u64);
            Ok(attached == Some(count))
        };
        network
            .agent
            .wait_until(fenced, SOON, "a fence on each interface")?;
        network.wait_ready()?;
        Ok(network)
    }

    /// Enforces policy in both namespaces, from now on.
    pub(super) fn enforce(&self) -> Result<()> {
        ["shop", "annex"].iter().try_for_each(|namespace| {
            let output = self.agent.cli(&["mode", "set", namespace, "enforce"])?;
            let message = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "mode set: {message}");
            Ok(())
        })
    }

    /// Writes the inventory, of which `generation` is new.
    pub(super) fn renew_inventory(&mut self) -> Result<()> {
        self.desired.generation += 1;
        let inventory = self.desired.inventory(&self.hosts)?;
        self.agent.write_inventory(&inventory)
    }

    /// Writes the policies, with another port in the rule that allows the traffic.
    pub(super) fn renew_policies(&mut self) -> Result<()> {
        self.desired.change_rule();
        self.agent
            .write_document(self.policy_file, &self.desired.policies())
    }

    /// Moves the policies into a directory, of which every policy file counts.
    pub(super) fn use_policy_directory(&mut self) -> Result<()> {
        let dir = self.agent.dir().join("policies.d");
        std::fs::create_dir(dir)?;
        self.policy_file = "policies.d/shop.toml";
        self.renew_policies()?;
        self.config = self.config.replace("policies.toml", "policies.d");
        self.renew_constant()?;
        self.agent.kill()?;
        self.start().map(drop)
    }

    /// Changes a constant of the programs, so that the next start loads them.
    pub(super) fn renew_constant(&mut self) -> Result<()> {
        self.desired.change_constant();
        let text = format!(
            "{}\n[timeouts]\nudp-replied = {}\n",
            self.config, self.desired.constant
        );
        self.agent.write_document("ringfence.toml", &text)
    }

    /// Writes the policies, and waits until they are in force.
    pub(super) fn apply_policies(&mut self) -> Result<()> {
        self.markers += 1;
        // A policy without rules isolates nothing; it only shows that the file has been read.
        let marker = format!("marker-{}", self.markers);
        let text = format!(
            "{}\n[[policy]]\nname = \"{marker}\"\nnamespace = \"shop\"\nsubject = \"\"\n",
            self.desired.policies()
        );
        self.agent.write_document(self.policy_file, &text)?;
        let read = || {
            let shown = self.agent.cli(&["policies"])?;
            Ok(String::from_utf8_lossy(&shown.stdout).contains(&marker))
        };
        self.agent.wait_until(read, SOON, "policies in force")
    }

    /// Waits until the running agent says that it is ready.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        self.agent.wait_responding()?;
        let mut last = String::new();
        let waited = eventually(START, "the agent ready", || {
            let status = self.agent.cli(&["status", "-o", "json"])?;
            last = String::from_utf8_lossy(&status.stdout).into_owned();
            let status: serde_json::Value = serde_json::from_str(&last)?;
            Ok((status.get("ready") == Some(&true.into())).then_some(()))
        });
        waited.with_context(|| format!("status: {last}\nlog: {}", self.agent.stderr()))
    }

    /// Whether each slot's interface has both of its links.
    pub(super) fn has_links(&self) -> Result<bool> {
        let links = self.pins("links")?;
        let indices = slot_indices(&self.hosts.node);
        let has = |ifindex: &u32| {
            let both = ["from_workload", "to_workload"];
            both.iter()
                .all(|program| links.contains(&format!("{ifindex}-{program}")))
        };
        Ok(indices.len() == SLOTS && indices.iter().all(has))
    }

    /// The names of the agent's pins of one kind, of whichever layout.
    pub(super) fn pins(&self, kind: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for layout in std::fs::read_dir(self.agent.bpffs())? {
            // Others than layouts have no such directory.
            let Ok(pins) = std::fs::read_dir(layout?.path().join(kind)) else {
                continue;
            };
            for pin in pins {
                names.push(pin?.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// The layouts that have pins, such as `v8`.
    pub(super) fn layouts(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(self.agent.bpffs())?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>>>()?.into_iter();
        let is_layout = |name: &String| {
            name.strip_prefix('v')
                .is_some_and(|n| n.parse::<u32>().is_ok())
        };
        Ok(names.filter(is_layout).collect())
    }

    /// Starts the stopped agent; returns how long it takes until it is ready.
    pub(super) fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.agent.spawn()?;
        self.wait_ready()?;
        Ok(began.elapsed())
    }
}
