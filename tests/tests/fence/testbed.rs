//! The test bed of these tests: a node with hosts, an agent, and grids of probes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use ringfence_testbed::probe::run_all;
use ringfence_testbed::{
    Agent, AgentSpec, Attributes, InventoryBuilder, Node, Outcome, Probe, Proto, Server, Workload,
};

/// Deadline for packets that must arrive, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(8);
/// How long to wait for the answer to a denied probe.
pub(crate) const SHORT: Duration = Duration::from_millis(250);

/// `app=server` in `shop` may be reached from `app=client` on one TCP port, 8080.
pub(crate) const CLIENT_TO_SERVER: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080"]
"#;

/// A policy that isolates both directions of every workload in `shop`.
pub(crate) const DENY_ALL: &str = r#"
[[policy]]
name = "deny-all"
namespace = "shop"
subject = ""
ingress = []
egress = []
"#;

/// A workload or external host with its attributes in the inventory and its server.
pub(crate) struct TestHost {
    pub(crate) workload: Workload,
    pub(crate) attributes: Attributes,
    pub(crate) server: Server,
}

/// The node with its workloads and external hosts.
pub(crate) struct Testbed {
    pub(crate) node: Node,
    pub(crate) hosts: Vec<TestHost>,
    namespaces: Vec<(&'static str, Vec<(&'static str, &'static str)>)>,
    at_node: Server,
}

/// What a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    Tcp(u16),
    Udp(u16),
    /// A datagram that is sent in fragments.
    Large(u16),
    Ping,
}
pub(crate) use Traffic::{Large, Ping, Tcp, Udp};

/// Source, target, traffic. `node` is the host; workloads without a namespace are external hosts.
pub(crate) type ProbeSpec = (&'static str, &'static str, Traffic);

/// Ports that every host serves.
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

