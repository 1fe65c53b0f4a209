//! The servers of the traffic check, and their Service, as manifests.

use serde_json::{Value, json};

use crate::images::AGNHOST;

/// Ports of a server.
pub(super) const HTTP: u16 = 8080;
pub(super) const UDP: u16 = 8081;
/// The Service of all servers, and its ports.
pub(super) const SERVICE: &str = "servers";
pub(super) const SERVICE_HTTP: u16 = 80;
pub(super) const SERVICE_UDP: u16 = 81;

/// The server `name` on `node`.
pub(super) fn pod(node: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": SERVICE}},
        "spec": {
            // Through the scheduler.
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "agnhost",
                "image": AGNHOST,
                "args": ["netexec", format!("--http-port={HTTP}"), format!("--udp-port={UDP}")],
                "readinessProbe": {
                    "httpGet": {"path": "/hostname", "port": HTTP},
                    "periodSeconds": 1,
                },
            }],
        },
    })
}

/// The Service.
pub(super) fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE},
        "spec": {
            "selector": {"app": SERVICE},
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                {"name": "http", "port": SERVICE_HTTP, "targetPort": HTTP},
                {"name": "udp", "port": SERVICE_UDP, "targetPort": UDP, "protocol": "UDP"},
            ],
        },
    })
}
