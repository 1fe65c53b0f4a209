//! kube-proxy of one node.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::component::Site;
use crate::pki::Pki;
use crate::spec::{ProxyMode, node_name};

const CONFIG: &str = "/etc/kubernetes/kube-proxy.json";

/// Starts it in the namespaces of the calling thread. The Node object must exist.
pub(crate) fn start(site: &Site<'_>, pki: &Pki, number: u8) -> Result<()> {
    let (node, spec) = (node_name(number), &site.description.spec);
    let mode = match spec.proxy {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables => "iptables",
    };
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": node,
        "clusterCIDR": site.description.ranges().all_pods(spec.is_dual()),
        "clientConnection": {"kubeconfig": pki.kubeconfig("kube-proxy")},
        // The host's limits are not the node's to change.
        "conntrack": {
            "maxPerCore": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    });
    fs::create_dir_all("/etc/kubernetes")?;
    fs::write(CONFIG, serde_json::to_vec_pretty(&config)?)
        .context("writing kube-proxy's configuration")?;
    let program = site.programs().kubernetes.join("kube-proxy");
    let arguments = vec![format!("--config={CONFIG}")];
    site.start("kube-proxy", &node, &program, arguments)?;
    Ok(())
}