impl Testbed {
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
            hosts: Vec::new(),
            namespaces: namespaces.collect(),
            at_node,
        })
    }

    /// Adds a workload, `namespace/name`; without a namespace it is an external host.
    pub(crate) fn with(mut self, name: &str, attributes: Attributes) -> Result<Self> {
        let workload = match name.split_once('/') {
            Some((namespace, name)) => self.node.workload(namespace, name)?,
            None => self.node.outside(name)?,
        };
        self.add(workload, attributes)?;
        Ok(self)
    }

    /// Adds a workload with only labels.
    pub(crate) fn with_labels(self, name: &str, labels: &[(&str, &str)]) -> Result<Self> {
        self.with(name, Attributes::labels(labels))
    }

    /// Adds an existing workload.
    pub(crate) fn add(&mut self, workload: Workload, attributes: Attributes) -> Result<()> {
        let server = Server::start(&workload.ns, &SERVED)?;
        self.hosts.push(TestHost {
            workload,
            attributes,
            server,
        });
        Ok(())
    }

    pub(crate) fn host(&self, name: &str) -> &TestHost {
        let found = self.hosts.iter().find(|m| m.workload.name == name);
        found.unwrap_or_else(|| panic!("no host {name}"))
    }

    pub(crate) fn host_mut(&mut self, name: &str) -> &mut TestHost {
        let found = self.hosts.iter_mut().find(|m| m.workload.name == name);
        found.unwrap_or_else(|| panic!("no host {name}"))
    }

    pub(crate) fn inventory(&self) -> InventoryBuilder {
        let mut builder = self.node.inventory();
        for (name, labels) in &self.namespaces {
            builder = builder.namespace(name, labels);
        }
        let inside = self
            .hosts
            .iter()
            .filter(|m| !m.workload.namespace.is_empty());
        inside.fold(builder, |builder, m| {
            builder.local(&m.workload, &m.attributes)
        })
    }

    /// An agent with this test bed's inventory.
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

    /// Checks that all probes are answered in `observe` and only the allowed ones in `enforce`, in
    /// both families. Leaves the namespaces in `enforce`.
    #[track_caller]
    pub(crate) fn check_policy(
        &self,
        agent: &Agent,
        allowed: &[ProbeSpec],
        denied: &[ProbeSpec],
    ) -> Result<()> {
        self.set_mode(agent, "observe")?;
        self.expect_answered(&[allowed, denied].concat())
            .context("the control, in observe")?;
        self.set_mode(agent, "enforce")?;
        self.expect_answered(allowed)?;
        self.expect_silent(denied)
    }

    /// Fails unless all probes are answered, in both families.
    pub(crate) fn expect_answered(&self, specs: &[ProbeSpec]) -> Result<()> {
        self.outcomes(specs, SOON, Outcome::Answered)
    }

    /// Fails if the target receives any of these probes, in either family.
    pub(crate) fn expect_silent(&self, specs: &[ProbeSpec]) -> Result<()> {
        self.outcomes(specs, SHORT, Outcome::Silent)
    }

    /// Fails unless all probes are refused: TCP reset or ICMP port unreachable.
    pub(crate) fn expect_refused(&self, specs: &[ProbeSpec]) -> Result<()> {
        self.outcomes(specs, SOON, Outcome::Refused)
    }

    /// Fails unless all probes receive an ICMP error "administratively prohibited".
    pub(crate) fn expect_prohibited(&self, specs: &[ProbeSpec]) -> Result<()> {
        self.outcomes(specs, SOON, Outcome::Unreachable)
    }

    /// Whether all probes are answered now.
    pub(crate) fn all_answered(&self, specs: &[ProbeSpec]) -> bool {
        self.outcomes(specs, SHORT, Outcome::Answered).is_ok()
    }

    /// Whether no probe arrives now.
    pub(crate) fn all_silent(&self, specs: &[ProbeSpec]) -> bool {
        self.expect_silent(specs).is_ok()
    }

    fn outcomes(&self, specs: &[ProbeSpec], deadline: Duration, expected: Outcome) -> Result<()> {
        let mut sources: Vec<&str> = specs.iter().map(|(from, ..)| *from).collect();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            let specs: Vec<_> = specs.iter().filter(|(from, ..)| *from == source).collect();
            let mut probes = Vec::new();
            for (_, to, what) in &specs {
                for v6 in [false, true] {
                    probes.push(self.probe(to, *what, v6));
                }
            }
            let ns = match source {
                "node" => &self.node.ns,
                name => &self.host(name).workload.ns,
            };
            let outcomes = run_all(ns, &probes, deadline)?;
            for (index, outcome) in outcomes.iter().enumerate() {
                let family = if index % 2 == 1 { "IPv6" } else { "IPv4" };
                ensure!(
                    *outcome == expected,
                    "{:?} over {family} should be {expected:?}: {outcome:?}",
                    specs[index / 2],
                );
            }
        }
        Ok(())
    }

    fn probe(&self, to: &str, what: Traffic, v6: bool) -> Probe<'_> {
        let (ip, server) = if to == "node" {
            (self.node.ips()[usize::from(v6)], &self.at_node)
        } else {
            let host = self.host(to);
            (host.workload.ip(v6), &host.server)
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

/// Runs a command that must succeed; returns its output.
pub(crate) fn run(agent: &Agent, arguments: &[&str]) -> Result<String> {
    let output = agent.cli(arguments)?;
    ensure!(
        output.status.success(),
        "ringfence {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Gives the agent a directory of these policy files instead of its file, and restarts it.
pub(crate) fn policy_directory(agent: &mut Agent, files: &[(&str, &str)]) -> Result<PathBuf> {
    let directory = agent.dir().join("policies");
    std::fs::create_dir(&directory)?;
    for (name, text) in files {
        std::fs::write(directory.join(name), text)?;
    }
    let config = std::fs::read_to_string(agent.config_path())?;
    let config = config.replace("/policies.toml\"", "/policies\"");
    agent.write_document("ringfence.toml", &config)?;
    agent.restart()?;
    Ok(directory)
}

/// Replaces a stopped or running agent's fence by one of clsact filters.
pub(crate) fn use_clsact(agent: &mut Agent) -> Result<()> {
    start_clean(agent, "attach = \"clsact\"")
}

/// Takes a stopped or running agent's fences off, and starts it with another line in its configuration.
pub(crate) fn start_clean(agent: &mut Agent, line: &str) -> Result<()> {
    // `AgentSpec` has no field for such keys, and they must precede the first table of the file.
    let config = std::fs::read_to_string(agent.config_path())?;
    agent.kill()?;
    let path = agent.config_path();
    run(agent, &["cleanup", "--config", &path.to_string_lossy()])?;
    agent.write_document("ringfence.toml", &format!("{line}\n{config}"))?;
    agent.restart()
}

/// The IDs of the programs at each hook of every workload: its ingress, then its egress.
pub(crate) fn programs(testbed: &Testbed, attach: &str) -> Result<Vec<Vec<u32>>> {
    let mut hooks = Vec::new();
    for host in &testbed.hosts {
        let interface = &host.workload.interface;
        for (hook, name) in [
            (TcAttachType::Ingress, "ingress"),
            (TcAttachType::Egress, "egress"),
        ] {
            if attach == "tcx" {
                let query = || SchedClassifier::query_tcx(interface, hook);
                let attached = testbed.node.ns.run(query)??.1;
                hooks.push(
                    attached
                        .iter()
                        .map(aya::programs::ProgramInfo::id)
                        .collect(),
                );
                continue;
            }
            let mut tc = testbed.node.ns.command("tc");
            let shown = tc
                .args(["filter", "show", "dev", interface, name])
                .output()?;
            let shown = String::from_utf8(shown.stdout)?;
            let after = shown.split(" id ").skip(1);
            let ids = after.filter_map(|text| text.split_whitespace().next());
            let ids = ids.map(|id| id.parse().with_context(|| shown.clone()));
            hooks.push(ids.collect::<Result<_>>()?);
        }
    }
    Ok(hooks)
}

/// Does something while these probes must stay silent and those must be answered. The first round
/// begins before it, and the last after it.
pub(crate) fn probing(
    testbed: &Testbed,
    silent: &[ProbeSpec],
    answered: &[ProbeSpec],
    action: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (begun, done) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let probes = scope.spawn(|| -> Result<()> {
            begun.wait();
            loop {
                let is_last = done.load(Ordering::Acquire);
                testbed.expect_silent(silent)?;
                testbed.expect_answered(answered)?;
                if is_last {
                    return Ok(());
                }
            }
        });
        begun.wait();
        let outcome = action();
        done.store(true, Ordering::Release);
        probes.join().unwrap().context("meanwhile")?;
        outcome
    })
}

/// Replaces the policies, and waits until the new ones are in force.
pub(crate) fn apply(agent: &Agent, policies: &str) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let marker = format!("marker-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    // A policy without rules isolates nothing; it only shows that the file has been read.
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
