//! Rules about pods hold for what is sent to their Services, as the node's proxy translates it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::spec::{CniPlugin, IpFamily, ProxyMode};
use ringfence_cluster::{Cluster, Spec};
use ringfence_kubernetes_tests::{
    Agent, Credentials, Pod, create_namespace, eventually, manifest, request_to,
};
use serde_json::{Value, json};

const SHOP: &str = "shop";
/// The port of every Service; that of its pods is another one.
const PORT: u16 = 80;

/// A Service of the pods with a label.
fn service(name: &str, selector: &Value, families: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": {
            "selector": selector,
            "ipFamilyPolicy": families,
            "ports": [{"name": "http", "port": PORT, "targetPort": 8080}],
        },
    })
}

/// The client may send to these and nothing else.
fn egress(rule: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "client", "namespace": SHOP},
        "spec": {
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress"],
            "egress": [rule],
        },
    })
}

/// Pods with a label, at their port.
fn pods(app: &str) -> Value {
    json!({
        "to": [{"podSelector": {"matchLabels": {"app": app}}}],
        "ports": [{"protocol": "TCP", "port": 8080}],
    })
}

/// Every address but those of these ranges.
fn all_but(ranges: &[String]) -> Value {
    let is_v6 = |it: &&String| it.contains(':');
    let of = |all: &str, except: Vec<&String>| json!({"ipBlock": {"cidr": all, "except": except}});
    let (six, four): (Vec<&String>, Vec<&String>) = ranges.iter().partition(is_v6);
    json!({"to": [of("0.0.0.0/0", four), of("::/0", six)]})
}

struct Shop<'c> {
    cluster: &'c Cluster,
    agents: Vec<Agent<'c>>,
    client: Pod,
    servers: [Pod; 2],
    other: Pod,
}

