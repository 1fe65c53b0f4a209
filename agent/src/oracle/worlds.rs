//! Random worlds: small, with many edge cases.
//!
//! Two or three namespaces, up to eight workloads with labels from tiny alphabets and clashing
//! port names, addresses in nested prefixes, nodes, and policies with every peer type, ranges
//! with odd bounds and windows around the present.

mod policies;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use proptest::{
    collection::vec,
    option::of,
    prelude::*,
    sample::{select, subsequence},
};
use ringfence_common::mode::Mode;

use self::policies::policies;
use crate::{
    model::{
        Inventory, Labels, NamedPort, Namespace, NamespaceName, NodeEntry, NodeName, NodeNetwork,
        PolicySet, PortMatch, PortName, Ports, Protocol, ServiceAccountName, WallTime, Workload,
        WorkloadId,
    },
    policy::{Clock, Compiled, Compiler, Inputs, LocalEndpoint, Modes},
};

/// The current time of every world.
pub const NOW: WallTime = WallTime(1_700_000_000_000_000_000);
/// The boot clock at [`NOW`], unless a test sets another.
pub const BOOT: u64 = 5_000_000_000_000;
/// IP protocols to probe: those with ports, both ICMPs, those that are tunnels, and a raw one.
pub const PROTOCOLS: [u8; 9] = [6, 17, 132, 1, 58, 47, 4, 41, 0];
const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// The addresses that the inventory lists for this node and the other one.
const NODES: [&str; 4] = ["10.0.0.250", "fd00::fa", "10.0.1.250", "2001:db8::1"];
const PORTS: [u16; 10] = [1, 53, 80, 81, 1023, 1024, 4789, 8080, 8472, 65535];

/// An inventory and the policies for it.
#[derive(Debug, Clone)]
pub struct World {
    /// The inventory.
    pub inventory: Arc<Inventory>,
    /// The policies.
    pub policies: Arc<PolicySet>,
}

impl World {
    /// Every workload as an endpoint of this node.
    #[must_use]
    pub fn endpoints(&self) -> Vec<LocalEndpoint> {
        let ids = self.inventory.workloads.keys().cloned();
        (1..)
            .zip(ids)
            .map(|(ifindex, workload)| LocalEndpoint::at(workload, ifindex))
            .collect()
    }

    /// Compiles with every workload as an endpoint; the result is published.
    pub fn compile(&self, compiler: &mut Compiler) -> Compiled {
        let compiled = self.attempt(compiler, &self.endpoints());
        compiler.in_force();
        compiled
    }

    /// Compiles for these endpoints; does not say whether publishing succeeds.
    #[must_use]
    pub fn attempt(&self, compiler: &mut Compiler, endpoints: &[LocalEndpoint]) -> Compiled {
        self.compile_at(compiler, endpoints, BOOT)
    }

    /// Compiles with a boot clock that reads `boot` at [`NOW`].
    #[must_use]
    pub fn compile_at(
        &self,
        compiler: &mut Compiler,
        endpoints: &[LocalEndpoint],
        boot: u64,
    ) -> Compiled {
        self.attempt_with(compiler, endpoints, Clock { now: NOW, boot })
    }

    /// Compiles and publishes after this many nanoseconds on both clocks.
    pub fn compile_later(&self, compiler: &mut Compiler, passed: u32) -> Compiled {
        let clock = Clock {
            now: WallTime(NOW.0 + i64::from(passed)),
            boot: BOOT + u64::from(passed),
        };
        let compiled = self.attempt_with(compiler, &self.endpoints(), clock);
        compiler.in_force();
        compiled
    }

    fn attempt_with(
        &self,
        compiler: &mut Compiler,
        endpoints: &[LocalEndpoint],
        clock: Clock,
    ) -> Compiled {
        let modes = Modes {
            default: Mode::Enforce,
            namespaces: Default::default(),
        };
        let (inventory, policies) = (&self.inventory, &self.policies);
        let inputs = Inputs {
            inventory,
            policies,
            endpoints,
            modes: &modes,
            locked: &[],
            clock,
        };
        compiler.compile(&inputs).unwrap()
    }

