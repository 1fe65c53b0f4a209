//! A small world on one node, an agent in it, and grids of probes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::probe::run_all;
use ringfence_testbed::{
    Agent, AgentSpec, Attributes, InventoryBuilder, Node, Outcome, Probe, Proto, Server, Workload,
};

/// By when something allowed has arrived, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(8);
/// How long the answer to something denied is waited for.
pub(crate) const SHORT: Duration = Duration::from_millis(250);

/// A policy that closes both directions of every workload in `shop`.
pub(crate) const SHUT: &str = r#"
[[policy]]
name = "shut"
namespace = "shop"
subject = ""
ingress = []
egress = []
"#;

/// A workload with what an inventory says of it, and servers that listen in it.
pub(crate) struct Member {
    pub(crate) workload: Workload,
    pub(crate) attributes: Attributes,
    pub(crate) server: Server,
}

/// The node, its workloads, and the outside.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) members: Vec<Member>,
    namespaces: Vec<(&'static str, Vec<(&'static str, &'static str)>)>,
    at_node: Server,
}

/// What a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Tcp(u16),
    Udp(u16),
    /// A datagram that travels in fragments.
    Large(u16),
    Ping,
}
pub(crate) use What::{Large, Ping, Tcp, Udp};

/// From whom, to whom, what. `node` is the node itself, and whatever is in no namespace is outside.
pub(crate) type Try = (&'static str, &'static str, What);

/// Ports that every member serves.
pub(crate) const SERVED: [(Proto, u16); 11] = [
    (Proto::Tcp, 8080),
    (Proto::Tcp, 8081),
    (Proto::Tcp, 9000),
    (Proto::Tcp, 9004),
    (Proto::Tcp, 9005),
    (Proto::Tcp, 9010),
    (Proto::Tcp, 9011),
    (Proto::Udp, 53),
    (Proto::Udp, 9005),
    (Proto::Udp, 9011),
    (Proto::Icmp, 0),
];

