//! Services and EndpointSlices of the Kubernetes API, as far as the agent needs them.
//!
//! Pure. Invariants: what cannot be read allows nothing: a port of a Service that is left out has no backend, and what
//! is not known of an endpoint makes it a backend that no rule allows, because the node's proxy may still choose it. Each is an error.
//! Addresses are read as Kubernetes does, which accepts leading zeros (`ParseIPSloppy` of k8s.io/utils/net).

use std::net::IpAddr;

use ringfence_common::packet::protocol;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Backend, NodeName, Protocol, ServiceName, ServicePort, quote};

/// The most ports of a Service that are read: each takes room in the kernel's maps.
const MOST_PORTS: usize = 100;
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
    /// The ports of every endpoint, with the names that they have in the Service; 0 for one that is not known.
    pub ports: Vec<(String, ServicePort)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Whether it may have ports and endpoints of which nothing is known.
    pub is_unreadable: bool,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address; the unspecified one if it is not known. The node's proxy uses the first one only.
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
    port: Option<i64>,
}

impl PortSpec {
    /// The port; 0 for a number that is none. `None` if it is of no use to any proxy.
    fn read(self, errors: &mut Vec<String>) -> Option<(String, ServicePort)> {
        let name = self.name.unwrap_or_default();
        let text = self.protocol.as_deref().unwrap_or("TCP");
        let Some(protocol) = number(text) else {
            errors.push(format!("unknown protocol {} of a port", quote(text)));
            return None;
        };
        let given = self.port?;
        let port = u16::try_from(given).unwrap_or_default();
        if port == 0 {
            errors.push(format!("{given} is no port"));
        }
        Some((name, ServicePort { protocol, port }))
    }
}

/// An address as Kubernetes reads it: leading zeros are no sign of octal numbers, and an IPv4-mapped address is an
/// IPv4 address.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let parts: Option<Vec<u8>> = text.split('.').map(octet).collect();
    let octets: [u8; 4] = parts?.try_into().ok()?;
    Some(IpAddr::from(octets))
}

fn octet(text: &str) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let significant = text.trim_start_matches('0');
    match significant {
        _ if !is_number => None,
        "" => Some(0),
        _ => significant.parse().ok(),
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
            "endpoints": if self.is_unreadable {
                "unreadable".into()
            } else {
                endpoints.collect::<Value>()
            },
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
            match address(&text) {
                Some(address) if !addresses.contains(&address) => addresses.push(address),
                Some(_) => {}
                None => errors.push(format!("{} is no address", quote(&text))),
            }
        }
        let listed = self.ports.unwrap_or_default();
        if listed.len() > MOST_PORTS {
            errors.push(format!(
                "it has {} ports: what is sent to those after the first {MOST_PORTS} is denied",
                listed.len()
            ));
        }
        let ports = listed.into_iter().take(MOST_PORTS);
        let ports = ports.filter_map(|port| port.read(errors));
        ServiceObject {
            addresses,
            ports: ports.filter(|(_, port)| port.port != 0).collect(),
            is_local: self.internal_traffic_policy.as_deref() == Some("Local"),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SliceBody {
    address_type: Option<String>,
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
        // Of type FQDN, which no proxy uses.
        let is_used = self.address_type.as_deref() != Some("FQDN");
        let unknown = match self.address_type.as_deref() {
            Some("IPv6") => Backend::unknown(false),
            _ => Backend::unknown(true),
        };
        let mut endpoint = |spec: EndpointSpec| {
            let text = spec.addresses.into_iter().flatten().next()?;
            let address = address(&text).unwrap_or_else(|| {
                errors.push(format!("{} is no address", quote(&text)));
                unknown.address
            });
            Some(Endpoint {
                address,
                // Unknown counts as ready.
                is_ready: spec.conditions.ready.unwrap_or(true),
                is_terminating: spec.conditions.terminating.unwrap_or(false),
                is_local: spec.node_name.as_deref() == Some(node.as_str()),
            })
        };
        let endpoints = endpoints.filter(|_| is_used);
        let endpoints = endpoints.filter_map(&mut endpoint).collect();
        SliceObject {
            service,
            ports: ports.filter_map(|port| port.read(errors)).collect(),
            endpoints,
            is_unreadable: false,
        }
    }
}
