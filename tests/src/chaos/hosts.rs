//! Who is on the node, on which ports, and the interfaces that come and go.

use std::fmt::Write as _;

use anyhow::Result;

use crate::server::{Proto, Server};
use crate::topology::{Node, Workload};

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
    pub(super) fn new(node: Node) -> Result<Self> {
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

    /// Every workload of this node but those of the slots.
    pub(super) fn all(&self) -> [&Workload; 6] {
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

/// The interface of a slot; the other end of the pair is on the node, too.
pub(super) fn slot(number: usize) -> String {
    format!("rf-slot{number}")
}

/// Brings the interfaces of all slots.
pub(super) fn add_slots(node: &Node) -> Result<()> {
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
