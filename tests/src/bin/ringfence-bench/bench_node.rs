//! A node of a given size with the real agent on it: many remote workloads, some local ones.
//!
//! One local workload has a network namespace of its own: the target of all probes. The other local
//! workloads are interfaces without a process, which the agent fences too, each with a policy of
//! its own. Datagrams come from an outside host, which can send from every address of the world.
//! The inventory is split into files as automation would write them: the node with its workloads,
//! the rest of the cluster, and [`MOVING`] with the workload that changes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_testbed::{
    Addresses, Agent, AgentSpec, Attributes, InventoryBuilder, Node, Workload,
};

use crate::world::{self, NAMESPACE};

/// The inventory file of the workload that changes.
pub(crate) const MOVING: &str = "moving.toml";
/// The policy file of the policy that changes.
pub(crate) const CHANGING: &str = "changing.toml";
/// The addresses of the workload that changes: IPv4, IPv6.
pub(crate) const MOVING_AT: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1)),
];

/// A remote workload that never changes.
const STEADY: &str = "steady";
const STEADY_AT: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 2, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2)),
];
/// The application of a local workload that is added later; its policy allows no ingress.
pub(crate) const LATE: &str = "late";
const LATE_AT: Addresses = Addresses {
    ip4: Ipv4Addr::new(10, 1, 255, 1),
    ip6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 255, 1),
};
/// A second port of the changing policy, for datagrams from all workloads.
pub(crate) const ALL: u16 = world::PORT + 1;

/// Remote workloads per inventory file; a file must stay below the agent's size limit.
pub(crate) const PER_FILE: u32 = 10_000;
const NAMESPACES: u32 = 10;
const APPLICATIONS: u32 = 50;
const SOON: Duration = Duration::from_secs(60);

/// The size of a node and its cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Remote workloads.
    pub(crate) peers: u32,
    /// Local workloads, including the target.
    pub(crate) endpoints: u32,
}

/// The node with its network and the agent.
pub(crate) struct BenchNode {
    pub(crate) size: Size,
    pub(crate) agent: Agent,
    pub(crate) network: Network,
}

/// A node without an agent: the target, a workload that may be missing from the inventory, and an
/// outside host.
pub(crate) struct Network {
    pub(crate) target: Workload,
    pub(crate) late: Workload,
    pub(crate) outside: Workload,
    pub(crate) node: Node,
}

impl Network {
    /// Creates the namespaces and links.
    pub(crate) fn new() -> Result<Self> {
        let node = Node::new()?;
        let target = node.workload_at(NAMESPACE, "target", world::TARGET)?;
        let late = node.workload_at(NAMESPACE, LATE, LATE_AT)?;
        let outside = node.outside("outside")?;
        // The outside host may send from the address of any remote workload.
        outside.ns.sysctl("net.ipv6.ip_nonlocal_bind", "1")?;
        outside
            .ns
            .ip("route add local 10.128.0.0/9 dev lo\nroute add local 10.2.0.0/16 dev lo\n")?;
        Ok(Self {
            target,
            late,
            outside,
            node,
        })
    }
}

impl BenchNode {
    /// Creates the node and starts the agent; returns when the agent enforces.
    pub(crate) fn start(size: Size) -> Result<Self> {
        Self::start_with(size, "")
    }

