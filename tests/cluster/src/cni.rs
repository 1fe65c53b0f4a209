//! The CNI configuration of a node.

use serde_json::{Value, json};

use crate::home::Description;
use crate::spec::CniPlugin;

/// Where containerd looks for it.
pub(crate) const FOLDER: &str = "/etc/cni/net.d";
/// Its file.
pub(crate) const FILE: &str = "/etc/cni/net.d/10-pods.conflist";

/// The list of plugins for pods of node `number`.
pub(crate) fn configuration(description: &Description, number: u8) -> Value {
    let (spec, addresses) = (&description.spec, description.ranges());
    let mut ranges = vec![json!([{"subnet": addresses.pods4(number)}])];
    let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
    if spec.is_dual() {
        ranges.push(json!([{"subnet": addresses.pods6(number)}]));
        routes.push(json!({"dst": "::/0"}));
    }
    let ipam = json!({
        "type": "host-local",
        "dataDir": "/var/lib/cni/networks",
        "ranges": ranges,
        "routes": routes,
    });
    let mtu = spec.pod_mtu();
    let interface = match spec.cni {
        CniPlugin::Ptp => json!({"type": "ptp", "mtu": mtu, "ipMasq": false, "ipam": ipam}),
        CniPlugin::Bridge => json!({
            "type": "bridge",
            "bridge": "cni0",
            "mtu": mtu,
            "isGateway": true,
            // A pod may reach itself through its Service.
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": ipam,
        }),
    };
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [interface, ports]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{IpFamily, Network, Spec};

    fn with(spec: Spec) -> Value {
        let description = Description {
            spec,
            number: 3,
            boot: String::new(),
            owner: None,
            programs: Default::default(),
        };
        configuration(&description, 2)
    }

    #[test]
    fn pods_get_addresses_of_their_node_in_each_family() {
        let ipv4 = with(Spec::new("a"));
        let ranges = ipv4.pointer("/plugins/0/ipam/ranges");
        assert_eq!(ranges, Some(&json!([[{"subnet": "10.131.2.0/24"}]])));
        let dual = with(Spec {
            ip_family: IpFamily::Dual,
            network: Network::Vxlan,
            cni: CniPlugin::Bridge,
            ..Spec::new("a")
        });
        let range = dual.pointer("/plugins/0/ipam/ranges/1/0/subnet");
        assert_eq!(range, Some(&json!("fd44:0:3:2::/64")));
        assert_eq!(dual.pointer("/plugins/0/mtu"), Some(&json!(1450)));
    }
}