    /// Every owned address, and some others in and around the policy prefixes, each once.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let workloads = self.inventory.workloads.values().flat_map(|w| &w.addresses);
        let nodes = self.inventory.nodes.values().flat_map(|n| &n.addresses);
        let outside = [
            "10.0.0.200",
            "10.0.1.201",
            "10.0.0.0",
            "192.0.2.1",
            "fd00::c8",
            "fe80::9",
            "fe80::fa",
            "169.254.1.1",
            "169.254.9.7",
            "169.254.9.255",
            "224.0.0.251",
            "255.255.255.255",
            "127.0.0.1",
            "10.0.0.255",
            "10.96.0.10",
            "::1",
            "ff02::1",
            "fd01::10",
        ];
        let outside = outside.map(|text| text.parse().unwrap());
        let all: BTreeSet<IpAddr> = workloads.chain(nodes).chain(&outside).copied().collect();
        all.into_iter().collect()
    }

    /// The bounds of every port in use, and their neighbours.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<u16> {
        let mut ports = BTreeSet::from([0, 80, 4788, 4789, 4790, 8472, u16::MAX]);
        let mut add = |port: u16| {
            ports.extend([port.saturating_sub(1), port, port.saturating_add(1)]);
        };
        for policy in self.policies.iter() {
            for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
                let Ports::Of(matches) = &rule.ports else {
                    continue;
                };
                for entry in matches {
                    if let PortMatch::Range { first, last, .. } = entry {
                        add(*first);
                        add(*last);
                    }
                }
            }
        }
        for port in self
            .inventory
            .workloads
            .values()
            .flat_map(|workload| &workload.ports)
        {
            ports.insert(port.port);
        }
        ports
    }

    /// Protocol and port of every relevant probe.
    #[must_use]
    pub fn flows(&self) -> Vec<(u8, u16)> {
        let ports = self.ports();
        PROTOCOLS
            .into_iter()
            .flat_map(|protocol| {
                let ported = matches!(protocol, 6 | 17 | 132);
                let worth = ports.iter().filter(move |port| ported || **port < 2);
                worth.map(move |port| (protocol, *port))
            })
            .collect()
    }
}

/// Any world.
pub fn world() -> impl Strategy<Value = World> {
    (inventory(), policies()).prop_map(|(inventory, policies)| World {
        inventory,
        policies,
    })
}

/// Successive worlds; often only the policies or only the inventory differ, often in a single
/// policy or workload.
pub fn history(longest: usize) -> impl Strategy<Value = Vec<World>> {
    let step = (0..7u8, inventory(), policies(), any::<u8>());
    (world(), vec(step, 1..longest)).prop_map(|(first, steps)| {
        let mut worlds = vec![first];
        for (what, inventory, policies, pick) in steps {
            let mut next = worlds[worlds.len() - 1].clone();
            match what {
                0 => next.inventory = inventory,
                1 => next.policies = policies,
                2 => (next.inventory, next.policies) = (inventory, policies),
                6 => next.inventory = with_ranges_of(&next.inventory, &inventory),
                5 => next.inventory = relabelled(&next.inventory, &inventory),
                3 => next.inventory = with_one_of(&next.inventory, &inventory, pick),
                _ => next.policies = with_one_policy_of(&next.policies, &policies, pick),
            }
            worlds.push(next);
        }
        worlds
    })
}

/// The namespaces get the labels of another inventory; nothing else changes.
fn relabelled(inventory: &Inventory, other: &Inventory) -> Arc<Inventory> {
    let mut next = inventory.clone();
    for name in inventory.namespaces.keys() {
        if let Some(other) = other.namespaces.get(name) {
            next.namespaces.insert(name.clone(), other.clone());
        }
    }
    Arc::new(next)
}

