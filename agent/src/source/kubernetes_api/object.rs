//! Converts an object of the Kubernetes API to a value of the model.
//!
//! Pure. Invariants: text of an object is escaped and bounded in messages; an error is one of its object,
//! and of no other.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cluster_ranges;
use super::kept;
use super::metadata::Metadata;
use super::pod::{Pod, PodObject};
use super::service::{ServiceObject, ServiceSpec, SliceBody, SliceObject, service_of};
use crate::model::inventory::unusable_reason;
use crate::model::quote::sanitise;
use crate::model::{
    EndpointSliceName, LabelSelector, Labels, Lockdown, LockedScope, Namespace, NamespaceName,
    NodeEntry, NodeName, Origin, Policy, PolicyId, PolicyKind, PolicyName, ServiceCidrName,
    ServiceId, ServiceName, WorkloadId, quote,
};
use crate::source::SourceError;
use crate::source::kubernetes::{self, ReadPolicy};

/// The most errors about one object.
const MOST_ERRORS: usize = 10;

/// The kinds of objects that the agent watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Namespace`.
    Namespaces,
    /// `Node`.
    Nodes,
    /// `NetworkPolicy`.
    NetworkPolicies,
    /// `ClusterNetworkPolicy`.
    ClusterNetworkPolicies,
    /// `ServiceCIDR`.
    ServiceCidrs,
    /// `Service`.
    Services,
    /// `EndpointSlice`.
    EndpointSlices,
    /// `Pod`.
    Pods,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Namespaces,
        Self::Nodes,
        Self::NetworkPolicies,
        Self::ClusterNetworkPolicies,
        Self::ServiceCidrs,
        Self::Services,
        Self::EndpointSlices,
        Self::Pods,
    ];

    /// Whether a cluster may lack the kind: one is a resource definition of its own, the other is served since
    /// Kubernetes 1.33 (KEP-1880).
    #[must_use]
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::ClusterNetworkPolicies | Self::ServiceCidrs)
    }

    /// Their name in messages, which is the API's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Nodes => "nodes",
            Self::NetworkPolicies => "networkpolicies",
            Self::ClusterNetworkPolicies => "clusternetworkpolicies",
            Self::ServiceCidrs => "servicecidrs",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Pods => "pods",
        }
    }
}

/// An EndpointSlice's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceId {
    /// Its namespace, and that of its Service.
    pub namespace: NamespaceName,
    /// Its name within the namespace.
    pub name: EndpointSliceName,
}

/// What identifies an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A namespace.
    Namespace(NamespaceName),
    /// A node.
    Node(NodeName),
    /// A policy.
    Policy(PolicyId),
    /// Ranges of Services.
    ServiceCidr(ServiceCidrName),
    /// A Service.
    Service(ServiceId),
    /// A part of the endpoints of a Service.
    EndpointSlice(SliceId),
    /// A pod.
    Pod(WorkloadId),
}

impl Key {
    /// The kind of the object.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespaces,
            Self::Node(_) => Kind::Nodes,
            Self::Policy(id) => match id.kind {
                PolicyKind::ClusterNetworkPolicy => Kind::ClusterNetworkPolicies,
                PolicyKind::NetworkPolicy | PolicyKind::Ringfence => Kind::NetworkPolicies,
            },
            Self::ServiceCidr(_) => Kind::ServiceCidrs,
            Self::Service(_) => Kind::Services,
            Self::EndpointSlice(_) => Kind::EndpointSlices,
            Self::Pod(_) => Kind::Pods,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(out, "namespace {name}"),
            Self::Node(name) => write!(out, "node {name}"),
            Self::Policy(id) => write!(out, "policy {id}"),
            Self::ServiceCidr(name) => write!(out, "ServiceCIDR {name}"),
            Self::Service(id) => write!(out, "Service {id}"),
            Self::EndpointSlice(id) => write!(out, "EndpointSlice {}/{}", id.namespace, id.name),
            Self::Pod(id) => write!(out, "pod {id}"),
        }
    }
}

/// An object, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Arc<NodeEntry>),
    /// A policy.
    Policy(Arc<Policy>),
    /// A policy of which too little can be read, and whose subjects are locked down if nothing of it is in
    /// force. None are for one of cluster scope: one fault would cut off the whole cluster.
    UnreadablePolicy(Option<Lockdown>),
    /// A pod with a network of its own.
    Pod(PodObject),
    /// A pod that the agent has nothing to do for.
    NoWorkload,
    /// Nothing but ranges.
    Ranges,
    /// A Service.
    Service(Arc<ServiceObject>),
    /// A part of the endpoints of a Service.
    EndpointSlice(Arc<SliceObject>),
}

/// A converted object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// What identifies it.
    pub key: Key,
    /// What tells it from others of its name, before it or after it.
    pub uid: Arc<str>,
    /// What it is.
    pub object: Object,
    /// What is kept of a policy.
    pub text: Option<Arc<str>>,
    /// The ranges of the cluster that it names.
    pub ranges: BTreeSet<IpNet>,
    /// What of it cannot be read.
    pub errors: Vec<String>,
    /// What may not be meant as it is read.
    pub warnings: Vec<SourceError>,
}

