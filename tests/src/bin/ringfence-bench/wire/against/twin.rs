//! Twins: nodes that look the same to the kernel programs.
//!
//! Every twin has its own network namespaces with the same interfaces: the same names, ifindexes,
//! hardware addresses and IP addresses. A program's maps are valid on every twin, so a program can
//! be put on the links of another one. Neighbour entries are permanent, so only the measured frames
//! are sent. A twin has no agent.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use ringfence_testbed::topology::wait_running;
use ringfence_testbed::{Addresses, NetNs, Node, Workload};

use crate::wire::world::ENFORCED;

/// The number of senders. New flows come from each of them in turn, because a workload
/// over its share of unreplied entries replaces its own.
pub(super) const SENDERS: u8 = 8;

const NODE: Addresses = Addresses {
    ip4: Ipv4Addr::new(100, 121, 0, 1),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 0x121, 0, 0, 0, 0, 1),
};
const WORKLOADS: Addresses = Addresses {
    ip4: Ipv4Addr::new(100, 65, 0, 0),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 0x65, 0, 0, 0, 0, 0),
};
/// The ifindex of the first workload on the node, and of `eth0` in each workload.
const FIRST: u32 = 16;
pub(super) const ETH0: u32 = 2;

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// One workload of a twin.
pub(super) struct End {
    pub(super) workload: Workload,
    /// The number of its interface on the node.
    pub(super) ifindex: u32,
    /// The hardware address of its `eth0`, and of the node's side.
    pub(super) mac: Mac,
    pub(super) gateway: Mac,
}

/// A node and its workloads.
pub(super) struct Twin {
    pub(super) node: Node,
    pub(super) senders: Vec<End>,
    pub(super) receiver: End,
}

impl Twin {
    /// Creates one more twin.
    pub(super) fn new() -> Result<Self> {
        let mut node = Node::new()?;
        let old = node.addresses;
        node.addresses = NODE;
        node.ns.ip(&format!(
            "addr del {}/32 dev lo\naddr del {}/128 dev lo\n\
             addr add {}/32 dev lo\naddr add {}/128 dev lo nodad\n",
            old.ip4, old.ip6, NODE.ip4, NODE.ip6
        ))?;
        let senders = (1..=SENDERS).map(|number| End::new(&node, number));
        let senders = senders.collect::<Result<_>>()?;
        let receiver = End::new(&node, SENDERS + 1)?;
        Ok(Self {
            node,
            senders,
            receiver,
        })
    }

    /// Every workload, the receiver last.
    pub(super) fn ends(&self) -> impl Iterator<Item = &End> {
        self.senders.iter().chain([&self.receiver])
    }
}

impl End {
    fn new(node: &Node, number: u8) -> Result<Self> {
        let ns = NetNs::new()?;
        ns.sysctls(&[
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv6.conf.default.router_solicitations", "0"),
        ])?;
        let end = Self {
            workload: Workload {
                namespace: ENFORCED.to_owned(),
                name: format!("end-{number}"),
                interface: format!("rf-end-{number}"),
                ip4: Ipv4Addr::from_bits(WORKLOADS.ip4.to_bits() + u32::from(number)),
                ip6: Ipv6Addr::from_bits(WORKLOADS.ip6.to_bits() + u128::from(number)),
                ns,
            },
            ifindex: FIRST + u32::from(number),
            mac: [2, 0, 0, 0, 1, number],
            gateway: [2, 0, 0, 0, 2, number],
        };
        end.wire(node)?;
        Ok(end)
    }

    fn wire(&self, node: &Node) -> Result<()> {
        let Self {
            workload, ifindex, ..
        } = self;
        let Workload {
            interface,
            ip4,
            ip6,
            ns,
            ..
        } = workload;
        let (mac, gateway) = (text(self.mac), text(self.gateway));
        node.ns.ip(&format!(
            "link add {interface} index {ifindex} address {gateway} type veth \
             peer name eth0 index {ETH0} address {mac} netns {}\n\
             link set {interface} up\n\
             addr add 169.254.1.1/32 dev {interface}\n\
             addr add fe80::1/64 dev {interface} nodad\n\
             route add {ip4}/32 dev {interface} src {}\n\
             route add {ip6}/128 dev {interface} src {}\n\
             neigh replace {ip4} lladdr {mac} dev {interface} nud permanent\n\
             neigh replace {ip6} lladdr {mac} dev {interface} nud permanent\n",
            ns.path().display(),
            NODE.ip4,
            NODE.ip6,
        ))?;
        ns.ip(&format!(
            "link set eth0 up\n\
             addr add {ip4}/32 dev eth0\n\
             addr add {ip6}/128 dev eth0 nodad\n\
             neigh replace 169.254.1.1 lladdr {gateway} dev eth0 nud permanent\n\
             neigh replace fe80::1 lladdr {gateway} dev eth0 nud permanent\n\
             route add default via 169.254.1.1 dev eth0 onlink\n\
             route add default via fe80::1 dev eth0\n"
        ))?;
        let found = node.ifindex(interface)?;
        ensure!(
            found == *ifindex,
            "{interface} has the number {found} instead of {ifindex}: the programs of two builds \
             cannot be put on the same links"
        );
        wait_running(&node.ns, interface)?;
        wait_running(ns, "eth0")
    }
}

fn text(mac: Mac) -> String {
    let bytes: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_written_as_tools_read_it() {
        assert_eq!(text([2, 0, 0, 0, 1, 10]), "02:00:00:00:01:0a");
    }
}