/// The node has the ranges of another inventory's; its own addresses are as before.
fn with_ranges_of(inventory: &Inventory, other: &Inventory) -> Arc<Inventory> {
    let network = NodeNetwork {
        own: inventory.network.own.clone(),
        own_ranges: inventory.network.own_ranges.clone(),
        ..NodeNetwork::clone(&other.network)
    };
    Arc::new(Inventory {
        network: Arc::new(network),
        ..inventory.clone()
    })
}

/// A workload of another inventory replaces the one with its addresses, or that one is removed.
fn with_one_of(inventory: &Inventory, other: &Inventory, pick: u8) -> Arc<Inventory> {
    let mut workloads = inventory.workloads.clone();
    let place = usize::from(pick / 2) % other.workloads.len();
    let (_, drawn) = other.workloads.iter().nth(place).unwrap();
    let with_its_name = |id: &&WorkloadId| id.name == drawn.id.name;
    if let Some(id) = inventory.workloads.keys().find(with_its_name) {
        workloads.remove(id);
    }
    if pick.is_multiple_of(2) && inventory.namespaces.contains_key(&drawn.id.namespace) {
        workloads.insert(drawn.id.clone(), Arc::clone(drawn));
    }
    let namespaces = inventory.namespaces.values().cloned().collect();
    let nodes = inventory.nodes.values();
    let listed = nodes.filter_map(|node| {
        let mut node = NodeEntry::clone(node);
        let is_listed = |it: &IpAddr| NODES.iter().any(|listed| it.to_string() == *listed);
        node.addresses.retain(is_listed);
        (!node.addresses.is_empty()).then_some(node)
    });
    let workloads = workloads.values().cloned().collect();
    let built = Inventory::build(namespaces, workloads, listed.collect()).unwrap();
    let built = built.on_node(&NodeName::new("here").unwrap(), &inventory.network);
    Arc::new(built.based_on(inventory))
}

/// A policy of another set is added, or one is removed.
fn with_one_policy_of(policies: &PolicySet, other: &PolicySet, pick: u8) -> Arc<PolicySet> {
    let mut next = policies.clone();
    if pick.is_multiple_of(2) {
        let drawn = other.iter().nth(usize::from(pick / 2) % other.len().max(1));
        drawn.map(|policy| next.policies.insert(policy.id(), Arc::clone(policy)));
    } else {
        let gone = policies
            .iter()
            .nth(usize::from(pick / 2) % policies.len().max(1));
        gone.map(|policy| next.policies.remove(&policy.id()));
    }
    Arc::new(next)
}

fn labels() -> impl Strategy<Value = Labels> {
    let all = vec![
        ("app", "web"),
        ("app", "db"),
        ("tier", "x"),
        ("tier", ""),
        ("canary", "1"),
    ];
    subsequence(all, 0..=3).prop_map(|pairs| Labels::from_pairs(pairs).unwrap())
}

fn named_ports() -> impl Strategy<Value = Vec<NamedPort>> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let one = (select(vec!["web", "dns"]), protocol, select(PORTS.to_vec()));
    vec(one, 0..4).prop_map(|ports| {
        let mut seen = BTreeSet::new();
        let mut declared = Vec::new();
        for (name, protocol, port) in ports {
            if seen.insert((name, protocol)) {
                let name = PortName::new(name).unwrap();
                declared.push(NamedPort {
                    name,
                    protocol,
                    port,
                });
            }
        }
        declared
    })
}

fn workload() -> impl Strategy<Value = (usize, Labels, bool, u8, Vec<NamedPort>)> {
    (
        0..NAMESPACES.len(),
        labels(),
        any::<bool>(),
        0..16u8,
        named_ports(),
    )
}

