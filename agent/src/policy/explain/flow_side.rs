//! A flow from the perspective of one end: itself, the other side, the port and the time.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use ringfence_common::{mode::Direction, packet::protocol};

use super::super::flow::{Flow, Party};
use crate::model::{
    Claimant, Inventory, NodeEntry, NodeName, Protocol, Service, Unlisted, WallTime, Workload,
    is_tunnel, special_range_name, special_range_of,
};

/// What an address is in this inventory.
#[derive(Debug, Clone, Copy)]
pub(super) enum PartyKind<'a> {
    Workload(&'a Workload),
    Host(&'a NodeName),
    RemoteNode(&'a NodeName),
    World,
    /// Nothing lists it, and it is in this special range.
    Special(IpNet),
    /// Nothing lists it, and it is in a range of the cluster.
    Cluster,
    /// A Service alone has it.
    Service(&'a Service),
    /// Several claim the address, and it has no owner.
    Unknown,
}

impl<'a> PartyKind<'a> {
    pub(super) fn of(party: &Party<'a>, inventory: &'a Inventory) -> Self {
        if let Some(dispute) = inventory.disputed.get(&party.address) {
            return Self::of_owner(dispute.owner(), inventory);
        }
        if let Some(workload) = party.workload {
            return Self::Workload(workload);
        }
        let mut nodes = inventory.nodes.values();
        match nodes.find(|node| node.addresses.contains(&party.address)) {
            Some(node) => Self::of_node(node),
            // Several Services have no part in it.
            None if inventory.is_service(party.address) => inventory
                .service_at(party.address)
                .map_or(Self::Unknown, |service| Self::Service(service)),
            None => match inventory.network.unlisted(&IpNet::from(party.address)) {
                Unlisted::Special(range) => Self::Special(range),
                Unlisted::Cluster => Self::Cluster,
                Unlisted::World => Self::World,
                // A node with such ranges is listed.
                Unlisted::Own => inventory
                    .local_node()
                    .map_or(Self::Unknown, |node| Self::of_node(node)),
            },
        }
    }

    /// The owner of a disputed address, which need not be the workload that the query named.
    fn of_owner(owner: Option<&Claimant>, inventory: &'a Inventory) -> Self {
        let kind = match owner {
            Some(Claimant::Workload(id)) => inventory.workload(id).map(|it| Self::Workload(it)),
            Some(Claimant::Node(name)) => inventory.nodes.get(name).map(|node| Self::of_node(node)),
            None => None,
        };
        kind.unwrap_or(Self::Unknown)
    }

    const fn of_node(node: &'a NodeEntry) -> Self {
        if node.local {
            Self::Host(&node.name)
        } else {
            Self::RemoteNode(&node.name)
        }
    }
}

impl fmt::Display for PartyKind<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => write!(out, "{}", workload.id),
            Self::Host(name) => write!(out, "node {name} (this node)"),
            Self::RemoteNode(name) => write!(out, "node {name}"),
            Self::World => out.write_str("world"),
            Self::Special(range) => out.write_str(special_range_name(range)),
            Self::Cluster => out.write_str("an unlisted address of the cluster"),
            Self::Service(service) => write!(out, "Service {}", service.id),
            Self::Unknown => out.write_str("unknown: several claim the address"),
        }
    }
}

/// One direction of a workload, for one flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowSide<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) now: WallTime,
    pub(super) direction: Direction,
    /// The workload whose policies are evaluated.
    pub(super) subject: &'a Workload,
    /// The other side.
    pub(super) other: PartyKind<'a>,
    /// The other side's address.
    pub(super) address: IpAddr,
    pub(super) flow: &'a Flow<'a>,
}

impl<'a> FlowSide<'a> {
    /// The receiving workload, which declares named ports.
    pub(super) fn destination(&self) -> Option<&'a Workload> {
        match (self.direction, self.other) {
            (Direction::Ingress, _) => Some(self.subject),
            (Direction::Egress, PartyKind::Workload(workload)) => Some(workload),
            (Direction::Egress, _) => None,
        }
    }

    /// The special range that the other side's address lies in, with or without an owner.
    pub(super) fn special(&self) -> Option<IpNet> {
        match self.other {
            PartyKind::Special(range) => Some(range),
            _ => special_range_of(self.address),
        }
    }

    /// Whether the flow leads into a tunnel of a node.
    pub(super) fn enters_tunnel(&self) -> bool {
        let is_end = matches!(
            self.other,
            PartyKind::Host(_)
                | PartyKind::RemoteNode(_)
                | PartyKind::Special(_)
                | PartyKind::Cluster
                | PartyKind::Service(_)
        );
        let ports = &self.inventory.network.tunnel_ports;
        is_end
            && self.direction == Direction::Egress
            && is_tunnel(ports, self.flow.protocol, self.flow.port)
    }

    /// The flow's port in policy syntax.
    pub(super) fn port(&self) -> String {
        port_text(self.flow)
    }
}

/// `tcp/8080`, or a protocol without ports.
pub(super) fn port_text(flow: &Flow<'_>) -> String {
    let protocol = Protocol::from_number(flow.protocol);
    if protocol.has_ports() {
        format!("{protocol}/{}", flow.port)
    } else {
        protocol.to_string()
    }
}

/// True for tunnels and raw protocols, which need an explicit egress rule.
pub(super) const fn is_raw(number: u8) -> bool {
    !matches!(
        number,
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6
    )
}
