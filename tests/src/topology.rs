//! A node and its workloads, connected as with Calico: routed, no bridge.
//!
//! The node has its addresses on `lo` and one host route per workload; a workload has `eth0` with
//! a /32 and a /128 and reaches everything through link-local gateways on the host side of its
//! veth pair (169.254.1.1 and fe80::1). ARP and neighbour discovery run as usual.
//!
//! Addresses are unique in the whole process. They stay out of 198.18.0.0/15 and
//! 2001:db8:18::/48, which are free for tests that need fixed addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::net::if_::InterfaceFlags;

use crate::inventory::InventoryBuilder;
use crate::netns::NetNs;
use crate::wait::eventually;

const WORKLOADS: Addresses = Addresses::new([100, 64, 0, 0], 0x0064);
const OUTSIDE: Addresses = Addresses::new([100, 96, 0, 0], 0x0096);
const NODES: Addresses = Addresses::new([100, 120, 0, 0], 0x0120);

/// One IPv4 and one IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 address.
    pub ip4: Ipv4Addr,
    /// The IPv6 address.
    pub ip6: Ipv6Addr,
}

impl Addresses {
    const fn new(ip4: [u8; 4], subnet: u16) -> Self {
        let [a, b, c, d] = ip4;
        Self {
            ip4: Ipv4Addr::new(a, b, c, d),
            ip6: Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, 0),
        }
    }

    fn plus(self, number: u32) -> Self {
        Self {
            ip4: Ipv4Addr::from_bits(self.ip4.to_bits() + number),
            ip6: Ipv6Addr::from_bits(self.ip6.to_bits() + u128::from(number)),
        }
    }
}

fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The node: it routes between its workloads, and the agent runs on it.
#[derive(Debug)]
pub struct Node {
    /// The node's name in inventories.
    pub name: String,
    /// The node's addresses.
    pub addresses: Addresses,
    /// The node's network namespace.
    pub ns: NetNs,
}

/// A workload or an external host: a network namespace behind a veth pair.
#[derive(Debug)]
pub struct Workload {
    /// Its policy namespace, e.g. `shop`.
    pub namespace: String,
    /// Its name, e.g. `orders-1`.
    pub name: String,
    /// The host-side interface, in the node's network namespace. The other side is `eth0`.
    pub interface: String,
    /// Its IPv4 address.
    pub ip4: Ipv4Addr,
    /// Its IPv6 address.
    pub ip6: Ipv6Addr,
    /// Its network namespace.
    pub ns: NetNs,
}

impl Workload {
    /// Its IPv6 address if `v6`, else its IPv4 address.
    #[must_use]
    pub fn ip(&self, v6: bool) -> IpAddr {
        if v6 { self.ip6.into() } else { self.ip4.into() }
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.ip4.into(), self.ip6.into()]
    }
}

impl Node {
    /// A node without workloads.
    pub fn new() -> Result<Self> {
        let addresses = NODES.plus(next_number());
        let ns = NetNs::new()?;
        let mut settings = vec![
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            // The host side must have no link-local address but fe80::1.
            ("net.ipv6.conf.default.addr_gen_mode", "1"),
        ];
        settings.extend(QUIET);
        ns.sysctls(&settings)?;
        let Addresses { ip4, ip6 } = addresses;
        ns.ip(&format!(
            "addr add {ip4}/32 dev lo\naddr add {ip6}/128 dev lo nodad\n"
        ))?;
        Ok(Self {
            name: "node-1".to_owned(),
            addresses,
            ns,
        })
    }

