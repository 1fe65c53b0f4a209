//! What a cluster is to be like. Pure data.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// The most nodes of one cluster.
pub const MAX_NODES: u8 = 16;
/// The longest name; it becomes part of cgroup names and of paths of sockets.
const MAX_NAME: usize = 30;

/// A cluster as asked for.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name of the cluster
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Number of nodes
    #[arg(long, default_value_t = 2)]
    pub nodes: u8,
    /// IP families of pods, Services and nodes
    #[arg(long, value_enum, default_value_t)]
    pub ip_family: IpFamily,
    /// Mode of kube-proxy
    #[arg(long, value_enum, default_value_t)]
    pub proxy: ProxyMode,
    /// CNI plugin that connects pods to their node
    #[arg(long, value_enum, default_value_t)]
    pub cni: CniPlugin,
    /// How packets for pods get from node to node
    #[arg(long, value_enum, default_value_t)]
    pub network: Network,
}

/// IP families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4 only
    #[default]
    Ipv4,
    /// IPv4 first, and IPv6
    Dual,
}

/// Modes of kube-proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum ProxyMode {
    /// The present default of distributions that follow upstream
    #[default]
    Nftables,
    /// The older one
    Iptables,
}

/// Plugins that connect pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum CniPlugin {
    /// A routed veth pair for each pod
    #[default]
    Ptp,
    /// Pods of a node on one bridge
    Bridge,
}

/// Networks between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Network {
    /// Plain routes
    #[default]
    Routes,
    /// An overlay with one tunnel address per node, as flannel has
    Vxlan,
}

impl Spec {
    /// Two nodes, IPv4, nftables, ptp, routes.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            nodes: 2,
            ip_family: IpFamily::default(),
            proxy: ProxyMode::default(),
            cni: CniPlugin::default(),
            network: Network::default(),
        }
    }

    /// The same with a name that no other process uses.
    #[must_use]
    pub fn unnamed() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self::new(format!("t{process}-{number}"))
    }

    /// Whether there is IPv6 in addition to IPv4.
    #[must_use]
    pub fn is_dual(&self) -> bool {
        self.ip_family == IpFamily::Dual
    }

    /// The numbers of the nodes, which count from 1.
    pub fn node_numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.nodes
    }

    /// Bytes that fit into a packet of a pod.
    #[must_use]
    pub fn pod_mtu(&self) -> u16 {
        match self.network {
            Network::Routes => 1500,
            // Outer Ethernet, IPv4, UDP and VXLAN headers take 50.
            Network::Vxlan => 1450,
        }
    }

    /// An error if there can be no such cluster.
    pub fn validate(&self) -> Result<()> {
        check_name(&self.name)?;
        ensure!(
            (1..=MAX_NODES).contains(&self.nodes),
            "{} nodes: a cluster has 1 to {MAX_NODES}",
            self.nodes
        );
        Ok(())
    }
}

/// The name of a node, which is the same in every cluster.
#[must_use]
pub fn node_name(number: u8) -> String {
    format!("n{number}")
}

/// An error unless `name` can be the name of a cluster, which becomes part of paths.
pub fn check_name(name: &str) -> Result<()> {
    let permitted = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(permitted)
            && !name.starts_with('-'),
        "{name:?} cannot be the name of a cluster: use 1 to {MAX_NAME} of a-z, 0-9 and -"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for bad in ["", "..", "a/b", "-x", "A", "a b", &"a".repeat(31)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "default", "t12-1", &"a".repeat(30)] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn the_number_of_nodes_is_limited() {
        let with = |nodes| Spec {
            nodes,
            ..Spec::new("a")
        };
        assert!(with(0).validate().is_err());
        assert!(with(1).validate().is_ok());
        assert!(with(MAX_NODES + 1).validate().is_err());
    }

    #[test]
    fn unnamed_clusters_have_different_names() {
        let (one, other) = (Spec::unnamed(), Spec::unnamed());
        assert_ne!(one.name, other.name);
        assert!(one.validate().is_ok());
    }
}
