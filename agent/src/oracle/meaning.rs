//! A naive evaluator, directly on the model.
//!
//! Invariants: shares no code with the compiler, not even for selectors, windows or prefixes; slow
//! and obvious. It returns *which* rules may be named as the deciding one, not which one must be.

use std::{collections::BTreeSet, net::IpAddr};

use ringfence_common::mode::Direction;

use crate::model::{
    Entity, Inventory, LabelSelector, Labels, NamespaceMatch, Operator, Peer, Peers, Policy,
    PolicySet, PortMatch, Ports, Protocol, Rule, RuleAction, Scope, Tier, WallTime, Workload,
};

/// The verdict of one end, and all rules that may be named for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The verdict.
    pub allow: bool,
    /// Whether the deciding rule rejects.
    pub reject: bool,
    /// Names: one of these decided.
    pub deciders: Vec<String>,
}

impl Said {
    fn of(allow: bool, decider: &str) -> Self {
        Self {
            allow,
            reject: false,
            deciders: vec![decider.to_owned()],
        }
    }
}

/// Inventory and policies at a point in time.
#[derive(Clone, Copy)]
pub struct Oracle<'a> {
    /// The inventory.
    pub inventory: &'a Inventory,
    /// The policies.
    pub policies: &'a PolicySet,
    /// The time.
    pub now: WallTime,
}

/// A rule of a side whose peer and time match, with its name.
struct Applicable<'a> {
    rule: &'a Rule,
    name: String,
}

/// A policy with the direction, and those of its rules that may apply, in order.
struct ApplicablePolicy<'a> {
    scope: &'a Scope,
    rules: Vec<Applicable<'a>>,
}

/// The policies of a workload's direction, restricted to one peer.
pub struct Pair<'a> {
    policies: Vec<ApplicablePolicy<'a>>,
    direction: Direction,
    subject: &'a Workload,
    peer: Option<&'a Workload>,
    /// The UDP ports of tunnels that the peer may end, if the subject sends to it.
    tunnels: Option<&'a BTreeSet<u16>>,
}

