//! The node under chaos: who is there, what policy says about them, and the agent's files.
//!
//! Modes are set at run time and the configured default is `observe`: an agent that loses them lets
//! denied packets through.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, AgentSpec};
use crate::inventory::{Attributes, InventoryBuilder};
use crate::server::{Proto, Server};
use crate::topology::{Node, Workload};
use crate::wait::eventually;

/// Deadline for what must happen, generous for a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// As long as an agent may take to start on a busy machine.
const START: Duration = Duration::from_secs(120);
/// Interfaces that come and go.
pub(super) const SLOTS: usize = 8;
/// The port of connections that stay.
pub(super) const KEPT_PORT: u16 = 7001;
/// The port of permitted datagrams.
pub(super) const DATAGRAM_PORT: u16 = 7003;
/// The port to which new connections are made.
pub(super) const OPEN_PORT: u16 = 8080;
/// Ports of the server to which policy allows nothing.
pub(super) const DENIED_PORTS: [(Proto, u16); 2] = [(Proto::Tcp, 8081), (Proto::Udp, 9005)];

/// The node and its workloads.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Has connections to the server.
    pub(super) client: Workload,
    pub(super) server: Workload,
    /// May reach neither server nor vault.
    pub(super) peer: Workload,
    /// Nothing may reach it.
    pub(super) vault: Workload,
    /// Two of a namespace whose mode changes; nothing may reach the cell.
    pub(super) guest: Workload,
    pub(super) cell: Workload,
    pub(super) node: Node,
    /// Serves at the server, the client and the peer.
    pub(super) servers: [Server; 2],
}

impl Hosts {
    fn new(node: Node) -> Result<Self> {
        let (client, server) = (
            node.workload("shop", "client")?,
            node.workload("shop", "server")?,
        );
        let mut served = vec![(Proto::Tcp, OPEN_PORT), (Proto::Icmp, 0)];
        served.extend(DENIED_PORTS);
        let servers = [
            Server::start(&server.ns, &served)?,
            Server::start(&client.ns, &served)?,
        ];
        Ok(Self {
            client,
            server,
            peer: node.workload("shop", "peer")?,
            vault: node.workload("shop", "vault")?,
            guest: node.workload("annex", "guest")?,
            cell: node.workload("annex", "cell")?,
            node,
            servers,
        })
    }

    fn all(&self) -> [&Workload; 6] {
        [
            &self.client,
            &self.server,
            &self.peer,
            &self.vault,
            &self.guest,
            &self.cell,
        ]
    }
}

/// What differs between the desired states of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Desired {
    /// Part of a label of every remote workload: their identities are new when it changes.
    pub(super) generation: u64,
    /// How many identities they have.
    pub(super) identities: usize,
    /// A further port in the rule that allows the traffic, so that every flow is evaluated again.
    pub(super) further: u16,
    /// A port whose flows a later change revokes.
    pub(super) revocable: Option<u16>,
    /// A constant of the kernel programs, which must be loaded again when it changes.
    pub(super) constant: u32,
}

impl Desired {
    /// Puts another port into the rule that allows the traffic.
    pub(super) const fn change_rule(&mut self) {
        self.further = if self.further == 9000 { 9001 } else { 9000 };
    }
}

/// The node with its agent. The agent is dropped first.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) agent: Agent,
    pub(super) hosts: Arc<Hosts>,
    pub(super) desired: Desired,
    remote: usize,
    config: String,
    markers: u64,
}

