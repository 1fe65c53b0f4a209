//! The address ranges of a cluster, which follow from its number.
//!
//! Clusters with different numbers have no address in common. A cluster's addresses are in its
//! namespaces only, so they collide with nothing on the host either.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How many clusters have ranges of their own.
pub const CLUSTERS: u8 = 64;

/// Ranges of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    number: u8,
}

impl Ranges {
    /// Those of cluster `number`, which is below [`CLUSTERS`]; higher ones share ranges.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self {
            number: number % CLUSTERS,
        }
    }

    /// The control plane's address, which is also the nodes' gateway.
    #[must_use]
    pub fn control_plane4(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.number, 1)
    }

    /// The same for IPv6.
    #[must_use]
    pub fn control_plane6(self) -> Ipv6Addr {
        self.ipv6(0xfd30, 0, 1)
    }

    /// The address of a node.
    #[must_use]
    pub fn node4(self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.number, 10 + node)
    }

    /// The same for IPv6.
    #[must_use]
    pub fn node6(self, node: u8) -> Ipv6Addr {
        self.ipv6(0xfd30, 0, 10 + u16::from(node))
    }

    /// The range of a node's pods, `/24`.
    #[must_use]
    pub fn pods4(self, node: u8) -> String {
        format!("{}/24", self.tunnel4(node))
    }

    /// The range of a node's pods, `/64`.
    #[must_use]
    pub fn pods6(self, node: u8) -> String {
        format!("{}/64", self.tunnel6(node))
    }

    /// The first address of a node's pod range, which the overlay uses.
    #[must_use]
    pub fn tunnel4(self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 128 + self.number, node, 0)
    }

    /// The same for IPv6.
    #[must_use]
    pub fn tunnel6(self, node: u8) -> Ipv6Addr {
        self.ipv6(0xfd44, u16::from(node), 0)
    }

    /// The range of all pods.
    #[must_use]
    pub fn all_pods(self, dual: bool) -> String {
        let ipv4 = format!("{}/16", self.tunnel4(0));
        joined(ipv4, &format!("{}/48", self.tunnel6(0)), dual)
    }

    /// The range of Services.
    #[must_use]
    pub fn services(self, dual: bool) -> String {
        let ipv4 = format!("{}/16", self.service4(0));
        joined(ipv4, &format!("{}/112", self.ipv6(0xfd96, 0, 0)), dual)
    }

    /// The address of the Service `kubernetes.default`.
    #[must_use]
    pub fn kubernetes_service(self) -> Ipv4Addr {
        self.service4(1)
    }

    /// The address that pods are told to ask for names.
    #[must_use]
    pub fn dns_service(self) -> Ipv4Addr {
        self.service4(10)
    }

    /// The hardware address of a node's end of the overlay.
    #[must_use]
    pub fn tunnel_mac(self, node: u8) -> String {
        format!("02:72:66:{:02x}:00:{node:02x}", self.number)
    }

    fn service4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 64 + self.number, 0, host)
    }

    fn ipv6(self, first: u16, subnet: u16, host: u16) -> Ipv6Addr {
        let number = u16::from(self.number);
        Ipv6Addr::new(first, 0, number, subnet, 0, 0, 0, host)
    }
}

fn joined(ipv4: String, ipv6: &str, dual: bool) -> String {
    if dual { format!("{ipv4},{ipv6}") } else { ipv4 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::MAX_NODES;
    use std::collections::BTreeSet;

    #[test]
    fn the_ranges_of_a_cluster() {
        let ranges = Ranges::new(7);
        assert_eq!(ranges.control_plane4().to_string(), "172.30.7.1");
        assert_eq!(ranges.node4(2).to_string(), "172.30.7.12");
        assert_eq!(ranges.node6(2).to_string(), "fd30:0:7::c");
        assert_eq!(ranges.pods4(2), "10.135.2.0/24");
        assert_eq!(ranges.pods6(2), "fd44:0:7:2::/64");
        assert_eq!(ranges.all_pods(false), "10.135.0.0/16");
        assert_eq!(ranges.all_pods(true), "10.135.0.0/16,fd44:0:7::/48");
        assert_eq!(ranges.services(true), "10.71.0.0/16,fd96:0:7::/112");
        assert_eq!(ranges.kubernetes_service().to_string(), "10.71.0.1");
        assert_eq!(ranges.tunnel_mac(16), "02:72:66:07:00:10");
    }

    #[test]
    fn no_two_clusters_share_a_range() {
        let mut seen = BTreeSet::new();
        for number in 0..CLUSTERS {
            let ranges = Ranges::new(number);
            assert!(seen.insert(ranges.all_pods(false)));
            assert!(seen.insert(ranges.services(false)));
            assert!(seen.insert(ranges.control_plane4().to_string()));
            for node in 1..=MAX_NODES {
                assert!(seen.insert(ranges.node4(node).to_string()));
                assert!(seen.insert(ranges.pods4(node)));
                assert!(seen.insert(ranges.pods6(node)));
            }
        }
    }
}