impl<'a> Oracle<'a> {
    /// The workload that has an address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&'a Workload> {
        let mut workloads = self.inventory.workloads.values();
        workloads
            .find(|workload| workload.addresses.contains(&address))
            .map(AsRef::as_ref)
    }

    /// Whether an address is the local node's, or another node's. Own ranges are the local node's: in an
    /// inventory where it is another one, that one's.
    #[must_use]
    pub fn is_node(&self, address: IpAddr, local: bool) -> bool {
        let nodes = || self.inventory.nodes.values();
        let is_listed =
            nodes().any(|node| node.local == local && node.addresses.contains(&address));
        is_listed || (local == nodes().any(|node| node.local) && self.is_in_own_range(address))
    }

    /// Whether an address that nothing lists is the node's by its range.
    fn is_in_own_range(&self, address: IpAddr) -> bool {
        let network = &self.inventory.network;
        let mut nodes = self.inventory.nodes.values();
        let is_listed =
            self.owner(address).is_some() || nodes.any(|node| node.addresses.contains(&address));
        let mut broadcasts = network.broadcasts.iter();
        let mut ranges = network.own_ranges.iter();
        !is_listed
            && !broadcasts.any(|it| IpAddr::V4(*it) == address)
            && ranges.any(|range| inside(address, ipnet::IpNet::V4(*range)))
    }

    fn is_unlisted(&self, address: IpAddr) -> bool {
        let is_node = self.is_node(address, true) || self.is_node(address, false);
        self.owner(address).is_none() && !is_node
    }

    /// Whether the node's links know an unlisted address as their broadcast address.
    fn is_link_broadcast(&self, address: IpAddr) -> bool {
        let known = &self.inventory.network.broadcasts;
        self.is_unlisted(address) && known.iter().any(|it| IpAddr::V4(*it) == address)
    }

    /// Whether a packet to an address may reach a node itself.
    fn may_end_tunnels(&self, address: IpAddr) -> bool {
        let is_unlisted = self.is_unlisted(address);
        let is_any_node = !is_unlisted && self.owner(address).is_none();
        let is_special = range_of(address).is_some() || self.is_link_broadcast(address);
        let mut cluster = self.inventory.network.cluster.iter();
        let is_of_cluster = cluster.any(|range| inside(address, *range));
        is_any_node || (is_unlisted && (is_special || is_of_cluster))
    }

    /// Whether a range that contains an address is narrow enough to mean it.
    fn names(&self, net: ipnet::IpNet, address: IpAddr) -> bool {
        if self.is_link_broadcast(address) {
            return net.prefix_len() == 32;
        }
        let special: Option<ipnet::IpNet> = range_of(address).map(|text| text.parse().unwrap());
        special.is_none_or(|special| net.prefix_len() >= special.prefix_len())
    }

    /// The verdict of one end, including what is decided before every tier.
    #[must_use]
    pub fn side(
        &self,
        own: IpAddr,
        other: IpAddr,
        direction: Direction,
        (protocol, port): (u8, u16),
    ) -> Said {
        let Some(subject) = self.owner(own) else {
            let name = if own == other {
                "own-address"
            } else {
                "not-a-workload"
            };
            return Said::of(true, name);
        };
        if subject.addresses.contains(&other) {
            return Said::of(true, "own-address");
        }
        if direction == Direction::Ingress && self.is_node(other, true) {
            return Said::of(true, "host-ingress");
        }
        self.pair(subject, other, direction).say(protocol, port)
    }

    /// The rules of a workload's direction that match a peer.
    #[must_use]
    pub fn pair(&self, subject: &'a Workload, other: IpAddr, direction: Direction) -> Pair<'a> {
        let mut policies = Vec::new();
        for policy in self.policies.policies.values() {
            if !self.is_subject(policy, subject) {
                continue;
            }
            let Some(listed) = listed(policy, direction) else {
                continue;
            };
            let mut rules = Vec::new();
            for (index, rule) in listed.iter().enumerate() {
                if self.in_time(rule) && self.is_peer(rule, other) {
                    let name = name_of(policy, direction, index);
                    rules.push(Applicable { rule, name });
                }
            }
            let scope = &policy.scope;
            policies.push(ApplicablePolicy { scope, rules });
        }
        Pair {
            policies,
            direction,
            subject,
            peer: self.owner(other),
            tunnels: (direction == Direction::Egress && self.may_end_tunnels(other))
                .then_some(&self.inventory.network.tunnel_ports),
        }
    }

    fn is_subject(&self, policy: &Policy, workload: &Workload) -> bool {
        let here = match &policy.scope {
            Scope::Namespace(namespace) => *namespace == workload.id.namespace,
            Scope::Cluster { namespaces, .. } => {
                let known = &self.inventory.namespaces;
                let namespace = known.get(&workload.id.namespace).unwrap();
                selects(namespaces, namespace.labels())
            }
        };
        here && selects(&policy.subject, &workload.labels)
    }

    fn in_time(&self, rule: &Rule) -> bool {
        let early = matches!(rule.window.not_before, Some(start) if self.now.0 < start.0);
        let late = matches!(rule.window.expires, Some(end) if self.now.0 >= end.0);
        !early && !late
    }

    fn is_peer(&self, rule: &Rule, address: IpAddr) -> bool {
        let denies = matches!(rule.action, RuleAction::Deny | RuleAction::Reject);
        match &rule.peers {
            Peers::Any => true,
            Peers::NoPeer => false,
            Peers::Of(peers) => peers
                .iter()
                .any(|peer| self.is_this_peer(peer, denies, address)),
        }
    }

    fn is_this_peer(&self, peer: &Peer, denies: bool, address: IpAddr) -> bool {
        match peer {
            Peer::Cidr { net, except } => {
                inside(address, *net)
                    && !except.iter().any(|hole| inside(address, *hole))
                    && (denies || self.names(*net, address))
            }
            Peer::Entity(Entity::Host) => self.is_node(address, true),
            Peer::Entity(Entity::RemoteNode) => self.is_node(address, false),
            Peer::Entity(Entity::World) => {
                let network = &self.inventory.network;
                self.is_unlisted(address)
                    && range_of(address).is_none()
                    && !self.is_link_broadcast(address)
                    && !network.cluster.iter().any(|net| inside(address, *net))
            }
            Peer::Workloads {
                namespaces,
                pods,
                service_account,
            } => {
                let Some(workload) = self.owner(address) else {
                    return false;
                };
                let namespace = match namespaces {
                    NamespaceMatch::Own(name) => workload.id.namespace == *name,
                    NamespaceMatch::Selector(selector) => {
                        let known = &self.inventory.namespaces;
                        let namespace = known.get(&workload.id.namespace).unwrap();
                        selects(selector, namespace.labels())
                    }
                };
                let labels = pods
                    .as_ref()
                    .is_none_or(|selector| selects(selector, &workload.labels));
                let account = service_account
                    .as_ref()
                    .is_none_or(|name| name.as_str() == workload.service_account.as_str());
                namespace && labels && account
            }
        }
    }
}