impl Shop<'_> {
    fn addresses(&self, service: &str) -> Result<Vec<SocketAddr>> {
        let of = "--output=jsonpath={.spec.clusterIPs[*]}";
        let namespace = format!("--namespace={SHOP}");
        let get = ["get", "service", service, &namespace, of];
        let text = self.cluster.kubectl(&get)?;
        let addresses = text.split_whitespace();
        let addresses = addresses.map(|it| Ok(SocketAddr::new(it.parse()?, PORT)));
        addresses.collect()
    }

    /// Whether the client reaches a Service, in each family.
    fn expect(&self, service: &str, is_reaching: bool, when: &str) -> Result<()> {
        let [one, two] = &self.servers;
        let pods = [one, two, &self.other, &self.client];
        for address in self.addresses(service)? {
            let what = format!("{when}: {service} at {address} is reached: {is_reaching}");
            eventually(&what, || {
                // Whichever backend is chosen.
                for _ in 0..8 {
                    let found = request_to(self.cluster, &self.client, address, &pods)?;
                    if found != is_reaching {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .with_context(|| {
                let about = self.agents.iter().map(Agent::about);
                about.collect::<Vec<_>>().join("\n")
            })?;
        }
        Ok(())
    }

    /// What decides about a Service, and how many backends it has.
    fn expect_decider(&self, service: &str, rule: &str, backends: u64) -> Result<()> {
        let address = self.addresses(service)?.first().copied();
        let address = address.context("a Service without an address")?.ip();
        let agent = self.agents.first().context("no agent")?;
        let client = format!("{SHOP}/{}", self.client.name);
        eventually(&format!("{service} is {rule}"), || {
            let found = agent.explain(&client, &address.to_string(), &format!("tcp/{PORT}"))?;
            let name = found.pointer("/to/name").and_then(Value::as_str);
            let decider = found.pointer("/egress/rule").and_then(Value::as_str);
            let count = found.pointer("/service/count").and_then(Value::as_u64);
            let expected = format!("{SHOP}/{service}");
            ensure!(
                (name, decider, count) == (Some(&expected), Some(rule), Some(backends)),
                "{found}"
            );
            Ok(true)
        })
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.cluster.apply(object)
    }
}

fn open<'c>(cluster: &'c Cluster, folder: &std::path::Path, families: &str) -> Result<Shop<'c>> {
    let credentials = Credentials::create(cluster)?;
    create_namespace(cluster, SHOP)?;
    let namespace = format!("--namespace={SHOP}");
    let agents = ["n1", "n2"].into_iter();
    let agents = agents.map(|node| Agent::start(cluster, &credentials, node, folder));
    let agents = agents.collect::<Result<Vec<_>>>()?;
    let pods = [
        ("client", "client", "n1"),
        ("server-1", "server", "n1"),
        ("server-2", "server", "n2"),
        ("other", "other", "n2"),
    ];
    for (name, app, node) in pods {
        cluster.apply(&manifest(SHOP, name, app, node))?;
    }
    for (name, selector) in [
        ("server", json!({"app": "server"})),
        ("other", json!({"app": "other"})),
        ("itself", json!({"app": "client"})),
        ("nothing", json!({"app": "none"})),
        // A label that all have but the client.
        ("mixed", json!({"kind": "mixed"})),
    ] {
        cluster.apply(&service(name, &selector, families))?;
    }
    let ready = |name: &str| Pod::ready(cluster, SHOP, name);
    let shop = Shop {
        cluster,
        agents,
        client: ready("client")?,
        servers: [ready("server-1")?, ready("server-2")?],
        other: ready("other")?,
    };
    for pod in ["server-1", "server-2", "other"] {
        cluster.kubectl(&["label", "pod", pod, "kind=mixed", &namespace])?;
    }
    Ok(shop)
}

fn hold_for_services(spec: &Spec, families: &str) -> Result<()> {
    let cluster = Cluster::up(spec)?;
    let folder = tempfile::tempdir()?;
    let shop = open(&cluster, folder.path(), families)?;
    // The control: without a policy all of them are reached.
    for service in ["server", "other", "mixed", "itself"] {
        shop.expect(service, true, "without a policy")?;
    }
    shop.apply(&egress(&pods("server")))?;
    shop.expect("server", true, "rule about servers")?;
    shop.expect("other", false, "rule about servers")?;
    shop.expect("itself", false, "rule about servers")?;
    shop.expect("mixed", false, "rule about servers")?;
    shop.expect_decider("server", "egress[0]", 2)?;
    shop.expect_decider("other", "default-deny", 1)?;
    shop.expect_decider("mixed", "service-mixed", 3)?;
    shop.expect_decider("nothing", "default-deny", 0)?;

    // A backend comes that the rule does not allow, and is gone again.
    let namespace = format!("--namespace={SHOP}");
    let label = |label: &str| {
        let arguments = ["label", "pod", "other", label, "--overwrite", &namespace];
        cluster.kubectl(&arguments).map(drop)
    };
    label("kind-")?;
    shop.expect("mixed", true, "without the other one")?;
    label("kind=mixed")?;
    shop.expect("mixed", false, "with the other one")?;

    shop.apply(&egress(&pods("client")))?;
    shop.expect("itself", true, "a rule about itself")?;
    shop.expect("server", false, "a rule about itself")?;

    // What a range says is said of the pods, not of the address of their Service.
    let one = |pod: &Pod| {
        pod.addresses
            .iter()
            .map(|it| format!("{it}/{}", if it.is_ipv6() { 128 } else { 32 }))
            .collect::<Vec<_>>()
    };
    shop.apply(&egress(&all_but(&one(&shop.other))))?;
    shop.expect("server", true, "all but the other pod")?;
    shop.expect("other", false, "all but the other pod")?;
    shop.expect("mixed", false, "all but the other pod")?;
    shop.agents.into_iter().try_for_each(Agent::clean_up)
}

#[test]
fn rules_hold_for_services_with_nftables_and_routes() {
    hold_for_services(&Spec::unnamed(), "SingleStack").unwrap();
}

#[test]
fn rules_hold_for_services_with_iptables_a_bridge_and_both_families() {
    let spec = Spec {
        ip_family: IpFamily::Dual,
        cni: CniPlugin::Bridge,
        proxy: ProxyMode::Iptables,
        ..Spec::unnamed()
    };
    hold_for_services(&spec, "RequireDualStack").unwrap();
}