/// Up to two IPv4 and one IPv6 address in different branches of the nested prefixes, or none.
fn addresses(place: usize, which: u8) -> Vec<IpAddr> {
    let forms = [
        format!("10.0.0.{}", place + 1),
        format!("10.0.1.{}", place + 1),
        format!("fd00::{:x}", place + 1),
        format!("fd00:0:0:1::{:x}", place + 1),
    ];
    let chosen = forms
        .iter()
        .enumerate()
        .filter(|(bit, _)| which >> bit & 1 == 1);
    chosen.map(|(_, text)| text.parse().unwrap()).collect()
}

/// Own addresses, listed ones and others, with broadcast addresses and ranges of the cluster, or neither.
fn network() -> impl Strategy<Value = NodeNetwork> {
    let own = vec![
        "10.0.0.1",
        "10.0.0.250",
        "10.0.0.251",
        "127.0.0.1",
        "fd00::fb",
        "fe80::fa",
    ];
    let cluster = vec!["10.0.0.0/16", "10.96.0.0/12", "fd01::/16"];
    let broadcasts = vec!["10.0.0.255", "169.254.9.255"];
    let own_ranges = vec!["10.0.1.192/26", "169.254.9.0/24"];
    let tunnel_ports = vec![53, 4789, 8472];
    let parts = (
        subsequence(tunnel_ports, 0..=3),
        subsequence(own, 0..=4),
        subsequence(cluster, 0..=2),
        subsequence(broadcasts, 0..=2),
        subsequence(own_ranges, 0..=2),
    );
    parts.prop_map(
        |(tunnel_ports, own, cluster, broadcasts, ranges)| NodeNetwork {
            own: own.iter().map(|it| it.parse().unwrap()).collect(),
            own_ranges: ranges.iter().map(|it| it.parse().unwrap()).collect(),
            cluster: cluster.iter().map(|it| it.parse().unwrap()).collect(),
            broadcasts: broadcasts.iter().map(|it| it.parse().unwrap()).collect(),
            tunnel_ports: tunnel_ports.into_iter().collect(),
        },
    )
}

fn inventory() -> impl Strategy<Value = Arc<Inventory>> {
    (listed(), network()).prop_map(|(listed, network)| {
        let name = NodeName::new("here").unwrap();
        Arc::new(listed.on_node(&name, &Arc::new(network)))
    })
}

fn listed() -> impl Strategy<Value = Inventory> {
    let environments = vec(of(select(vec!["prod", "test"])), NAMESPACES.len());
    let nodes = (any::<bool>(), any::<bool>());
    (
        2..=NAMESPACES.len(),
        environments,
        vec(workload(), 1..=8),
        nodes,
    )
        .prop_map(|(count, environments, workloads, (local, remote))| {
            let namespaces = NAMESPACES
                .iter()
                .take(count)
                .zip(environments)
                .map(|(name, env)| {
                    let labels = Labels::from_pairs(env.map(|env| ("env", env))).unwrap();
                    Namespace::new(NamespaceName::new(name).unwrap(), labels).unwrap()
                });
            let workloads = workloads.into_iter().enumerate().map(|(place, drawn)| {
                let (namespace, labels, account, which, ports) = drawn;
                let name = format!("w{place}");
                Arc::new(Workload {
                    id: WorkloadId::new(NAMESPACES[namespace % count], &name).unwrap(),
                    labels,
                    service_account: account_name(if account { "default" } else { "s" }),
                    addresses: addresses(place, which),
                    ports,
                    interface: None,
                    recency: None,
                })
            });
            let node = |name: &str, addresses: &[&str], local| NodeEntry {
                name: NodeName::new(name).unwrap(),
                addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
                local,
            };
            let nodes = [
                local.then(|| node("here", &NODES[..2], true)),
                remote.then(|| node("there", &NODES[2..], false)),
            ];
            let nodes = nodes.into_iter().flatten().collect();
            Inventory::build(namespaces.collect(), workloads.collect(), nodes).unwrap()
        })
}

fn account_name(name: &str) -> ServiceAccountName {
    ServiceAccountName::new(name).unwrap()
}