impl Pair<'_> {
    /// The verdict of the tiers on a protocol and port.
    #[must_use]
    pub fn say(&self, protocol: u8, port: u16) -> Said {
        if let Some(said) = self.cluster_tier(Tier::Admin, protocol, port) {
            return said;
        }
        if let Some(said) = self.namespace_tier(protocol, port) {
            return said;
        }
        if let Some(said) = self.cluster_tier(Tier::Baseline, protocol, port) {
            return said;
        }
        let plain = matches!(protocol, 6 | 17 | 132 | 1 | 58);
        if self.direction == Direction::Egress && !plain {
            return Said::of(false, "raw-protocol");
        }
        if self.is_encapsulated(protocol, port) {
            return Said::of(false, "node-tunnel");
        }
        Said::of(true, "default-allow")
    }

    fn namespace_tier(&self, protocol: u8, port: u16) -> Option<Said> {
        let of_namespaces: Vec<&ApplicablePolicy> = self
            .policies
            .iter()
            .filter(|policy| matches!(policy.scope, Scope::Namespace(_)))
            .collect();
        if of_namespaces.is_empty() {
            return None;
        }
        let rules = of_namespaces.iter().flat_map(|policy| &policy.rules);
        let matching: Vec<&Applicable> = rules
            .filter(|it| self.covers(it.rule, protocol, port))
            .collect();
        Some(strongest(&matching).unwrap_or_else(|| Said::of(false, "default-deny")))
    }

    fn cluster_tier(&self, wanted: Tier, protocol: u8, port: u16) -> Option<Said> {
        for number in self.priorities(wanted) {
            let mut first_of_each = Vec::new();
            for policy in &self.policies {
                if place(policy.scope) == Some((wanted, number)) {
                    let mut rules = policy.rules.iter();
                    first_of_each.extend(rules.find(|it| self.covers(it.rule, protocol, port)));
                }
            }
            let said = strongest(&first_of_each);
            if said.is_some() || !first_of_each.is_empty() {
                return said;
            }
        }
        None
    }

    /// The policies of a tier, lowest priority first.
    fn priorities(&self, wanted: Tier) -> BTreeSet<u16> {
        let places = self.policies.iter().filter_map(|it| place(it.scope));
        let of_tier = places.filter(|(tier, _)| *tier == wanted);
        of_tier.map(|(_, priority)| priority).collect()
    }

    /// Whether the peer would take another packet out of this one.
    fn is_encapsulated(&self, number: u8, port: u16) -> bool {
        self.tunnels.is_some_and(|ports| match number {
            4 | 41 | 47 => true,
            17 => ports.contains(&port),
            _ => false,
        })
    }

    fn covers(&self, rule: &Rule, number: u8, port: u16) -> bool {
        let is_strict = !matches!(rule.action, RuleAction::Deny | RuleAction::Reject)
            && self.is_encapsulated(number, port);
        if is_strict {
            return matches!(&rule.ports, Ports::Of(listed) if listed.iter().any(|it| match it {
                PortMatch::Range { protocol: Protocol::Udp, first, last } => {
                    number == 17 && *first == port && *last == port
                }
                PortMatch::Protocol(Protocol::Number(listed)) => *listed == number,
                _ => false,
            }));
        }
        let Ports::Of(matches) = &rule.ports else {
            return true;
        };
        matches.iter().any(|entry| match entry {
            PortMatch::Protocol(protocol) => is_number(*protocol, number),
            PortMatch::Range {
                protocol,
                first,
                last,
            } => is_number(*protocol, number) && *first <= port && port <= *last,
            PortMatch::Named { protocol, name } => {
                let destination = match self.direction {
                    Direction::Ingress => Some(self.subject),
                    Direction::Egress => self.peer,
                };
                destination
                    .into_iter()
                    .flat_map(|workload| &workload.ports)
                    .any(|declared| {
                        declared.name == *name
                            && declared.port == port
                            && is_number(declared.protocol, number)
                            && protocol.is_none_or(|protocol| protocol == declared.protocol)
                    })
            }
        })
    }
}

