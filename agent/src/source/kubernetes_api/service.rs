//! Services and EndpointSlices of the Kubernetes API, as far as the agent needs them.
//!
//! Pure. Invariants: what of an object cannot be read is left out, and is an error: a port that is left out has no
//! backend, so that nothing is allowed by it.

use std::net::IpAddr;

use ringfence_common::packet::protocol;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{NodeName, Protocol, ServiceName, ServicePort, quote};

/// The label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceObject {
    /// Its addresses; none if it is headless, or only a name.
    pub addresses: Vec<IpAddr>,
    /// Its ports with their names, which may be empty.
    pub ports: Vec<(String, ServicePort)>,
    /// Whether it leads to endpoints of the sender's node alone (`internalTrafficPolicy: Local`).
    pub is_local: bool,
}

/// An EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceObject {
    /// Its Service, in the same namespace.
    pub service: Option<ServiceName>,
    /// The ports of every endpoint, with the names that they have in the Service.
    pub ports: Vec<(String, ServicePort)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address. The node's proxy uses the first one only.
    pub address: IpAddr,
    /// Whether it gets connections.
    pub is_ready: bool,
    /// Whether it ends, and gets connections if no other is ready (KEP-1669).
    pub is_terminating: bool,
    /// Whether it is on this node.
    pub is_local: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    address: Option<String>,
    #[serde(rename = "clusterIPs")]
    addresses: Option<Vec<String>>,
    ports: Option<Vec<PortSpec>>,
    internal_traffic_policy: Option<String>,
}

#[derive(Deserialize)]
struct PortSpec {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

impl PortSpec {
    fn read(self, errors: &mut Vec<String>) -> Option<(String, ServicePort)> {
        let name = self.name.unwrap_or_default();
        let text = self.protocol.as_deref().unwrap_or("TCP");
        let Some(protocol) = number(text) else {
            errors.push(format!("unknown protocol {} of a port", quote(text)));
            return None;
        };
        let port = self.port.filter(|port| *port != 0);
        port.map(|port| (name, ServicePort { protocol, port }))
    }
}

fn number(text: &str) -> Option<u8> {
    Some(match text {
        "TCP" => protocol::TCP,
        "UDP" => protocol::UDP,
        "SCTP" => protocol::SCTP,
        _ => return None,
    })
}

impl ServiceObject {
    /// The object as the API has it.
    pub(super) fn json(&self, namespace: Option<&str>, name: &str) -> Value {
        json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "clusterIPs": self.addresses,
                "ports": ports_json(&self.ports),
                "internalTrafficPolicy": if self.is_local { "Local" } else { "Cluster" },
            },
        })
    }
}

impl SliceObject {
    /// The object as the API has it. Of the nodes of endpoints only this one is named.
    pub(super) fn json(&self, namespace: Option<&str>, name: &str, node: &NodeName) -> Value {
        let service = self.service.as_ref().map(ServiceName::as_str);
        let mut labels = serde_json::Map::new();
        labels.extend(service.map(|service| (SERVICE_NAME.to_owned(), service.into())));
        let endpoints = self.endpoints.iter().map(|it| {
            json!({
                "addresses": [it.address],
                "conditions": {"ready": it.is_ready, "terminating": it.is_terminating},
                "nodeName": it.is_local.then_some(node.as_str()),
            })
        });
        json!({
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "ports": ports_json(&self.ports),
            "endpoints": endpoints.collect::<Vec<Value>>(),
        })
    }
}

fn ports_json(ports: &[(String, ServicePort)]) -> Value {
    let ports = ports.iter().map(|(name, port)| {
        let protocol = Protocol::from_number(port.protocol).to_string();
        json!({"name": name, "protocol": protocol.to_ascii_uppercase(), "port": port.port})
    });
    ports.collect()
}

impl ServiceSpec {
    pub(super) fn read(self, errors: &mut Vec<String>) -> ServiceObject {
        if self.kind.as_deref() == Some("ExternalName") {
            return ServiceObject::default();
        }
        let listed = self.addresses.filter(|it| !it.is_empty());
        let listed = listed.unwrap_or_else(|| self.address.into_iter().collect());
        let mut addresses = Vec::new();
        for text in listed {
            if text.is_empty() || text == "None" {
                continue;
            }
            match text.parse::<IpAddr>() {
                Ok(address) if !addresses.contains(&address) => addresses.push(address),
                Ok(_) => {}
                Err(_) => errors.push(format!("{} is no address", quote(&text))),
            }
        }
        let ports = self.ports.unwrap_or_default().into_iter();
        ServiceObject {
            addresses,
            ports: ports.filter_map(|port| port.read(errors)).collect(),
            is_local: self.internal_traffic_policy.as_deref() == Some("Local"),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SliceBody {
    ports: Option<Vec<PortSpec>>,
    endpoints: Option<Vec<EndpointSpec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointSpec {
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: Conditions,
    node_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

/// The Service of a slice, by its labels.
pub(super) fn service_of(
    labels: &crate::model::Labels,
    errors: &mut Vec<String>,
) -> Option<ServiceName> {
    let name = ServiceName::new(labels.get(SERVICE_NAME)?);
    name.map_err(|error| errors.push(error.to_string())).ok()
}

impl SliceBody {
    pub(super) fn read(
        self,
        service: Option<ServiceName>,
        node: &NodeName,
        errors: &mut Vec<String>,
    ) -> SliceObject {
        let ports = self.ports.unwrap_or_default().into_iter();
        let endpoints = self.endpoints.unwrap_or_default().into_iter();
        let endpoint = |spec: EndpointSpec| {
            let address = spec.addresses.into_iter().flatten().next()?;
            Some(Endpoint {
                // Of type FQDN, which no proxy uses.
                address: address.parse().ok()?,
                // Unknown counts as ready.
                is_ready: spec.conditions.ready.unwrap_or(true),
                is_terminating: spec.conditions.terminating.unwrap_or(false),
                is_local: spec.node_name.as_deref() == Some(node.as_str()),
            })
        };
        SliceObject {
            service,
            ports: ports.filter_map(|port| port.read(errors)).collect(),
            endpoints: endpoints.filter_map(endpoint).collect(),
        }
    }
}
