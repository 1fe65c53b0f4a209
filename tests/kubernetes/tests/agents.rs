//! Agents on both nodes of a cluster enforce what is written to its API server.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::spec::{CniPlugin, IpFamily};
use ringfence_cluster::{Cluster, Spec};
use ringfence_kubernetes_tests::{
    Agent, Credentials, Pod, create_namespace, eventually, manifest, request, server_policy,
};
use serde_json::{Value, json};

const SHOP: &str = "shop";
const API_SERVER: &str = "kube-apiserver";

struct Shop<'c> {
    cluster: &'c Cluster,
    agents: Vec<Agent<'c>>,
    server: Pod,
    clients: Vec<Pod>,
    others: Vec<Pod>,
}

impl<'c> Shop<'c> {
    /// A server on the first node, and a client and another pod on each.
    fn open(cluster: &'c Cluster, folder: &Path) -> Result<Self> {
        let credentials = Credentials::create(cluster)?;
        create_namespace(cluster, SHOP)?;
        // Pods that are there before the agents, and pods that come after them.
        let pods = |number: u8| {
            let node = format!("n{number}");
            let pod = |name: &str, app: &str| manifest(SHOP, name, app, &node);
            [
                pod(&format!("client-{number}"), "client"),
                pod(&format!("other-{number}"), "other"),
            ]
        };
        let apply = |items: &[Value]| {
            cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))
        };
        apply(&pods(1))?;
        for name in ["client-1", "other-1"] {
            Pod::ready(cluster, SHOP, name)?;
        }
        let nodes = ["n1", "n2"].into_iter();
        let agents = nodes.map(|node| Agent::start(cluster, &credentials, node, folder));
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let [client, other] = pods(2);
        apply(&[manifest(SHOP, "server", "server", "n1"), client, other])?;
        let ready = |name: &str| Pod::ready(cluster, SHOP, name);
        let shop = Self {
            cluster,
            agents,
            server: ready("server")?,
            clients: vec![ready("client-1")?, ready("client-2")?],
            others: vec![ready("other-1")?, ready("other-2")?],
        };
        shop.expect_fences()?;
        Ok(shop)
    }

    /// Every pod has a fence on an interface of its own.
    fn expect_fences(&self) -> Result<()> {
        let pods: Vec<&Pod> = (self.clients.iter())
            .chain(&self.others)
            .chain([&self.server])
            .collect();
        for (node, agent) in ["n1", "n2"].into_iter().zip(&self.agents) {
            eventually("a fence of each pod", || {
                let mut interfaces = std::collections::BTreeSet::new();
                let local = pods.iter().filter(|pod| pod.node == node);
                for pod in local {
                    let name = format!("{SHOP}/{}", pod.name);
                    let interface = agent.interface_of(&name)?;
                    let interface = interface.with_context(|| format!("{name} has no fence"))?;
                    ensure!(interfaces.insert(interface), "{name} shares an interface");
                }
                let status = agent.show("status")?;
                let open = status.get("not_in_force") == Some(&json!([]));
                ensure!(open && agent.errors()? == "[]", "{status}");
                Ok(true)
            })
            .with_context(|| agent.about())?;
        }
        Ok(())
    }

    fn reaches(&self, from: &Pod) -> Result<bool> {
        let mut all = Vec::new();
        for family in 0..self.server.addresses.len() {
            all.push(request(self.cluster, from, &self.server, family)?);
        }
        ensure!(
            all.iter().all(|it| Some(it) == all.first()),
            "families differ for {}: {all:?}",
            from.name
        );
        Ok(all.first() == Some(&true))
    }

    fn expect(&self, pods: &[Pod], is_reaching: bool, when: &str) -> Result<()> {
        for pod in pods {
            let what = format!("{when}: {} reaches the server: {is_reaching}", pod.name);
            eventually(&what, || Ok(self.reaches(pod)? == is_reaching)).with_context(|| {
                let about = self.agents.iter().map(Agent::about);
                about.collect::<Vec<_>>().join("\n")
            })?;
        }
        Ok(())
    }

    fn expect_policy(&self, when: &str) -> Result<()> {
        self.expect(&self.others, false, when)?;
        self.expect(&self.clients, true, when)
    }

    /// A Service is one, and another address of its range is not the world's.
    fn expect_service_ranges(&self) -> Result<()> {
        let of = "--output=jsonpath={.spec.clusterIP}";
        let get = ["get", "service", "kubernetes", "--namespace=default", of];
        let service = self.cluster.kubectl(&get)?;
        let client = self.clients.first().context("no client")?;
        let agent = self.agents.first().context("no agent")?;
        let kind = |address| agent.kind_of(&format!("{SHOP}/{}", client.name), address);
        let (range, _) = service.trim().rsplit_once('.').context("no IPv4 address")?;
        let kinds = [
            kind(service.trim())?,
            kind(&format!("{range}.250"))?,
            kind("192.0.2.1")?,
        ];
        ensure!(
            kinds == ["service", "cluster", "world"],
            "{service}: {kinds:?}"
        );
        Ok(())
    }

    fn label(&self, pod: &Pod, app: &str) -> Result<()> {
        let (name, label) = (format!("pod/{}", pod.name), format!("app={app}"));
        let namespace = format!("--namespace={SHOP}");
        self.cluster
            .kubectl(&["label", &name, &label, "--overwrite", &namespace])?;
        Ok(())
    }
}

