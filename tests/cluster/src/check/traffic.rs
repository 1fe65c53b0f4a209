//! Real traffic between pods: directly, to itself, and through a Service.
//!
//! Two servers on each node (upstream's `agnhost netexec`) are asked to send requests: `/dial` sends
//! them and returns the host names of those that replied.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::manifests::{HTTP, SERVICE, SERVICE_HTTP, SERVICE_UDP, UDP, pod, service};
use crate::Cluster;
use crate::spec::{Network, node_name};
use crate::wait::eventually;

/// A port on which no server listens.
const CLOSED: u16 = 9;
/// Requests to a Service: that one of four servers gets none of them happens once in 10^12.
const TRIES: u32 = 100;

/// The servers of one cluster.
pub(super) struct Servers {
    servers: Vec<Server>,
    service: Vec<IpAddr>,
}

struct Server {
    name: String,
    node: String,
    addresses: Vec<IpAddr>,
}

impl Servers {
    /// Two servers on each node and a Service for all of them; returns when all are ready.
    pub(super) fn deploy(cluster: &Cluster) -> Result<Self> {
        let spec = &cluster.description().spec;
        let names = spec.node_numbers().flat_map(|number| {
            ["a", "b"].map(|suffix| (node_name(number), format!("server-{number}{suffix}")))
        });
        let names: Vec<(String, String)> = names.collect();
        let mut items: Vec<Value> = names.iter().map(|(node, name)| pod(node, name)).collect();
        items.push(service());
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        let timeout = "--timeout=120s";
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", timeout])?;
        let pods = get(cluster, "pods")?;
        let mut servers = Vec::new();
        for pod in pods
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let text = |pointer: &str| {
                let text = pod
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                text.with_context(|| format!("a pod without {pointer}"))
            };
            servers.push(Server {
                name: text("/metadata/name")?,
                node: text("/spec/nodeName")?,
                addresses: addresses(pod.pointer("/status/podIPs"), Some("ip"))?,
            });
        }
        ensure!(servers.len() == names.len(), "{} pods", servers.len());
        let service = get(cluster, &format!("service/{SERVICE}"))?;
        let service = addresses(service.pointer("/spec/clusterIPs"), None)?;
        let families = if spec.is_dual() { 2 } else { 1 };
        let complete = |addresses: &Vec<IpAddr>| addresses.len() == families;
        ensure!(
            complete(&service) && servers.iter().all(|server| complete(&server.addresses)),
            "pods and Services must have {families} addresses"
        );
        let servers = Self { servers, service };
        servers.wait_for_service(cluster)?;
        Ok(servers)
    }

    /// kube-proxy of each node learns of the servers a little later than of their readiness.
    fn wait_for_service(&self, cluster: &Cluster) -> Result<()> {
        let control_plane = cluster.control_plane()?;
        let (deadline, pause) = (Duration::from_secs(30), Duration::from_millis(100));
        let mut last = String::new();
        let waited = eventually(deadline, pause, "the Service", || {
            control_plane.run(|| {
                let probe = |server| self.probe_service(server);
                match self.servers.iter().try_for_each(|s| probe(s).map(drop)) {
                    Ok(()) => Ok(Some(())),
                    Err(error) => {
                        last = format!("{error:#}");
                        Ok(None)
                    }
                }
            })
        });
        waited.with_context(|| last)
    }

    /// Probes everything; the number of probes.
    pub(super) fn probe_all(&self, cluster: &Cluster) -> Result<u32> {
        let control_plane = cluster.control_plane()?;
        let probes = control_plane.run(|| {
            let mut probes = 0;
            for from in &self.servers {
                for to in &self.servers {
                    probes += from.probe_pod(to)?;
                }
                probes += self.probe_service(from)?;
            }
            Ok(probes)
        })?;
        let probes = probes + self.probe_from_nodes(cluster)?;
        // From the API server to each kubelet.
        for server in &self.servers {
            let log = cluster.kubectl(&["logs", &server.name])?;
            ensure!(
                log.contains("Started HTTP server"),
                "the log of {}: {log}",
                server.name
            );
        }
        Ok(probes)
    }

    /// Processes of each node reach every server and the Service. A server on another node sees the
    /// node's address, or over the overlay its tunnel address.
    fn probe_from_nodes(&self, cluster: &Cluster) -> Result<u32> {
        let description = cluster.description();
        let ranges = description.ranges();
        let mut probes = 0;
        for number in description.spec.node_numbers() {
            let sources: [IpAddr; 2] = match description.spec.network {
                Network::Routes => [ranges.node4(number).into(), ranges.node6(number).into()],
                Network::Vxlan => [ranges.tunnel4(number).into(), ranges.tunnel6(number).into()],
            };
            let node = node_name(number);
            cluster.node(&node)?.run(|| {
                for server in &self.servers {
                    for address in &server.addresses {
                        let body = http_get(SocketAddr::new(*address, HTTP), "/clientip")?;
                        let source: SocketAddr = body.trim().parse().context("not an address")?;
                        let (name, source) = (&server.name, source.ip());
                        ensure!(
                            server.node == node || sources.contains(&source),
                            "{name} at {address} sees {node} as {source}"
                        );
                        probes += 1;
                    }
                }
                for address in &self.service {
                    http_get(SocketAddr::new(*address, SERVICE_HTTP), "/hostname")?;
                    probes += 1;
                }
                Ok(())
            })?;
        }
        Ok(probes)
    }

    fn probe_service(&self, from: &Server) -> Result<u32> {
        let all: BTreeSet<String> = self.servers.iter().map(|s| s.name.clone()).collect();
        let mut probes = 0;
        for address in &self.service {
            for (protocol, port) in [("http", SERVICE_HTTP), ("udp", SERVICE_UDP)] {
                let replied = from.dial(*address, port, protocol, TRIES)?;
                let name = &from.name;
                ensure!(
                    replied == all,
                    "{protocol} from {name} to the Service at {address}: replies from {replied:?}"
                );
                probes += 1;
            }
        }
        Ok(probes)
    }
}