    /// The same with these keys in the agent's configuration.
    pub(crate) fn start_with(size: Size, keys: &str) -> Result<Self> {
        let network = Network::new()?;
        let mut links = String::new();
        for number in 1..size.endpoints {
            let interface = interface(number);
            // Writing to a String cannot fail.
            let _ = writeln!(
                links,
                "link add {interface} type veth peer name rf-p{number}\n\
                 link set {interface} up\nlink set rf-p{number} up"
            );
        }
        network.node.ns.ip(&links)?;
        let inventory = local_inventory(
            network.node.inventory(),
            &network.target.interface,
            size.endpoints,
        );
        let mut inventories = vec![(MOVING.to_owned(), moving(Some("sender")))];
        for first in (0..size.peers).step_by(PER_FILE as usize) {
            let last = size.peers.min(first + PER_FILE);
            inventories.push((cluster_file(first), cluster(first..last, None)));
        }
        let spec = AgentSpec {
            inventory: inventory.build(),
            inventories,
            policies: policies(size.endpoints),
            documents: vec![(CHANGING.to_owned(), changing(false, 0))],
            modes: vec![(NAMESPACE.to_owned(), "enforce".to_owned())],
            default_mode: "observe".to_owned(),
            keys: keys.to_owned(),
            ..AgentSpec::default()
        };
        let bench = Self {
            size,
            agent: Agent::start(&network.node, &spec)?,
            network,
        };
        bench.wait_enforcing()?;
        Ok(bench)
    }

    /// Waits until the agent reports that it enforces.
    pub(crate) fn wait_enforcing(&self) -> Result<()> {
        self.agent.wait_enforcing(SOON)
    }

    /// The agent's last log lines and flow records, for error messages.
    pub(crate) fn last_output(&self) -> String {
        let flows = self.agent.cli(&["flows", "--last", "5"]);
        let flows = flows.map(|output| output.stdout).unwrap_or_default();
        let log = self.agent.stderr();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(5)..)
            .unwrap_or_default();
        format!("{}\n{}", last.join("\n"), String::from_utf8_lossy(&flows))
    }

    /// Writes the next content of a watched file to a staging path; publishing it is a rename.
    pub(crate) fn stage(&self, name: &str, text: &str) -> Result<Staged> {
        let staged = self.agent.dir().join("staging/next");
        std::fs::write(&staged, text).context("writing a staged file")?;
        Ok(Staged {
            from: staged,
            to: self.agent.dir().join(name),
        })
    }
}

/// A staged file, which the agent does not see yet.
pub(crate) struct Staged {
    from: PathBuf,
    to: PathBuf,
}

impl Staged {
    /// Renames it to the path that the agent watches.
    pub(crate) fn publish(&self) -> Result<()> {
        std::fs::rename(&self.from, &self.to).context("replacing a watched file")
    }
}

/// The node's workloads and every namespace.
pub(crate) fn local_inventory(
    node: InventoryBuilder,
    target: &str,
    endpoints: u32,
) -> InventoryBuilder {
    let mut inventory = node.namespace(NAMESPACE, &[("env", "bench")]);
    for number in 0..NAMESPACES {
        let env = if number % 2 == 0 { "prod" } else { "test" };
        inventory = inventory.namespace(&format!("ns-{number}"), &[("env", env)]);
    }
    let at = [world::TARGET.ip4.into(), world::TARGET.ip6.into()];
    let on = Some(target);
    inventory = inventory.workload(NAMESPACE, "target", &at, on, &attributes("target"));
    for number in 1..endpoints {
        let (app, interface) = (local_name(number), interface(number));
        let (at, on) = (local(number), Some(interface.as_str()));
        inventory = inventory.workload(NAMESPACE, &app, &at, on, &attributes(&app));
    }
    inventory
}

/// The name of a local workload other than the target, and its application.
pub(crate) fn local_name(number: u32) -> String {
    format!("local-{number}")
}

/// The name of the inventory file whose first remote workload has this number.
pub(crate) fn cluster_file(first: u32) -> String {
    format!("cluster-{first}.toml")
}

/// An inventory of remote workloads; with `moving` also of the workload that changes, with this
/// label.
pub(crate) fn cluster(numbers: std::ops::Range<u32>, moving: Option<&str>) -> String {
    let mut inventory = InventoryBuilder::empty();
    for number in numbers {
        let namespace = format!("ns-{}", number % NAMESPACES);
        let app = format!("app-{}", number / NAMESPACES % APPLICATIONS);
        let name = format!("{app}-{number}");
        inventory = inventory.remote(&namespace, &name, &world::remote(number), &attributes(&app));
    }
    if let Some(app) = moving {
        inventory = inventory.remote(NAMESPACE, "moving", &MOVING_AT, &attributes(app));
    }
    inventory.build()
}