/// What is written to the API server is enforced on both nodes, also while that is away.
fn enforces(spec: &Spec) -> Result<()> {
    let cluster = Cluster::up(spec)?;
    let folder = tempfile::tempdir()?;
    let mut shop = Shop::open(&cluster, folder.path())?;

    // The control: everything reaches the server.
    shop.expect(&shop.clients, true, "without a policy")?;
    shop.expect(&shop.others, true, "without a policy")?;
    cluster.apply(&server_policy(SHOP))?;
    shop.expect_policy("with the policy")?;

    for other in &shop.others {
        shop.label(other, "client")?;
    }
    shop.expect(&shop.others, true, "with the label of clients")?;
    for other in &shop.others {
        shop.label(other, "other")?;
    }
    shop.expect_policy("without the label of clients")?;

    shop.expect_service_ranges()?;

    let namespace = format!("--namespace={SHOP}");
    cluster.kubectl(&["delete", "pod", "server", &namespace, "--wait=true"])?;
    cluster.apply(&manifest(SHOP, "server", "server", "n1"))?;
    let before = shop.server.addresses.clone();
    shop.server = Pod::ready(&cluster, SHOP, "server")?;
    ensure!(
        shop.server.addresses != before,
        "the pod kept its addresses"
    );
    shop.expect_fences()?;
    shop.expect_policy("with another server")?;

    cluster.kill(API_SERVER, "cp")?;
    for agent in &shop.agents {
        eventually("an agent to miss the API server", || {
            Ok(agent.errors()?.contains("what is in force stays"))
        })?;
    }
    shop.expect_policy("without an API server")?;
    cluster.start_again(API_SERVER, "cp")?;
    eventually("the API server to come back", || {
        cluster.kubectl(&["get", "--raw", "/readyz"]).map(|_| true)
    })?;
    shop.expect_policy("after the API server came back")?;
    for agent in &shop.agents {
        eventually("an agent to find the API server", || {
            Ok(agent.errors()? == "[]")
        })
        .with_context(|| agent.about())?;
    }
    let last = shop.others.last().context("no other pod")?;
    shop.label(last, "client")?;
    let last = std::slice::from_ref(last);
    shop.expect(last, true, "with the label of clients")?;
    cluster.kubectl(&["delete", "networkpolicy", "server", &namespace])?;
    shop.expect(&shop.others, true, "without a policy again")?;

    let agents = std::mem::take(&mut shop.agents);
    agents.into_iter().try_for_each(Agent::clean_up)
}

#[test]
fn a_network_policy_is_enforced_on_routed_pods() {
    enforces(&Spec::unnamed()).unwrap();
}

#[test]
fn a_network_policy_is_enforced_on_bridged_pods_of_both_families() {
    enforces(&Spec {
        cni: CniPlugin::Bridge,
        ip_family: IpFamily::Dual,
        ..Spec::unnamed()
    })
    .unwrap();
}
