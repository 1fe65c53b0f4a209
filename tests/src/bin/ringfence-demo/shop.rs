//! The shop: the workloads of `policies/inventory.toml`, with its addresses and interfaces.
//!
//! Each workload is a network namespace with real servers on the ports that the inventory names,
//! over TCP and UDP. Customers are an outside host that is in no inventory. Policies are not known
//! here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use ringfence_testbed::http::HttpServer;
use ringfence_testbed::{Addresses, Node, Proto, Server, Workload};
use serde::Deserialize;

/// The inventory, which the agent gets too.
pub(crate) const INVENTORY: &str = include_str!("../../../../policies/inventory.toml");
/// The policies that the agent gets.
pub(crate) const POLICIES: &str = include_str!("../../../../policies/shop.toml");

#[derive(Deserialize)]
struct Inventory {
    workload: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    namespace: String,
    addresses: Vec<IpAddr>,
    interface: String,
    #[serde(default)]
    ports: BTreeMap<String, String>,
}

/// A workload with its servers.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) workload: Workload,
    servers: Option<Servers>,
}

#[derive(Debug)]
struct Servers {
    port: u16,
    http: HttpServer,
    udp: Server,
}

impl Member {
    /// `namespace/name`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.workload.namespace, self.workload.name)
    }

    /// The port it serves.
    pub(crate) fn port(&self) -> Result<u16> {
        Ok(self.servers()?.port)
    }

    /// Its HTTP server.
    pub(crate) fn http(&self) -> Result<&HttpServer> {
        Ok(&self.servers()?.http)
    }

    /// Its UDP server, on the same port.
    pub(crate) fn udp(&self) -> Result<&Server> {
        Ok(&self.servers()?.udp)
    }

    fn servers(&self) -> Result<&Servers> {
        let servers = self.servers.as_ref();
        servers.with_context(|| format!("{} serves nothing", self.name()))
    }
}

/// The node, the shop's workloads and the customers' host.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) node: Node,
    pub(crate) members: Vec<Member>,
    pub(crate) customer: Workload,
}

impl Shop {
    /// Creates the namespaces and starts the servers.
    pub(crate) fn open() -> Result<Self> {
        let inventory: Inventory = toml::from_str(INVENTORY)?;
        let node = Node::new()?;
        let members = inventory
            .workload
            .iter()
            .map(|entry| member(&node, entry))
            .collect::<Result<_>>()?;
        let at = Addresses {
            ip4: Ipv4Addr::new(203, 0, 113, 9),
            ip6: Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, 9),
        };
        let customer = node.workload_on("", "customer", at, "rf-customer")?;
        Ok(Self {
            node,
            members,
            customer,
        })
    }

    /// A workload by its name, without the namespace.
    pub(crate) fn member(&self, name: &str) -> Result<&Member> {
        let found = self.members.iter().find(|m| m.workload.name == name);
        found.with_context(|| format!("the inventory has no workload {name}"))
    }

    /// Rows that describe the workloads.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |member: &Member| {
            let Workload {
                ip4,
                ip6,
                interface,
                ..
            } = &member.workload;
            let serves = match &member.servers {
                Some(servers) => format!("serves tcp/{}", servers.port),
                None => "serves nothing".to_owned(),
            };
            vec![
                member.name(),
                ip4.to_string(),
                ip6.to_string(),
                interface.clone(),
                serves,
            ]
        };
        self.members.iter().map(row).collect()
    }
}

fn member(node: &Node, entry: &Entry) -> Result<Member> {
    let ip4 = entry.addresses.iter().find_map(|ip| match ip {
        IpAddr::V4(ip4) => Some(*ip4),
        IpAddr::V6(_) => None,
    });
    let ip6 = entry.addresses.iter().find_map(|ip| match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip6) => Some(*ip6),
    });
    let at = ip4.zip(ip6).map(|(ip4, ip6)| Addresses { ip4, ip6 });
    let at = at.with_context(|| format!("{} must have an address of each family", entry.name))?;
    let workload = node.workload_on(&entry.namespace, &entry.name, at, &entry.interface)?;
    let port = entry.ports.values().find_map(|p| p.strip_prefix("tcp/"));
    let servers = match port {
        Some(port) => {
            let port = port.parse().context("parsing a port of the inventory")?;
            Some(Servers {
                port,
                http: HttpServer::start(&workload.ns, port, &entry.name)?,
                udp: Server::start(&workload.ns, &[(Proto::Udp, port)])?,
            })
        }
        None => None,
    };
    Ok(Member { workload, servers })
}
