//! Pods that serve HTTP, and send requests to each other when they are asked to.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::{Cluster, images::AGNHOST};
use serde_json::{Value, json};

/// The port of every pod.
pub(crate) const PORT: u16 = 8080;
/// How long a request may take that another pod does not drop.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pod that serves, with these labels, on this node.
#[must_use]
pub fn manifest(namespace: &str, name: &str, app: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "agnhost",
                "image": AGNHOST,
                "args": ["netexec", format!("--http-port={PORT}"), "--udp-port=-1"],
                "readinessProbe": {
                    "httpGet": {"path": "/hostname", "port": PORT},
                    "periodSeconds": 1,
                },
            }],
        },
    })
}

/// A namespace in which pods can be created.
pub fn create_namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["create", "namespace", name])?;
    let account = "serviceaccount/default";
    let namespace = format!("--namespace={name}");
    let wait = ["wait", "--for=create", account, &namespace, "--timeout=60s"];
    cluster.kubectl(&wait).map(drop)
}

/// A policy by which pods reach those with `app=server` if they have `app=client`.
#[must_use]
pub fn server_policy(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "server", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"protocol": "TCP", "port": PORT}],
            }],
        },
    })
}

/// A pod that is there.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses, one for each family.
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// Waits until a pod is ready.
    pub fn ready(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        let namespace = format!("--namespace={namespace}");
        let ready = [
            "wait",
            "--for=condition=Ready",
            "pod",
            name,
            &namespace,
            "--timeout=120s",
        ];
        cluster.kubectl(&ready)?;
        let text = cluster.kubectl(&["get", "pod", name, &namespace, "--output=json"])?;
        let pod: Value = serde_json::from_str(&text)?;
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str);
        let listed = pod.pointer("/status/podIPs").and_then(Value::as_array);
        let addresses = listed.context("a pod without addresses")?.iter();
        let addresses = addresses.filter_map(|it| it.get("ip")?.as_str()?.parse().ok());
        Ok(Self {
            name: name.to_owned(),
            node: node.context("a pod without a node")?.to_owned(),
            addresses: addresses.collect(),
        })
    }
}

/// Whether a request of a pod to another one's address of this family is answered.
pub fn request(cluster: &Cluster, from: &Pod, to: &Pod, family: usize) -> Result<bool> {
    let server = to.addresses.get(family);
    let server = server.context("a pod without this family")?;
    let replied = request_to(cluster, from, SocketAddr::new(*server, PORT), &[to])?;
    Ok(replied)
}

/// Whether a request of a pod to an address is answered by one of these pods.
pub fn request_to(
    cluster: &Cluster,
    from: &Pod,
    server: SocketAddr,
    pods: &[&Pod],
) -> Result<bool> {
    let same = |it: &&IpAddr| it.is_ipv4() == server.is_ipv4();
    let client = from.addresses.iter().find(same);
    let client = client.context("a pod without this family")?;
    let (host, port) = (server.ip(), server.port());
    let path = format!("/dial?request=hostname&protocol=http&host={host}&port={port}&tries=1");
    let client = SocketAddr::new(*client, PORT);
    // Every workload accepts sockets of its node.
    let answer = cluster.node(&from.node)?.run(|| http_get(client, &path))?;
    let Some(answer) = answer else {
        return Ok(false);
    };
    let answer: Value = serde_json::from_str(&answer).context("not an answer of agnhost")?;
    let replied = answer.get("responses").and_then(Value::as_array);
    let is_of_one = |answer: &Value| pods.iter().any(|pod| *answer == json!(pod.name));
    Ok(replied.is_some_and(|it| it.iter().any(is_of_one)))
}

/// The body of an answer; `None` if it does not come in time. That the client cannot be asked is an error.
fn http_get(address: SocketAddr, path: &str) -> Result<Option<String>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("asking the client at {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: client\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    let body = body.context("an answer without a body")?;
    // The body may be in chunks, of which a JSON object is one.
    let begin = body.find('{').unwrap_or_default();
    let end = body.rfind('}').map_or(body.len(), |end| end + 1);
    Ok(body.get(begin..end).map(str::to_owned))
}