impl World {
    /// A node with namespaces and their labels.
    pub(crate) fn new(
        namespaces: &[(&'static str, &[(&'static str, &'static str)])],
    ) -> Result<Self> {
        let node = Node::new()?;
        let at_node = Server::start(&node.ns, &SERVED)?;
        let namespaces = namespaces
            .iter()
            .map(|(name, labels)| (*name, labels.to_vec()));
        Ok(Self {
            node,
            members: Vec::new(),
            namespaces: namespaces.collect(),
            at_node,
        })
    }

    /// With one more workload, `namespace/name`; without a namespace it is a host outside.
    pub(crate) fn with(mut self, name: &str, attributes: Attributes) -> Result<Self> {
        let workload = match name.split_once('/') {
            Some((namespace, name)) => self.node.workload(namespace, name)?,
            None => self.node.outside(name)?,
        };
        self.adopt(workload, attributes)?;
        Ok(self)
    }

    /// With one more workload that is nothing but labels.
    pub(crate) fn labelled(self, name: &str, labels: &[(&str, &str)]) -> Result<Self> {
        self.with(name, Attributes::labels(labels))
    }

    /// Takes in a workload that stands already.
    pub(crate) fn adopt(&mut self, workload: Workload, attributes: Attributes) -> Result<()> {
        let server = Server::start(&workload.ns, &SERVED)?;
        self.members.push(Member {
            workload,
            attributes,
            server,
        });
        Ok(())
    }

    pub(crate) fn at(&self, name: &str) -> &Member {
        let found = self.members.iter().find(|m| m.workload.name == name);
        found.unwrap_or_else(|| panic!("no member {name}"))
    }

    pub(crate) fn at_mut(&mut self, name: &str) -> &mut Member {
        let found = self.members.iter_mut().find(|m| m.workload.name == name);
        found.unwrap_or_else(|| panic!("no member {name}"))
    }

    pub(crate) fn inventory(&self) -> InventoryBuilder {
        let mut builder = self.node.inventory();
        for (name, labels) in &self.namespaces {
            builder = builder.namespace(name, labels);
        }
        let inside = self
            .members
            .iter()
            .filter(|m| !m.workload.namespace.is_empty());
        inside.fold(builder, |builder, m| {
            builder.local(&m.workload, &m.attributes)
        })
    }

    /// An agent with this world's inventory.
    pub(crate) fn agent(&self, default_mode: &str, policies: &str) -> Result<Agent> {
        let spec = AgentSpec {
            inventory: self.inventory().build(),
            policies: policies.to_owned(),
            default_mode: default_mode.to_owned(),
            ..AgentSpec::default()
        };
        Agent::start(&self.node, &spec)
    }

    /// Sets the mode of every namespace.
    pub(crate) fn set_mode(&self, agent: &Agent, mode: &str) -> Result<()> {
        for (namespace, _) in &self.namespaces {
            run(agent, &["mode", "set", namespace, mode])?;
        }
        Ok(())
    }

    /// Everything arrives in `observe` and in `enforce` only what is allowed; both families.
    /// Leaves the namespaces in `enforce`.
    #[track_caller]
    pub(crate) fn judge(&self, agent: &Agent, allowed: &[Try], denied: &[Try]) -> Result<()> {
        self.set_mode(agent, "observe")?;
        self.arrive(&[allowed, denied].concat())
            .context("the control, in observe")?;
        self.set_mode(agent, "enforce")?;
        self.arrive(allowed)?;
        self.vanish(denied)
    }

    /// All of these are answered, in both families.
    pub(crate) fn arrive(&self, tries: &[Try]) -> Result<()> {
        self.outcomes(tries, SOON, Outcome::Answered)
    }

    /// None of these is seen by its target, in either family.
    pub(crate) fn vanish(&self, tries: &[Try]) -> Result<()> {
        self.outcomes(tries, SHORT, Outcome::Silent)
    }

    /// All of these are refused: a reset, or "port unreachable".
    pub(crate) fn refused(&self, tries: &[Try]) -> Result<()> {
        self.outcomes(tries, SOON, Outcome::Refused)
    }

    /// All of these are told that they may not.
    pub(crate) fn prohibited(&self, tries: &[Try]) -> Result<()> {
        self.outcomes(tries, SOON, Outcome::Unreachable)
    }

    /// Whether all of these are answered now.
    pub(crate) fn all_answer(&self, tries: &[Try]) -> bool {
        self.outcomes(tries, SHORT, Outcome::Answered).is_ok()
    }

    /// Whether none of these arrives now.
    pub(crate) fn none_arrives(&self, tries: &[Try]) -> bool {
        self.vanish(tries).is_ok()
    }

    fn outcomes(&self, tries: &[Try], deadline: Duration, expected: Outcome) -> Result<()> {
        let mut sources: Vec<&str> = tries.iter().map(|(from, ..)| *from).collect();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            let tries: Vec<_> = tries.iter().filter(|(from, ..)| *from == source).collect();
            let mut probes = Vec::new();
            for (_, to, what) in &tries {
                for v6 in [false, true] {
                    probes.push(self.probe(to, *what, v6));
                }
            }
            let ns = match source {
                "node" => &self.node.ns,
                name => &self.at(name).workload.ns,
            };
            let outcomes = run_all(ns, &probes, deadline)?;
            for (index, outcome) in outcomes.iter().enumerate() {
                let family = if index % 2 == 1 { "IPv6" } else { "IPv4" };
                ensure!(
                    *outcome == expected,
                    "{:?} over {family} should be {expected:?}: {outcome:?}",
                    tries[index / 2],
                );
            }
        }
        Ok(())
    }

    fn probe(&self, to: &str, what: What, v6: bool) -> Probe<'_> {
        let (ip, server) = if to == "node" {
            (self.node.ips()[usize::from(v6)], &self.at_node)
        } else {
            let member = self.at(to);
            (member.workload.ip(v6), &member.server)
        };
        let (proto, port, size) = match what {
            Tcp(port) => (Proto::Tcp, port, 0),
            Udp(port) => (Proto::Udp, port, 0),
            Large(port) => (Proto::Udp, port, 4000),
            Ping => (Proto::Icmp, 0, 0),
        };
        Probe::new(proto, SocketAddr::new(ip, port))
            .size(size)
            .seen_by(server)
    }
}

/// Runs a command that must succeed; returns what it printed.
pub(crate) fn run(agent: &Agent, arguments: &[&str]) -> Result<String> {
    let output = agent.cli(arguments)?;
    ensure!(
        output.status.success(),
        "ringfence {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Replaces the policies, and waits until the new ones are in force.
pub(crate) fn apply(agent: &Agent, policies: &str) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let marker = format!("marker-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    // A policy without rules isolates nothing; it only shows that the file was taken.
    agent.write_policies(&format!(
        "{policies}\n[[policy]]\nname = \"{marker}\"\nnamespace = \"shop\"\nsubject = \"\"\n"
    ))?;
    let what = format!("policies with {marker}");
    agent.wait_until(
        || Ok(run(agent, &["policies"])?.contains(&marker)),
        SOON,
        &what,
    )
}

/// Replaces the inventory, and waits until the new one is in force.
pub(crate) fn apply_inventory(agent: &Agent, inventory: InventoryBuilder) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let marker = format!("marker-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    agent.write_inventory(&inventory.namespace(&marker, &[]).build())?;
    let what = format!("inventory with {marker}");
    agent.wait_until(
        || Ok(run(agent, &["mode", "get"])?.contains(&marker)),
        SOON,
        &what,
    )
}
