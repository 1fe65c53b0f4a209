//! What is kept of an object of the API for a start without the API server.
//!
//! Pure. Invariants: what is kept becomes the same object again by the same conversion, without what could not
//! be read of it; of workloads it is what the inventory has anyway, so that a cluster costs a few words for each
//! pod and no second copy; only policies, of which there are few, are kept as text.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::object::{Converted, Key, Kind, Object};
use super::pod::PodObject;
use super::service::{ServiceObject, SliceObject};
use crate::model::{Labels, Namespace, NamespaceName, NodeEntry, NodeName, Workload};

type Ranges = Arc<BTreeSet<IpNet>>;

/// What is kept of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A namespace.
    Namespace(Namespace),
    /// A node, and the ranges that it names.
    Node(Arc<NodeEntry>, Ranges),
    /// A policy, as the API has it, without what the agent does not read.
    Policy(Arc<str>),
    /// The ranges of a ServiceCIDR.
    ServiceCidr(Ranges),
    /// A Service.
    Service(Arc<ServiceObject>),
    /// A part of the endpoints of a Service.
    EndpointSlice(Arc<SliceObject>),
    /// A pod with a network of its own.
    Pod(PodObject),
}

impl Kept {
    /// What is kept of an object; `None` if the agent has nothing to do for it.
    #[must_use]
    pub fn of(converted: &Converted) -> Option<Self> {
        let ranges = || Arc::new(converted.ranges.clone());
        Some(match &converted.object {
            Object::Namespace(namespace) => Self::Namespace(namespace.clone()),
            Object::Node(node) => Self::Node(Arc::clone(node), ranges()),
            Object::Policy(_) | Object::UnreadablePolicy(_) => {
                Self::Policy(Arc::clone(converted.text.as_ref()?))
            }
            Object::Pod(pod) => Self::Pod(pod.clone()),
            Object::Ranges => Self::ServiceCidr(ranges()),
            Object::Service(service) => Self::Service(Arc::clone(service)),
            Object::EndpointSlice(slice) => Self::EndpointSlice(Arc::clone(slice)),
            Object::NoWorkload => return None,
        })
    }

    /// Whether it is a pod of another node. Those are kept last, and left out first.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Pod(pod) if !pod.is_local)
    }

    /// The object as JSON.
    #[must_use]
    pub fn json(&self, key: &Key, node: &NodeName) -> String {
        let (namespace, name) = names(key);
        match self {
            Self::Policy(text) => text.as_ref().to_owned(),
            Self::Namespace(it) => {
                json!({"metadata": {"name": name, "labels": labels(it.labels())}}).to_string()
            }
            Self::Node(entry, ranges) => {
                let address = |it| json!({"type": "InternalIP", "address": it});
                let addresses: Vec<Value> = entry.addresses.iter().map(address).collect();
                json!({
                    "metadata": {"name": name},
                    "spec": {"podCIDRs": **ranges},
                    "status": {"addresses": addresses},
                })
                .to_string()
            }
            Self::ServiceCidr(ranges) => {
                json!({"metadata": {"name": name}, "spec": {"cidrs": **ranges}}).to_string()
            }
            Self::Service(service) => service.json(namespace, name).to_string(),
            Self::EndpointSlice(slice) => slice.json(namespace, name, node).to_string(),
            Self::Pod(pod) => {
                let node = pod.is_local.then_some(node.as_str());
                pod_object((namespace, name), &pod.workload, node).to_string()
            }
        }
    }

    /// The least that can be kept of an object, if that is better than nothing: a policy of which no more is
    /// known locks its namespace down.
    #[must_use]
    pub fn stub(&self, key: &Key) -> Option<String> {
        let (namespace, name) = names(key);
        let mut metadata = json!({"name": name});
        if let (Some(fields), Some(namespace)) = (metadata.as_object_mut(), namespace) {
            fields.insert("namespace".to_owned(), namespace.into());
        }
        matches!(self, Self::Policy(_)).then(|| json!({"metadata": metadata}).to_string())
    }
}

/// The text that is kept of a policy: everything but its status and the metadata that is not read.
pub(super) fn policy_text(value: &Value) -> String {
    let read = |key: &str| matches!(key, "name" | "namespace" | "uid");
    let mut kept = Map::new();
    for (key, field) in value.as_object().into_iter().flatten() {
        let field = match (key.as_str(), field.as_object()) {
            ("status", _) => continue,
            ("metadata", Some(fields)) => {
                let fields = fields.iter().filter(|(key, _)| read(key));
                let fields = fields.map(|(key, value)| (key.clone(), value.clone()));
                Value::Object(fields.collect())
            }
            _ => field.clone(),
        };
        kept.insert(key.clone(), field);
    }
    Value::Object(kept).to_string()
}

fn pod_object(
    (namespace, name): (Option<&str>, &str),
    workload: &Workload,
    node: Option<&str>,
) -> Value {
    let recency = workload.recency.as_ref();
    let is_running = recency.is_some_and(|it| it.is_running);
    let created = recency.and_then(|it| jiff::Timestamp::from_second(it.created).ok());
    let ips = workload.addresses.iter();
    let ips: Vec<Value> = ips.map(|it| json!({"ip": it})).collect();
    let ports = workload.ports.iter().map(|port| {
        let protocol = port.protocol.to_string().to_ascii_uppercase();
        json!({"name": port.name.as_str(), "containerPort": port.port, "protocol": protocol})
    });
    let ports: Vec<Value> = ports.collect();
    json!({
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": recency.map_or("", |it| &*it.uid),
            "creationTimestamp": created.map(|it| it.to_string()),
            "labels": labels(&workload.labels),
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": workload.service_account.as_str(),
            "containers": [{"ports": ports}],
        },
        "status": {
            "phase": if is_running { "Running" } else { "Pending" },
            "podIPs": ips,
        },
    })
}

fn labels(labels: &Labels) -> Value {
    let labels = labels.iter();
    let labels = labels.map(|(key, value)| (key.to_owned(), Value::from(value)));
    Value::Object(labels.collect())
}

/// The namespace and the name of an object.
fn names(key: &Key) -> (Option<&str>, &str) {
    match key {
        Key::Namespace(name) => (None, name.as_str()),
        Key::Node(name) => (None, name.as_str()),
        Key::ServiceCidr(name) => (None, name.as_str()),
        Key::Policy(id) => {
            let namespace = id.namespace.as_ref();
            (namespace.map(NamespaceName::as_str), id.name.as_str())
        }
        Key::Service(id) => (Some(id.namespace.as_str()), id.name.as_str()),
        Key::EndpointSlice(id) => (Some(id.namespace.as_str()), id.name.as_str()),
        Key::Pod(id) => (Some(id.namespace.as_str()), id.name.as_str()),
    }
}

/// The kind of this name.
pub(super) fn kind_named(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

#[cfg(test)]
mod tests;