impl Server {
    fn probe_pod(&self, to: &Self) -> Result<u32> {
        let mut probes = 0;
        for address in &to.addresses {
            let cases = [
                ("http", HTTP, true),
                ("udp", UDP, true),
                ("http", CLOSED, false),
            ];
            for (protocol, port, expected) in cases {
                let replied = self.dial(*address, port, protocol, 1)?;
                let names: Vec<&String> = replied.iter().collect();
                let right = if expected {
                    names == [&to.name]
                } else {
                    names.is_empty()
                };
                let (from, to) = (&self.name, &to.name);
                ensure!(
                    right,
                    "{protocol} from {from} to {to} at {address} port {port}: replies from {names:?}"
                );
                probes += 1;
            }
        }
        Ok(probes)
    }

    /// The names of those that replied to requests from this server. Of several requests, one
    /// without a reply is an error.
    fn dial(
        &self,
        target: IpAddr,
        port: u16,
        protocol: &str,
        tries: u32,
    ) -> Result<BTreeSet<String>> {
        let own = self.addresses.first().context("a pod without an address")?;
        let path = format!(
            "/dial?request=hostname&protocol={protocol}&host={target}&port={port}&tries={tries}"
        );
        let body = http_get(SocketAddr::new(*own, HTTP), &path)
            .with_context(|| format!("asking {} to send requests", self.name))?;
        let result: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        ensure!(
            tries == 1 || result.get("errors").is_none(),
            "{protocol} from {} to {target}: {body}",
            self.name
        );
        let replies = result.get("responses").and_then(Value::as_array);
        let names = replies.into_iter().flatten().filter_map(Value::as_str);
        Ok(names.map(str::to_owned).collect())
    }
}

fn get(cluster: &Cluster, what: &str) -> Result<Value> {
    let json = cluster.kubectl(&["get", what, "--output=json"])?;
    Ok(serde_json::from_str(&json)?)
}

/// Addresses in a list, each in the field `key` if there is one.
fn addresses(list: Option<&Value>, key: Option<&str>) -> Result<Vec<IpAddr>> {
    let items = list.and_then(Value::as_array).context("no addresses")?;
    let parse = |item: &Value| {
        let value = key.map_or(Some(item), |key| item.get(key));
        let text = value.and_then(Value::as_str).context("no address")?;
        text.parse()
            .with_context(|| format!("{text} is not an address"))
    };
    items.iter().map(parse).collect()
}

/// The body of a response, by HTTP/1.0: the server closes the connection after it.
fn http_get(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("no end of the header")?;
    ensure!(head.contains(" 200 "), "{head}\n{body}");
    Ok(body.to_owned())
}