/// Converts an object of a kind, as an agent on this node sees it.
///
/// # Errors
/// When it has no usable name, which the API server does not allow.
pub fn convert(kind: Kind, node: &NodeName, value: &mut Value) -> Result<Converted, String> {
    let mut converted = match kind {
        Kind::Namespaces => namespace(value),
        Kind::Nodes => node_entry(value, node),
        Kind::ServiceCidrs => service_cidr(value),
        Kind::Services => service(value),
        Kind::EndpointSlices => endpoint_slice(value, node),
        Kind::Pods => pod(value, node),
        Kind::NetworkPolicies | Kind::ClusterNetworkPolicies => policy(kind, value),
    }?;
    let left_out = converted.errors.len().saturating_sub(MOST_ERRORS);
    if left_out > 0 {
        converted.errors.truncate(MOST_ERRORS);
        converted.errors.push(format!("{left_out} more errors"));
    }
    Ok(converted)
}

/// What identifies an object of a kind, of which nothing else is looked at.
///
/// # Errors
/// When it has no usable name.
pub fn key(kind: Kind, value: &Value) -> Result<Key, String> {
    let metadata = metadata(value)?;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let text = |error: crate::model::NameError| error.to_string();
    Ok(match kind {
        Kind::Namespaces => Key::Namespace(NamespaceName::new(&metadata.name).map_err(text)?),
        Kind::Nodes => Key::Node(NodeName::new(&metadata.name).map_err(text)?),
        Kind::ServiceCidrs => Key::ServiceCidr(ServiceCidrName::new(&metadata.name).map_err(text)?),
        Kind::Services => Key::Service(ServiceId {
            namespace: NamespaceName::new(namespace).map_err(text)?,
            name: ServiceName::new(&metadata.name).map_err(text)?,
        }),
        Kind::EndpointSlices => Key::EndpointSlice(SliceId {
            namespace: NamespaceName::new(namespace).map_err(text)?,
            name: EndpointSliceName::new(&metadata.name).map_err(text)?,
        }),
        Kind::Pods => Key::Pod(WorkloadId::new(namespace, &metadata.name).map_err(text)?),
        Kind::NetworkPolicies => Key::Policy(PolicyId {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some(NamespaceName::new(namespace).map_err(text)?),
            name: PolicyName::new(&metadata.name).map_err(text)?,
        }),
        Kind::ClusterNetworkPolicies => Key::Policy(PolicyId {
            kind: PolicyKind::ClusterNetworkPolicy,
            namespace: None,
            name: PolicyName::new(&metadata.name).map_err(text)?,
        }),
    })
}

/// The `uid` of an object; empty without one.
fn uid(value: &Value) -> Arc<str> {
    let uid = value.pointer("/metadata/uid").and_then(Value::as_str);
    Arc::from(uid.unwrap_or_default())
}

fn metadata(value: &Value) -> Result<Metadata, String> {
    let metadata = value.get("metadata").unwrap_or(&Value::Null);
    Metadata::deserialize(metadata).map_err(|error| format!("metadata: {}", text_of(&error)))
}

/// The text of a parser's error, which may have text of the object in it.
fn text_of(error: &serde_json::Error) -> String {
    let text: String = error.to_string().chars().take(200).collect();
    sanitise(&text)
}

