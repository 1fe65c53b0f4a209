//! One network: a fenced workload and an unfenced host, on one Ethernet segment or with a router between
//! them ([`routed`]).
//!
//! On a segment the node's ends of both links are ports of a bridge that does not learn addresses and floods
//! every frame, so that any frame arrives at the other end unless the fence drops it. Neither end
//! has an address: there are no replies, and every frame of a conversation is sent by the test.

use std::path::Path;

use anyhow::Result;

use super::fixture::{self, Direction};
use super::wire::{Marking, RawInterface};
use crate::fence_state;
use crate::{Addresses, Agent, AgentSpec, Attributes, NetNs, Node, Workload};

pub mod counters;
pub mod routed;

use counters::Handles;

/// The fence between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing: the control.
    Absent,
    /// An agent that enforces.
    Enforce,
    /// An agent that observes.
    Observe,
}

/// What lies between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// A bridge, across which any frame arrives.
    Bridge,
    /// A router, which forwards unicast IPv6 packets.
    Routed,
}

impl Topology {
    /// Where frames have their marks.
    #[must_use]
    pub const fn marking(self) -> Marking {
        match self {
            Self::Bridge => Marking::Address,
            Self::Routed => Marking::FlowLabel,
        }
    }
}

/// The largest IP packet on the segment.
pub const MTU: usize = 9000;

/// A segment with its two ends.
#[derive(Debug)]
pub struct Network {
    workload: RawInterface,
    outside: RawInterface,
    /// The agent, unless this is the control. Declared before the node, because dropping the agent
    /// runs commands in the node's network namespace.
    pub agent: Option<Agent>,
    handles: Handles,
    node: Node,
}

impl Network {
    /// Builds a network.
    pub fn new(fence: Fence, topology: Topology) -> Result<Self> {
        let mut node = Node::new()?;
        // The addresses in the inventory; no interface on the segment has these or any other
        // addresses.
        node.addresses = addresses(fixture::node);
        let (address, length) = fixture::UNLISTED_NODE;
        node.ns
            .ip(&format!("addr add {address}/{length} dev lo\n"))?;
        match topology {
            Topology::Bridge => build_bridge(&node.ns)?,
            Topology::Routed => routed::forward(&node.ns)?,
        }
        let workload = attach(&node, "workload", topology)?;
        let outside = attach(&node, "outside", topology)?;
        if topology == Topology::Routed {
            node.ns
                .ip(&routed::routes(&workload.interface, &outside.interface))?;
        }
        let marking = topology.marking();
        let agent = match fence {
            Fence::Absent => None,
            Fence::Enforce => Some(agent(&node, &workload, "enforce")?),
            Fence::Observe => Some(agent(&node, &workload, "observe")?),
        };
        let handles = Handles::open(
            [&node.ns, &workload.ns, &outside.ns],
            agent.as_ref().map(|agent| (agent, fence)),
        )?;
        Ok(Self {
            workload: RawInterface::open(&workload.ns, "eth0", marking)?,
            outside: RawInterface::open(&outside.ns, "eth0", marking)?,
            agent,
            handles,
            node,
        })
    }

    /// The namespace of the bridge, `br0`.
    #[must_use]
    pub const fn bridge_ns(&self) -> &NetNs {
        &self.node.ns
    }

    /// The interface at which frames of a direction are sent.
    #[must_use]
    pub fn sender(&self, direction: Direction) -> &RawInterface {
        match direction {
            Direction::Out => &self.workload,
            Direction::In => &self.outside,
        }
    }

    /// Deletes all conntrack entries, fragments and usage accounts of the fence, as after a long
    /// idle time. Attacks open more flows than an endpoint's share, which another test
    /// covers, and no case may depend on the state of an earlier one.
    pub fn clear_state(&self) -> Result<()> {
        let Some(agent) = &self.agent else {
            return Ok(());
        };
        fence_state::forget_flows(agent.bpffs())
    }

    /// The interface at which frames of a direction arrive.
    #[must_use]
    pub fn target(&self, direction: Direction) -> &RawInterface {
        self.sender(direction.opposite())
    }
}

/// Sysctls that keep the namespaces from sending frames of their own.
const MUTE: [(&str, &str); 2] = [
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
];

fn build_bridge(ns: &NetNs) -> Result<()> {
    ns.sysctls(&MUTE)?;
    let bridge = "link add br0 type bridge mcast_snooping 0\n";
    ns.ip(&format!("{bridge}link set br0 mtu {MTU} up\n"))?;
    keep_filters_off_bridges(ns)
}

/// Keeps bridged packets away from netfilter: where the kernel supports it, it is enabled by
/// default, and netfilter would reassemble packets and drop malformed ones before the fence sees
/// them.
fn keep_filters_off_bridges(ns: &NetNs) -> Result<()> {
    for kind in ["ip", "ip6", "arp"] {
        let key = format!("net.bridge.bridge-nf-call-{kind}tables");
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        if ns.run(|| Path::new(&path).exists())? {
            ns.sysctl(&key, "0")?;
        }
    }
    Ok(())
}

fn addresses(of: fn(bool) -> std::net::IpAddr) -> Addresses {
    match (of(false), of(true)) {
        (std::net::IpAddr::V4(ip4), std::net::IpAddr::V6(ip6)) => Addresses { ip4, ip6 },
        _ => Addresses {
            ip4: std::net::Ipv4Addr::UNSPECIFIED,
            ip6: std::net::Ipv6Addr::UNSPECIFIED,
        },
    }
}

fn attach(node: &Node, name: &str, topology: Topology) -> Result<Workload> {
    let Addresses { ip4, ip6 } = addresses(fixture::workload);
    let workload = Workload {
        namespace: "lab".to_owned(),
        name: name.to_owned(),
        interface: format!("rf-{name}"),
        ip4,
        ip6,
        ns: NetNs::new()?,
    };
    workload.ns.sysctls(&MUTE)?;
    let (port, peer) = (&workload.interface, workload.ns.path());
    let links = match topology {
        Topology::Bridge => format!(
            "link set {port} master br0\n\
             link set {port} type bridge_slave learning off flood on mcast_flood on\n\
             link set {port} up\n"
        ),
        Topology::Routed => routed::link(port),
    };
    node.ns.ip(&format!(
        "link add {port} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {}\n{links}",
        peer.display(),
    ))?;
    workload.ns.ip("link set eth0 up\n")?;
    crate::topology::wait_running(&node.ns, port)?;
    crate::topology::wait_running(&workload.ns, "eth0")?;
    Ok(workload)
}

/// Small tables: all of them are looked through after every hundred cases. An endpoint's share is still
/// more than these open.
const MAPS: &str = "[maps]\nconntrack = 16384\nendpoints = 16\n";

fn agent(node: &Node, workload: &Workload, mode: &str) -> Result<Agent> {
    let other = [
        fixture::other_workload(false),
        fixture::other_workload(true),
    ];
    let node_2 = [fixture::other_node(false), fixture::other_node(true)];
    let inventory = node
        .inventory()
        .remote_node("node-2", &node_2)
        .namespace("lab", &[])
        .local(workload, &Attributes::default())
        .remote("lab", "other", &other, &Attributes::default());
    let spec = AgentSpec {
        inventory: inventory.build(),
        policies: fixture::POLICY.to_owned(),
        default_mode: mode.to_owned(),
        keys: format!("cluster-ranges = {:?}\n", fixture::CLUSTER_RANGES),
        config: MAPS.to_owned(),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(node, &spec)?;
    fence_state::end_pickup_window(&mut agent)?;
    Ok(agent)
}