impl Network {
    /// The node, with an agent that observes.
    pub(super) fn build(remote: usize, binary: Option<PathBuf>) -> Result<Self> {
        let desired = Desired {
            generation: 0,
            identities: 1,
            further: 9000,
            revocable: None,
            constant: 180,
        };
        let node = Node::new()?;
        let spec = AgentSpec {
            inventory: namespaces(&node).build(),
            policies: policies(&desired),
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
            remote,
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
        let inventory = inventory(&self.hosts, self.remote, &self.desired)?;
        self.agent.write_inventory(&inventory.build())
    }

    /// Writes the policies, with another port in the rule that allows the traffic.
    pub(super) fn renew_policies(&mut self) -> Result<()> {
        self.desired.change_rule();
        self.agent.write_policies(&policies(&self.desired))
    }

    /// Changes a constant of the programs, so that the next start loads them.
    pub(super) fn renew_constant(&mut self) -> Result<()> {
        self.desired.constant = if self.desired.constant == 180 {
            181
        } else {
            180
        };
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
            policies(&self.desired)
        );
        self.agent.write_policies(&text)?;
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

/// The interface of a slot, which the veth's other end shares the node with.
fn slot(number: usize) -> String {
    format!("rf-slot{number}")
}

fn add_slots(node: &Node) -> Result<()> {
    node.ns.ip(&added_slots())
}

fn added_slots() -> String {
    let mut batch = String::new();
    for name in (0..SLOTS).map(slot) {
        // Writing to a String cannot fail.
        let _ = writeln!(batch, "link add {name} type veth peer name {name}-p");
    }
    batch
}

/// The lines that take every slot's interface away and bring another one of the same name.
pub(super) fn recreated_slots() -> String {
    let mut batch = String::new();
    for name in (0..SLOTS).map(slot) {
        // Writing to a String cannot fail.
        let _ = writeln!(batch, "link del {name}");
    }
    batch + &added_slots()
}

/// The present index of each slot's interface; fewer while some are gone.
pub(super) fn slot_indices(node: &Node) -> Vec<u32> {
    let indices = (0..SLOTS).map(|number| node.ifindex(&slot(number)));
    indices.filter_map(Result::ok).collect()
}

fn namespaces(node: &Node) -> InventoryBuilder {
    let all = ["shop", "annex", "lab", "far"].into_iter();
    all.fold(node.inventory(), |inventory, name| {
        inventory.namespace(name, &[])
    })
}

fn inventory(hosts: &Hosts, remote: usize, desired: &Desired) -> Result<InventoryBuilder> {
    let mut inventory = namespaces(&hosts.node);
    for workload in hosts.all() {
        let labels = Attributes::labels(&[("app", &workload.name)]);
        inventory = inventory.local(workload, &labels);
    }
    for number in 0..SLOTS {
        let address = format!("198.18.0.{}", number + 1).parse()?;
        let (name, interface) = (format!("w{number}"), slot(number));
        let attributes = Attributes::default();
        inventory = inventory.workload("lab", &name, &[address], Some(&interface), &attributes);
    }
    for number in 0..remote {
        let generation = format!("g{}-{}", desired.generation, number % desired.identities);
        let attributes = Attributes::labels(&[("generation", &generation)]);
        let address = format!("198.19.{}.{}", number / 250, number % 250 + 1).parse()?;
        inventory = inventory.remote("far", &format!("r{number}"), &[address], &attributes);
    }
    Ok(inventory)
}

/// Isolates both directions of client and server, so that only who opened a flow lets its replies
/// pass.
fn policies(desired: &Desired) -> String {
    let revocable = desired.revocable.map_or_else(String::new, |port| {
        format!(", \"tcp/{port}\", \"udp/{port}\"")
    });
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
egress = []
[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = ["tcp/{KEPT_PORT}", "udp/{DATAGRAM_PORT}", "tcp/{OPEN_PORT}", "tcp/{}"{revocable}]
[[policy.ingress]]
from = [{{ namespaces = "", pods = "generation=g0-0" }}]
ports = ["tcp/9004"]

[[policy]]
name = "client"
namespace = "shop"
subject = "app=client"
ingress = []
[[policy.egress]]
to = [{{ pods = "app=server" }}]

[[policy]]
name = "vault"
namespace = "shop"
subject = "app=vault"
ingress = []
egress = []

[[policy]]
name = "cell"
namespace = "annex"
subject = "app=cell"
ingress = []
egress = []
"#,
        desired.further
    )
}