fn namespace(value: &Value) -> Result<Converted, String> {
    let metadata = metadata(value)?;
    let name = NamespaceName::new(&metadata.name).map_err(|error| error.to_string())?;
    let mut errors = Vec::new();
    let labels = metadata.labels(&mut errors);
    let namespace = Namespace::new(name.clone(), labels).or_else(|error| {
        errors.push(error.to_string());
        // A namespace always accepts its own name as a label.
        Namespace::new(name.clone(), Labels::new()).map_err(|error| error.to_string())
    })?;
    Ok(Converted {
        uid: uid(value),
        text: None,
        key: Key::Namespace(name),
        object: Object::Namespace(namespace),
        ranges: BTreeSet::new(),
        errors,
        warnings: Vec::new(),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Debug, Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceCidrSpec {
    cidrs: Option<Vec<String>>,
}

/// A part of an object; one that cannot be read is as good as none, and is an error.
fn part<T: DeserializeOwned + Default>(value: &Value, name: &str, errors: &mut Vec<String>) -> T {
    let read = value.get(name).map(T::deserialize);
    read.unwrap_or_else(|| Ok(T::default()))
        .unwrap_or_else(|error| {
            errors.push(format!("{name}: {}", text_of(&error)));
            T::default()
        })
}

fn service_cidr(value: &Value) -> Result<Converted, String> {
    let key = key(Kind::ServiceCidrs, value)?;
    let mut errors = Vec::new();
    let spec: ServiceCidrSpec = part(value, "spec", &mut errors);
    let ranges = cluster_ranges::read(&spec.cidrs.unwrap_or_default(), &mut errors);
    Ok(Converted {
        uid: uid(value),
        text: None,
        key,
        object: Object::Ranges,
        ranges,
        errors,
        warnings: Vec::new(),
    })
}

fn service(value: &Value) -> Result<Converted, String> {
    let key = key(Kind::Services, value)?;
    let mut errors = Vec::new();
    let spec: ServiceSpec = part(value, "spec", &mut errors);
    let object = Object::Service(Arc::new(spec.read(&mut errors)));
    Ok(plain(value, key, object, errors))
}

fn endpoint_slice(value: &Value, node: &NodeName) -> Result<Converted, String> {
    let key = key(Kind::EndpointSlices, value)?;
    let mut errors = Vec::new();
    // Labels that cannot be read say nothing of a slice.
    let labels = metadata(value)?.labels(&mut Vec::new());
    let service = service_of(&labels, &mut errors);
    let slice = match SliceBody::deserialize(value) {
        Ok(body) => body.read(service, node, &mut errors),
        Err(error) => {
            errors.push(text_of(&error));
            SliceObject {
                service,
                is_unreadable: true,
                ..SliceObject::default()
            }
        }
    };
    let object = Object::EndpointSlice(Arc::new(slice));
    Ok(plain(value, key, object, errors))
}

/// An object that names no ranges.
fn plain(value: &Value, key: Key, object: Object, errors: Vec<String>) -> Converted {
    Converted {
        text: None,
        uid: uid(value),
        key,
        object,
        ranges: BTreeSet::new(),
        errors,
        warnings: Vec::new(),
    }
}

fn node_entry(value: &Value, own: &NodeName) -> Result<Converted, String> {
    let metadata = metadata(value)?;
    let name = NodeName::new(&metadata.name).map_err(|error| error.to_string())?;
    let mut errors = Vec::new();
    let status: NodeStatus = part(value, "status", &mut errors);
    let spec: NodeSpec = part(value, "spec", &mut errors);
    let ranges = cluster_ranges::read(&spec.pod_cidrs.unwrap_or_default(), &mut errors);
    let mut addresses = Vec::new();
    for listed in status.addresses.into_iter().flatten() {
        if !matches!(listed.kind.as_str(), "InternalIP" | "ExternalIP") {
            continue;
        }
        match listed.address.parse::<IpAddr>() {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => match unusable_reason(address) {
                None => addresses.push(address),
                Some(reason) => errors.push(format!("address {address} is {reason}")),
            },
            Err(_) => errors.push(format!("{} is no address", quote(&listed.address))),
        }
    }
    let entry = NodeEntry {
        local: name == *own,
        name: name.clone(),
        addresses,
    };
    Ok(Converted {
        uid: uid(value),
        text: None,
        key: Key::Node(name),
        object: Object::Node(Arc::new(entry)),
        ranges,
        errors,
        warnings: Vec::new(),
    })
}

fn pod(value: &Value, node: &NodeName) -> Result<Converted, String> {
    let pod = Pod::deserialize(value).map_err(|error| text_of(&error))?;
    let id = pod.id().map_err(|error| error.to_string())?;
    let mut errors = Vec::new();
    let converted = pod.convert(id.clone(), node, &mut errors);
    Ok(Converted {
        ranges: BTreeSet::new(),
        uid: uid(value),
        text: None,
        key: Key::Pod(id),
        object: converted.map_or(Object::NoWorkload, Object::Pod),
        errors,
        warnings: Vec::new(),
    })
}

fn policy(kind: Kind, value: &mut Value) -> Result<Converted, String> {
    let key = key(kind, value)?;
    let Key::Policy(id) = &key else {
        return Err("not a policy".to_owned());
    };
    let (api, kind) = match id.kind {
        PolicyKind::ClusterNetworkPolicy => (kubernetes::CLUSTER_API, "ClusterNetworkPolicy"),
        _ => (kubernetes::NETWORKING_API, "NetworkPolicy"),
    };
    // An object of a list does not say what it is, and both versions of a cluster policy are alike.
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), api.into());
        fields.insert("kind".to_owned(), kind.into());
    }
    let text = Some(Arc::from(kept::policy_text(value)));
    let name = id.to_string();
    let ReadPolicy {
        policy,
        errors,
        warnings,
    } = kubernetes::read_object(&name, value);
    let object = policy.map_or_else(|| Object::UnreadablePolicy(lockdown(id)), Object::Policy);
    let errors = errors.into_iter().map(|error| error.message);
    Ok(Converted {
        ranges: BTreeSet::new(),
        uid: uid(value),
        text,
        errors: errors.collect(),
        object,
        warnings,
        key,
    })
}

/// The pods of an unreadable policy's namespace.
fn lockdown(id: &PolicyId) -> Option<Lockdown> {
    let namespace = id.namespace.clone()?;
    Some(Lockdown {
        scope: LockedScope::Namespace(namespace),
        subject: LabelSelector::everything(),
        origin: Origin {
            file: id.to_string().into(),
            line: 0,
        },
    })
}

#[cfg(test)]
mod tests;