    /// Both addresses of the node, IPv4 first.
    #[must_use]
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.addresses.ip4.into(), self.addresses.ip6.into()]
    }

    /// A new workload with unique addresses.
    pub fn workload(&self, namespace: &str, name: &str) -> Result<Workload> {
        self.workload_at(namespace, name, WORKLOADS.plus(next_number()))
    }

    /// A new workload with the given addresses.
    pub fn workload_at(&self, namespace: &str, name: &str, at: Addresses) -> Result<Workload> {
        let interface = interface_name(name, next_number());
        self.workload_on(namespace, name, at, &interface)
    }

    /// A new workload with the given addresses and host-side interface name.
    pub fn workload_on(
        &self,
        namespace: &str,
        name: &str,
        at: Addresses,
        interface: &str,
    ) -> Result<Workload> {
        let ns = NetNs::new()?;
        ns.sysctls(&QUIET)?;
        let workload = Workload {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            interface: interface.to_owned(),
            ip4: at.ip4,
            ip6: at.ip6,
            ns,
        };
        self.attach(&workload)
            .with_context(|| format!("attaching {namespace}/{name}"))?;
        Ok(workload)
    }

    /// An external host: attached like a workload, with an address of another range and no policy
    /// namespace.
    pub fn outside(&self, name: &str) -> Result<Workload> {
        self.workload_at("", name, OUTSIDE.plus(next_number()))
    }

    /// Deletes the veth pair and creates it again with the same name and the workload's addresses,
    /// which may have been changed. The ifindex is new. Sockets in the workload survive.
    pub fn recreate(&self, workload: &mut Workload) -> Result<()> {
        self.detach(workload)?;
        self.attach(workload)
            .with_context(|| format!("recreating the interface of {}", workload.name))
    }

    /// Removes a workload; when this returns its interface is gone.
    pub fn remove(&self, workload: Workload) -> Result<()> {
        self.detach(&workload)?;
        drop(workload);
        Ok(())
    }

    /// The interface's index in the node's network namespace.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        self.ns
            .run(|| nix::net::if_::if_nametoindex(interface))?
            .with_context(|| format!("looking for {interface}"))
    }

    /// An inventory that contains only this node, as the local one.
    #[must_use]
    pub fn inventory(&self) -> InventoryBuilder {
        InventoryBuilder::new(&self.name, &self.ips())
    }

    fn detach(&self, workload: &Workload) -> Result<()> {
        self.ns.ip(&format!("link del {}\n", workload.interface))
    }

    fn attach(&self, workload: &Workload) -> Result<()> {
        let Workload {
            interface,
            ip4,
            ip6,
            ..
        } = workload;
        let node = self.addresses;
        let peer = workload.ns.path();
        self.ns.ip(&format!(
            "link add {interface} type veth peer name eth0 netns {}\n\
             link set {interface} up\n\
             addr add 169.254.1.1/32 dev {interface}\n\
             addr add fe80::1/64 dev {interface} nodad\n\
             route add {ip4}/32 dev {interface} src {}\n\
             route add {ip6}/128 dev {interface} src {}\n",
            peer.display(),
            node.ip4,
            node.ip6,
        ))?;
        workload.ns.ip(&format!(
            "link set eth0 up\n\
             addr add {ip4}/32 dev eth0\n\
             addr add {ip6}/128 dev eth0 nodad\n\
             route add default via 169.254.1.1 dev eth0 onlink\n\
             route add default via fe80::1 dev eth0\n"
        ))?;
        wait_running(&self.ns, interface)?;
        wait_running(&workload.ns, "eth0")
    }
}

/// No delays and no rate limits: duplicate address detection would delay the first packets, and
/// reverse path filtering and ICMP rate limits would drop packets that probes count.
const QUIET: [(&str, &str); 10] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "1000000"),
    ("net.ipv4.icmp_msgs_burst", "1000000"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
];

/// Waits until an interface is running. A link that just came up drops what is sent before the
/// kernel's link watch has run.
pub fn wait_running(ns: &NetNs, interface: &str) -> Result<()> {
    let what = format!("{interface} running");
    eventually(Duration::from_secs(5), &what, || {
        let flags = ns.run(|| -> nix::Result<_> {
            Ok(nix::ifaddrs::getifaddrs()?
                .find(|found| found.interface_name == interface)
                .map(|found| found.flags))
        })??;
        let flags = flags.ok_or_else(|| anyhow!("no interface {interface}"))?;
        let ready = InterfaceFlags::IFF_RUNNING | InterfaceFlags::IFF_UP;
        Ok(flags.contains(ready).then_some(()))
    })
}

/// Interface names have at most 15 bytes; the number makes them unique, the rest is for readers.
fn interface_name(name: &str, number: u32) -> String {
    let number = format!("{number:x}");
    let room = 15_usize.saturating_sub("rf--".len() + number.len());
    let short: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(room)
        .collect();
    format!("rf-{short}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit() {
        assert_eq!(interface_name("orders-1", 0x1a), "rf-orders1-1a");
        assert!(interface_name("a-very-long-workload-name", u32::MAX).len() <= 15);
        assert_eq!(interface_name("é/", 1), "rf--1");
    }
}