/// The result of rules that are combined: deny beats reject beats pass beats allow. `None` if no
/// rule matches, or on pass.
fn strongest(rules: &[&Applicable]) -> Option<Said> {
    let of = |action: RuleAction| -> Vec<String> {
        let those = rules.iter().filter(|it| it.rule.action == action);
        those.map(|it| it.name.clone()).collect()
    };
    let (allow, reject, deciders) = if !of(RuleAction::Deny).is_empty() {
        (false, false, of(RuleAction::Deny))
    } else if !of(RuleAction::Reject).is_empty() {
        (false, true, of(RuleAction::Reject))
    } else if !of(RuleAction::Pass).is_empty() {
        return None;
    } else {
        (true, false, of(RuleAction::Allow))
    };
    (!deciders.is_empty()).then_some(Said {
        allow,
        reject,
        deciders,
    })
}

fn place(scope: &Scope) -> Option<(Tier, u16)> {
    match scope {
        Scope::Namespace(_) => None,
        Scope::Cluster { tier, priority, .. } => Some((*tier, priority.get())),
    }
}

fn name_of(policy: &Policy, direction: Direction, index: usize) -> String {
    let place = match &policy.scope {
        Scope::Namespace(namespace) => format!("{}/", namespace.as_str()),
        Scope::Cluster { .. } => String::new(),
    };
    let way = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    format!("{place}{} {way}[{index}]", policy.name.as_str())
}

fn listed(policy: &Policy, direction: Direction) -> Option<&Vec<Rule>> {
    if direction == Direction::Ingress {
        policy.ingress.as_ref()
    } else {
        policy.egress.as_ref()
    }
}

fn is_number(protocol: Protocol, number: u8) -> bool {
    match protocol {
        Protocol::Tcp => number == 6,
        Protocol::Udp => number == 17,
        Protocol::Sctp => number == 132,
        Protocol::Icmp => number == 1 || number == 58,
        Protocol::Number(wanted) => wanted == number,
    }
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.requirements().iter().all(|requirement| {
        let value = labels
            .iter()
            .find(|(key, _)| *key == requirement.key())
            .map(|(_, v)| v);
        match (requirement.operator(), value) {
            (Operator::In(values), Some(value)) => values.iter().any(|v| v == value),
            (Operator::NotIn(values), Some(value)) => !values.iter().any(|v| v == value),
            (Operator::NotIn(_) | Operator::DoesNotExist, None) => true,
            (Operator::Exists, value) => value.is_some(),
            (Operator::In(_), None) | (Operator::DoesNotExist, Some(_)) => false,
        }
    })
}

/// The range of addresses without a host behind it, or with one on each link, that an address is in.
fn range_of(address: IpAddr) -> Option<&'static str> {
    let all = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/96",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
    ];
    let mut around = all.into_iter();
    around.find(|text| inside(address, text.parse().unwrap()))
}

/// Compares the leading bits one by one.
fn inside(address: IpAddr, net: ipnet::IpNet) -> bool {
    let bits = |address: IpAddr| -> Vec<bool> {
        let bytes = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bytes
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
            .collect()
    };
    let length = usize::from(net.prefix_len());
    address.is_ipv4() == net.network().is_ipv4()
        && bits(address)[..length] == bits(net.network())[..length]
}
