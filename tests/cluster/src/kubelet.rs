//! kubelet of one node.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::component::Site;
use crate::containerd;
use crate::pki::Pki;
use crate::spec::node_name;

const CONFIG: &str = "/etc/kubernetes/kubelet.json";

/// Starts it in the namespaces of the calling thread. The Node object must exist.
pub(crate) fn start(site: &Site<'_>, pki: &Pki, number: u8) -> Result<()> {
    let (node, ranges) = (node_name(number), site.description.ranges());
    let none = "0%";
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ranges.node4(number),
        "healthzBindAddress": "127.0.0.1",
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.certificate("ca")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.certificate(&node),
        "tlsPrivateKeyFile": pki.key(&node),
        "clusterDomain": "cluster.local",
        "clusterDNS": [ranges.dns_service()],
        "resolvConf": "",
        // The machine is shared: nothing of it is the node's alone.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}/{node}", site.folder.cgroup()),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "featureGates": {"KubeletInUserNamespace": true},
        "evictionHard": {
            "memory.available": none,
            "nodefs.available": none,
            "nodefs.inodesFree": none,
            "imagefs.available": none,
            "imagefs.inodesFree": none,
        },
        "imageGCHighThresholdPercent": 100,
    });
    fs::create_dir_all("/etc/kubernetes")?;
    fs::write(CONFIG, serde_json::to_vec_pretty(&config)?)
        .context("writing kubelet's configuration")?;
    let mut addresses = ranges.node4(number).to_string();
    if site.description.spec.is_dual() {
        addresses = format!("{addresses},{}", ranges.node6(number));
    }
    let arguments = vec![
        format!("--config={CONFIG}"),
        format!("--kubeconfig={}", pki.kubeconfig(&node)),
        format!("--hostname-override={node}"),
        format!("--node-ip={addresses}"),
    ];
    let program = site.programs().kubernetes.join("kubelet");
    site.start("kubelet", &node, &program, arguments)?;
    Ok(())
}
