//! Converts a Pod to a workload.
//!
//! Pure. Invariants: a pod that has ended owns no address, though its object may list one that another pod
//! has by now; one that is about to end keeps its own; a pod in its node's network is its node. A pod with a
//! part that cannot be read is a workload all the same, because a pod without a fence would be worse.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::metadata::Metadata;
use crate::model::inventory::unusable_reason;
use crate::model::{
    NameError, NamedPort, NodeName, PortName, Protocol, Recency, ServiceAccountName, Workload,
    WorkloadId, quote,
};

#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    service_account_name: Option<String>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    restart_policy: Option<String>,
    ports: Option<Vec<ContainerPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: i64,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: Option<String>,
}

/// A pod as a workload; its interface is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodObject {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Whether it runs on this node.
    pub is_local: bool,
}

impl Pod {
    pub(super) fn id(&self) -> Result<WorkloadId, NameError> {
        let namespace = self.metadata.namespace.as_deref();
        WorkloadId::new(namespace.unwrap_or_default(), &self.metadata.name)
    }

    /// The workload; `None` if it has no network of its own, or not any more. Adds what cannot be read.
    pub(super) fn convert(
        &self,
        id: WorkloadId,
        node: &NodeName,
        errors: &mut Vec<String>,
    ) -> Option<PodObject> {
        let phase = self.status.phase.as_deref();
        let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
        if has_ended || self.spec.host_network == Some(true) {
            return None;
        }
        let recency = Recency {
            is_running: phase == Some("Running") && self.metadata.deletion_timestamp.is_none(),
            created: self.metadata.created(),
            uid: Arc::from(self.metadata.uid.as_str()),
            has_lapsed: false,
        };
        let workload = Workload {
            id,
            labels: self.metadata.labels(errors),
            service_account: self.service_account(errors),
            addresses: self.addresses(errors),
            ports: self.ports(errors),
            interface: None,
            recency: Some(recency),
        };
        Some(PodObject {
            workload: Arc::new(workload),
            is_local: self.spec.node_name.as_deref() == Some(node.as_str()),
        })
    }

    fn service_account(&self, errors: &mut Vec<String>) -> ServiceAccountName {
        let Some(name) = &self.spec.service_account_name else {
            return ServiceAccountName::default();
        };
        ServiceAccountName::new(name).unwrap_or_else(|error| {
            errors.push(error.to_string());
            ServiceAccountName::default()
        })
    }

    fn addresses(&self, errors: &mut Vec<String>) -> Vec<IpAddr> {
        let listed = self.status.pod_ips.iter().flatten();
        let mut texts: Vec<&str> = listed.filter_map(|it| it.ip.as_deref()).collect();
        if texts.is_empty() {
            texts.extend(self.status.pod_ip.as_deref());
        }
        let mut addresses = Vec::new();
        for text in texts {
            let Ok(address) = text.parse::<IpAddr>() else {
                errors.push(format!("{} is no address: expected one", quote(text)));
                continue;
            };
            if let Some(reason) = unusable_reason(address) {
                errors.push(format!(
                    "address {address} is {reason}: expected a unicast address of its own"
                ));
            } else if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The ports with a name, of the containers and of init containers that keep running. Of several with
    /// one name and protocol, the first counts, as in Kubernetes.
    fn ports(&self, errors: &mut Vec<String>) -> Vec<NamedPort> {
        let sidecars = self.spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
        let containers = self.spec.containers.iter().flatten().chain(sidecars);
        let mut ports: Vec<NamedPort> = Vec::new();
        for port in containers.flat_map(|it| it.ports.iter().flatten()) {
            match port.named() {
                Some(Ok(port)) => {
                    let is_same =
                        |it: &NamedPort| it.name == port.name && it.protocol == port.protocol;
                    if !ports.iter().any(is_same) {
                        ports.push(port);
                    }
                }
                Some(Err(error)) => errors.push(error),
                None => {}
            }
        }
        ports
    }
}

impl ContainerPort {
    /// The port, if it has a name.
    fn named(&self) -> Option<Result<NamedPort, String>> {
        let name = self.name.as_deref().filter(|name| !name.is_empty())?;
        Some(self.checked(name))
    }

    fn checked(&self, name: &str) -> Result<NamedPort, String> {
        let name = PortName::new(name).map_err(|error| error.to_string())?;
        let protocol = match self.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(other) => {
                return Err(format!(
                    "port {name} has the unknown protocol {}: expected TCP, UDP or SCTP",
                    quote(other)
                ));
            }
        };
        let number = self.container_port;
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| format!("port {name} is {number}: expected 1 to 65535"))?;
        Ok(NamedPort {
            name,
            protocol,
            port,
        })
    }
}
