//! What a node knows of the addresses around it: its own, those of its links and of its cluster.
//!
//! Invariant: what an address without an owner is depends on these ranges and on nothing else. Facts
//! come from the kernel (own and broadcast addresses) and from the configuration (the cluster's ranges);
//! an owner that the inventory lists for an address goes before all of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use ringfence_common::packet::protocol::UDP;

use super::special_range::{SPECIAL_RANGES, special_range};

/// The addresses and ranges that this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    /// The addresses of the node's interfaces.
    pub own: BTreeSet<IpAddr>,
    /// The ranges of which every address is the node's, unless something lists it.
    pub own_ranges: BTreeSet<Ipv4Net>,
    /// The broadcast addresses of the node's links.
    pub broadcasts: BTreeSet<Ipv4Addr>,
    /// The ranges of the cluster's workloads and Services.
    pub cluster: BTreeSet<IpNet>,
    /// The UDP ports on which nodes take packets out of others.
    pub tunnel_ports: BTreeSet<u16>,
}

/// The UDP ports of VXLAN (4789, and 8472 before it had a number), Geneve (6081) and WireGuard (51820, and
/// 51871 for encryption between nodes).
pub const TUNNEL_PORTS: [u16; 5] = [4789, 6081, 8472, 51_820, 51_871];
/// The protocols in which nodes take packets out of others: IPv4 and IPv6 in IP, and GRE.
pub const TUNNEL_PROTOCOLS: [u8; 3] = [4, 41, 47];

impl Default for NodeNetwork {
    fn default() -> Self {
        Self {
            own: BTreeSet::new(),
            own_ranges: BTreeSet::new(),
            broadcasts: BTreeSet::new(),
            cluster: BTreeSet::new(),
            tunnel_ports: TUNNEL_PORTS.into(),
        }
    }
}

/// What an address is that nothing lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// In a range of the node's own.
    Own,
    /// In this special range, or a broadcast address, which is a range of its own.
    Special(IpNet),
    /// In a range of the cluster.
    Cluster,
    /// Outside of both.
    World,
}

/// A range of a cluster, masked. None if the text is no prefix, or one of all addresses of a family: nothing would
/// be `world` then.
#[must_use]
pub fn cluster_range(text: &str) -> Option<IpNet> {
    let range = text.parse::<IpNet>().ok()?;
    (range.prefix_len() > 0).then(|| range.trunc())
}

/// Whether nodes with tunnels at these UDP ports take packets out of those with this protocol and
/// destination port.
#[must_use]
pub fn is_tunnel(ports: &BTreeSet<u16>, protocol: u8, port: u16) -> bool {
    TUNNEL_PROTOCOLS.contains(&protocol) || (protocol == UDP && ports.contains(&port))
}

impl NodeNetwork {
    /// What the unlisted addresses of a network are. A network that is wider than a range is not in it.
    #[must_use]
    pub fn unlisted(&self, net: &IpNet) -> Unlisted {
        if self.is_broadcast(net) {
            return Unlisted::Special(*net);
        }
        let special = special_range(net);
        let holds = |range: &Ipv4Net| {
            let range = IpNet::V4(*range);
            range.contains(net) && special.is_none_or(|special| special.contains(&range))
        };
        if self.own_ranges.iter().any(holds) {
            return Unlisted::Own;
        }
        if let Some(range) = special {
            return Unlisted::Special(range);
        }
        if self.cluster.iter().any(|range| range.contains(net)) {
            return Unlisted::Cluster;
        }
        Unlisted::World
    }

    /// Whether the network is one of the ranges that tell unlisted addresses apart.
    #[must_use]
    pub fn has_range(&self, net: &IpNet) -> bool {
        let is_special = SPECIAL_RANGES.iter().any(|(range, _)| range == net);
        let is_own = matches!(net, IpNet::V4(net) if self.own_ranges.contains(net));
        is_special || is_own || self.is_broadcast(net) || self.cluster.contains(net)
    }

    /// Every range that tells unlisted addresses apart.
    #[must_use]
    pub fn ranges(&self) -> BTreeSet<IpNet> {
        let special = SPECIAL_RANGES.iter().map(|(range, _)| *range);
        let mut ranges: BTreeSet<IpNet> = special.chain(self.cluster.iter().copied()).collect();
        ranges.extend(self.own_ranges.iter().copied().map(IpNet::V4));
        ranges.extend(
            self.broadcasts
                .iter()
                .map(|it| IpNet::from(IpAddr::V4(*it))),
        );
        ranges
    }

    /// The ranges in which unlisted addresses are something else than with another network.
    #[must_use]
    pub fn changed(&self, other: &Self) -> BTreeSet<IpNet> {
        let cluster = self.cluster.symmetric_difference(&other.cluster).copied();
        let broadcasts = self.broadcasts.symmetric_difference(&other.broadcasts);
        let broadcasts = broadcasts.map(|it| IpNet::from(IpAddr::V4(*it)));
        let own = self.own_ranges.symmetric_difference(&other.own_ranges);
        let own = own.copied().map(IpNet::V4);
        cluster.chain(broadcasts).chain(own).collect()
    }

    fn is_broadcast(&self, net: &IpNet) -> bool {
        match net {
            IpNet::V4(net) => net.prefix_len() == 32 && self.broadcasts.contains(&net.addr()),
            IpNet::V6(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn unlisted_addresses_are_of_the_narrowest_kind() {
        let network = NodeNetwork {
            broadcasts: ["10.0.0.255", "169.254.9.255"]
                .map(|it| it.parse().unwrap())
                .into(),
            cluster: ["10.0.0.0/16", "fd00:1::/32", "fe80:0:9::/48"]
                .map(net)
                .into(),
            own_ranges: ["10.0.9.0/24", "169.254.9.0/24", "192.0.0.0/2"]
                .map(|it| it.parse().unwrap())
                .into(),
            ..NodeNetwork::default()
        };
        let special = |text| Unlisted::Special(net(text));
        for (asked, expected) in [
            ("10.0.0.255/32", special("10.0.0.255/32")),
            ("10.0.0.254/31", Unlisted::Cluster),
            ("10.0.0.254/32", Unlisted::Cluster),
            ("10.0.0.0/15", Unlisted::World),
            ("169.254.9.255/32", special("169.254.9.255/32")),
            ("169.254.8.254/32", special("169.254.0.0/16")),
            ("169.254.9.254/32", Unlisted::Own),
            ("10.0.9.0/24", Unlisted::Own),
            ("10.0.8.0/23", Unlisted::Cluster),
            ("224.0.0.1/32", special("224.0.0.0/4")),
            ("fd00:1::7/128", Unlisted::Cluster),
            ("fe80:0:9::1/128", special("fe80::/10")),
            ("192.0.2.1/32", Unlisted::Own),
            ("172.16.0.1/32", Unlisted::World),
            ("::/0", Unlisted::World),
        ] {
            assert_eq!(network.unlisted(&net(asked)), expected, "{asked}");
        }
    }
}
