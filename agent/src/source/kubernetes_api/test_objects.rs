//! Objects as the API has them, for tests.

use serde_json::{Value, json};

use super::object::{Converted, Kind, convert};
use crate::model::NodeName;

/// An object as an agent on `n1` sees it.
pub(super) fn converted(kind: Kind, mut value: Value) -> Converted {
    convert(kind, &NodeName::new("n1").unwrap(), &mut value).unwrap()
}

/// A pod that runs on a node.
pub(super) fn pod(name: &str, node: &str, address: &str) -> Converted {
    let object = json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name,
            "creationTimestamp": "2026-11-30T10:00:05Z"
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIP": address}
    });
    converted(Kind::Pods, object)
}

/// A policy that isolates ingress of its subject.
pub(super) fn policy(name: &str, uid: &str, subject: &Value) -> Converted {
    let object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": uid},
        "spec": {"podSelector": subject, "policyTypes": ["Ingress"]}
    });
    converted(Kind::NetworkPolicies, object)
}