/// An inventory of the workload that changes, with this label, or of [`STEADY`] alone.
pub(crate) fn moving(app: Option<&str>) -> String {
    steady().build() + &cluster(0..0, app)
}

/// An inventory of a workload that never changes: a file that says nothing loses its content only after
/// half a second, because an editor may be about to write it.
fn steady() -> InventoryBuilder {
    InventoryBuilder::empty().remote(NAMESPACE, STEADY, &STEADY_AT, &attributes(STEADY))
}

/// An inventory of the late workload on its interface, or of [`STEADY`] alone.
pub(crate) fn late(network: &Network, present: bool) -> String {
    let inventory = steady();
    if present {
        inventory.local(&network.late, &attributes(LATE)).build()
    } else {
        inventory.build()
    }
}

/// An inventory of `number` workloads of the sender's application, in one address range or another.
pub(crate) fn crowd(number: u32, moved: bool) -> String {
    let mut inventory = InventoryBuilder::empty();
    for number in 0..number {
        let (name, at) = (format!("crowd-{number}"), crowd_at(number, moved));
        inventory = inventory.remote(NAMESPACE, &name, &at, &attributes("sender"));
    }
    inventory.build()
}

/// The addresses of one of them.
pub(crate) fn crowd_at(number: u32, moved: bool) -> [IpAddr; 2] {
    let offset = number + if moved { 0x4000 } else { 0x8000 };
    let [ip4, ip6] = [Ipv4Addr::new(10, 2, 0, 0).to_bits() + offset, offset];
    [
        IpAddr::V4(Ipv4Addr::from_bits(ip4)),
        IpAddr::V6(Ipv6Addr::from_bits(
            (0xfd00_0002_u128 << 96) + u128::from(ip6),
        )),
    ]
}

/// The policy that changes. If `open`, the sender may send to the target's [`world::PORT`] and
/// [`ALL`]; the remote workloads always may. No two versions are the same, so that nothing of an
/// earlier version can be reused.
pub(crate) fn changing(open: bool, version: usize) -> String {
    let (peer, other) = (if open { "sender" } else { "absent" }, 20_000 + version);
    format!(
        "[[policy]]\nname = \"changing\"\nnamespace = \"{NAMESPACE}\"\nsubject = \"app=target\"\n\
         \n[[policy.ingress]]\n\
         from = [{{ pods = \"app={peer}\" }}, {{ namespaces = \"env in (prod,test)\" }}]\n\
         ports = [\"udp/{}\", \"udp/{ALL}\", \"udp/{other}\"]\n",
        world::PORT
    )
}

/// Every policy except the one that changes: those of the world, and one per local workload.
pub(crate) fn policies(endpoints: u32) -> String {
    let mut text = world::constant_policies();
    let _ = write!(
        text,
        "[[policy]]\nname = \"{LATE}\"\nnamespace = \"{NAMESPACE}\"\n\
         subject = \"app={LATE}\"\ningress = []\n\n"
    );
    for number in 1..endpoints {
        world::policy(&mut text, number, &local_name(number), "local");
    }
    text
}

fn attributes(app: &str) -> Attributes {
    Attributes::labels(&[("app", app)]).service_account(app)
}

/// The interface of a local workload other than the target.
fn interface(number: u32) -> String {
    format!("rf-l{number}")
}

fn local(number: u32) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::from_bits(
            world::TARGET.ip4.to_bits() + 256 + number,
        )),
        IpAddr::V6(Ipv6Addr::from_bits(
            world::TARGET.ip6.to_bits() + 256 + u128::from(number),
        )),
    ]
}
