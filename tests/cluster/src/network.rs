//! The network between nodes: a bridge in the control plane's namespace, a veth pair to each node,
//! and routes or an overlay for pods.
//!
//! The functions return lines for `ip -batch`; they change nothing themselves.

use std::fmt::Write as _;

use crate::home::Description;
use crate::ledger::ProcessId;
use crate::spec::{CniPlugin, Network};

/// The node's end of the overlay.
const TUNNEL: &str = "vxlan0";

/// Sets up the control plane's end, without nodes.
pub(crate) fn bridge(description: &Description) -> String {
    let ranges = description.ranges();
    let mut lines = format!(
        "link set lo up\nlink add br0 type bridge\nlink set br0 up\naddr add {}/24 dev br0\n",
        ranges.control_plane4()
    );
    if description.spec.is_dual() {
        let _ = writeln!(
            lines,
            "addr add {}/64 dev br0 nodad",
            ranges.control_plane6()
        );
    }
    lines
}

/// Connects node `number`, whose network namespace is that of `holder`, to the bridge.
pub(crate) fn link(number: u8, holder: ProcessId) -> String {
    let pid = holder.pid;
    format!(
        "link add v{number} type veth peer name eth0 netns {pid}\nlink set v{number} master br0 up\n"
    )
}

/// The control plane's routes to pods.
pub(crate) fn routes_to_pods(description: &Description) -> String {
    let numbers = description.spec.node_numbers();
    numbers.map(|number| route(description, number)).collect()
}

/// Addresses and routes in the namespace of node `number`.
pub(crate) fn node(description: &Description, number: u8) -> String {
    let (ranges, spec) = (description.ranges(), &description.spec);
    let mut lines = format!(
        "link set lo up\naddr add {}/24 dev eth0\n",
        ranges.node4(number)
    );
    if spec.is_dual() {
        let _ = writeln!(lines, "addr add {}/64 dev eth0 nodad", ranges.node6(number));
    }
    let _ = writeln!(lines, "link set eth0 up");
    let _ = writeln!(lines, "route add default via {}", ranges.control_plane4());
    if spec.is_dual() {
        let _ = writeln!(lines, "route add ::/0 via {}", ranges.control_plane6());
    }
    let peers = spec.node_numbers().filter(|peer| *peer != number);
    match spec.network {
        Network::Routes => lines.extend(peers.map(|peer| route(description, peer))),
        Network::Vxlan => {
            lines.push_str(&tunnel(description, number));
            lines.extend(peers.map(|peer| tunnel_route(description, peer)));
        }
    }
    lines
}

fn route(description: &Description, number: u8) -> String {
    let ranges = description.ranges();
    let mut lines = format!(
        "route add {} via {}\n",
        ranges.pods4(number),
        ranges.node4(number)
    );
    if description.spec.is_dual() {
        let (pods, node) = (ranges.pods6(number), ranges.node6(number));
        let _ = writeln!(lines, "route add {pods} via {node}");
    }
    lines
}

fn tunnel(description: &Description, number: u8) -> String {
    let (ranges, mtu) = (description.ranges(), description.spec.pod_mtu());
    let (mac, local) = (ranges.tunnel_mac(number), ranges.node4(number));
    let mut lines = format!(
        "link add {TUNNEL} address {mac} type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning\n\
         link set {TUNNEL} mtu {mtu} up\naddr add {}/32 dev {TUNNEL}\n",
        ranges.tunnel4(number)
    );
    if description.spec.is_dual() {
        let address = ranges.tunnel6(number);
        let _ = writeln!(lines, "addr add {address}/128 dev {TUNNEL} nodad");
    }
    lines
}

fn tunnel_route(description: &Description, peer: u8) -> String {
    let ranges = description.ranges();
    let mac = ranges.tunnel_mac(peer);
    let (range, address) = (ranges.pods4(peer), ranges.tunnel4(peer));
    let mut lines = format!(
        "neigh add {address} lladdr {mac} dev {TUNNEL} nud permanent\n\
         route add {range} via {address} dev {TUNNEL} onlink\n"
    );
    if description.spec.is_dual() {
        let (range, address) = (ranges.pods6(peer), ranges.tunnel6(peer));
        let _ = writeln!(
            lines,
            "neigh add {address} lladdr {mac} dev {TUNNEL} nud permanent"
        );
        let _ = writeln!(lines, "route add {range} via {address} dev {TUNNEL} onlink");
    }
    lines
}

/// Where the overlay of node `number` sends frames for its peers: lines for `bridge -batch`.
pub(crate) fn tunnel_peers(description: &Description, number: u8) -> Option<String> {
    let (ranges, spec) = (description.ranges(), &description.spec);
    if spec.network != Network::Vxlan {
        return None;
    }
    let peers = spec.node_numbers().filter(|peer| *peer != number);
    let line = |peer| {
        let (mac, node) = (ranges.tunnel_mac(peer), ranges.node4(peer));
        format!("fdb append {mac} dev {TUNNEL} dst {node}\n")
    };
    Some(peers.map(line).collect())
}

/// Sysctls of a node's network namespace.
pub(crate) fn sysctls(description: &Description) -> Vec<(&'static str, &'static str)> {
    let mut sysctls = vec![
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ];
    if description.spec.cni == CniPlugin::Bridge {
        // A reply between pods of one bridge must pass the translation of Service addresses.
        sysctls.push(("net/bridge/bridge-nf-call-iptables", "1"));
        sysctls.push(("net/bridge/bridge-nf-call-ip6tables", "1"));
    }
    sysctls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{IpFamily, Spec};

    fn description(spec: Spec) -> Description {
        Description {
            spec,
            number: 1,
            boot: String::new(),
            owner: None,
            programs: Default::default(),
        }
    }

    #[test]
    fn a_node_has_a_route_to_each_other_node_and_none_to_itself() {
        let spec = Spec {
            nodes: 3,
            ..Spec::new("a")
        };
        let lines = node(&description(spec), 2);
        assert!(lines.contains("route add 10.129.1.0/24 via 172.30.1.11\n"));
        assert!(lines.contains("route add 10.129.3.0/24 via 172.30.1.13\n"));
        assert!(!lines.contains("10.129.2.0/24"));
        assert!(!lines.contains("fd"));
    }

    #[test]
    fn an_overlay_has_a_tunnel_address_and_one_peer_per_node() {
        let spec = Spec {
            ip_family: IpFamily::Dual,
            network: Network::Vxlan,
            ..Spec::new("a")
        };
        let description = description(spec);
        let lines = node(&description, 1);
        assert!(lines.contains("addr add 10.129.1.0/32 dev vxlan0"));
        assert!(lines.contains("route add 10.129.2.0/24 via 10.129.2.0 dev vxlan0 onlink"));
        assert!(lines.contains("route add fd44:0:1:2::/64 via fd44:0:1:2:: dev vxlan0 onlink"));
        let peers = tunnel_peers(&description, 1);
        let peer = "fdb append 02:72:66:01:00:02 dev vxlan0 dst 172.30.1.12\n";
        assert_eq!(peers.as_deref(), Some(peer));
    }
}
