//! The chart, and the manifests that are made from it, on a real cluster.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::{Cluster, Spec};
use ringfence_kubernetes_tests::release::{
    self, SYSTEM, agent_process, expect_traces, helm, install, rolled_out, traces,
};
use ringfence_kubernetes_tests::{
    Connection, Pod, create_namespace, eventually, manifest, request, server_policy,
};
use serde_json::json;

const SHOP: &str = "shop";
const NODES: [&str; 2] = ["n1", "n2"];
/// CAP_NET_ADMIN (12), CAP_PERFMON (38) and CAP_BPF (39).
const CAPABILITIES: &str = "000000c000001000";

/// A server on the first node, and a client and another pod on each.
struct Shop {
    server: Pod,
    clients: Vec<Pod>,
    others: Vec<Pod>,
}

impl Shop {
    fn open(cluster: &Cluster) -> Result<Self> {
        create_namespace(cluster, SHOP)?;
        let pods = [
            manifest(SHOP, "server", "server", "n1"),
            manifest(SHOP, "client-1", "client", "n1"),
            manifest(SHOP, "client-2", "client", "n2"),
            manifest(SHOP, "other-1", "other", "n1"),
            manifest(SHOP, "other-2", "other", "n2"),
        ];
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}))?;
        let ready = |name: &str| Pod::ready(cluster, SHOP, name);
        Ok(Self {
            server: ready("server")?,
            clients: vec![ready("client-1")?, ready("client-2")?],
            others: vec![ready("other-1")?, ready("other-2")?],
        })
    }

    fn expect(&self, cluster: &Cluster, others_reach: bool, when: &str) -> Result<()> {
        let others = self.others.iter().map(|pod| (pod, others_reach));
        for (pod, reaches) in self.clients.iter().map(|pod| (pod, true)).chain(others) {
            let what = format!("{when}: {} reaches the server: {reaches}", pod.name);
            eventually(&what, || {
                Ok(request(cluster, pod, &self.server, 0)? == reaches)
            })
            .with_context(|| release::logs(cluster))?;
        }
        Ok(())
    }
}

fn all_traces(cluster: &Cluster) -> Result<Vec<BTreeSet<String>>> {
    NODES.iter().map(|node| traces(cluster, node)).collect()
}

fn expect_all_traces(cluster: &Cluster, before: &[BTreeSet<String>]) -> Result<()> {
    let mut nodes = NODES.iter().zip(before);
    nodes.try_for_each(|(node, before)| expect_traces(cluster, node, before))
}

/// What the kernel says of the agent's process.
fn expect_confined(cluster: &Cluster, node: &str) -> Result<()> {
    let pid = agent_process(cluster, node)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |key: &str| {
        let line = status.lines().find_map(|it| it.strip_prefix(key));
        line.map(|it| it.trim_start_matches(':').trim())
    };
    for (key, expected) in [
        ("CapEff", CAPABILITIES),
        ("CapPrm", CAPABILITIES),
        ("CapBnd", CAPABILITIES),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        // A filter.
        ("Seccomp", "2"),
    ] {
        ensure!(value(key) == Some(expected), "{key} on {node}: {status}");
    }
    let root = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let root = root.lines().find(|it| it.split(' ').nth(4) == Some("/"));
    let options = root.and_then(|it| it.split(' ').nth(5));
    ensure!(
        options.is_some_and(|it| it.split(',').any(|it| it == "ro")),
        "{root:?}"
    );
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
    ensure!(
        namespace(&pid.to_string())? != namespace("self")?,
        "the agent sees the processes of its node"
    );
    Ok(())
}

fn enforces_until_it_is_uninstalled() -> Result<()> {
    let cluster = Cluster::up(&Spec::unnamed())?;
    release::prepare(&cluster)?;
    let before = all_traces(&cluster)?;
    let shop = Shop::open(&cluster)?;
    cluster.apply(&server_policy(SHOP))?;
    shop.expect(&cluster, true, "without an agent")?;

    install(&cluster, &["config.modes.default=enforce"])?;
    rolled_out(&cluster, "ringfence")?;
    shop.expect(&cluster, false, "with agents")?;
    for node in NODES {
        expect_confined(&cluster, node)?;
    }
    ensure!(all_traces(&cluster)? != before, "an agent leaves no traces");

    // Connections that are open stay open while every agent is replaced.
    let client = shop.clients.last().context("no client")?;
    let mut connection = Connection::open(client, &shop.server)?;
    ensure!(connection.asks()?, "a new connection is not answered");
    let old = NODES.map(|node| agent_process(&cluster, node));
    let namespace = format!("--namespace={SYSTEM}");
    cluster.kubectl(&["rollout", "restart", "daemonset/ringfence", &namespace])?;
    rolled_out(&cluster, "ringfence")?;
    for (node, old) in NODES.into_iter().zip(old) {
        ensure!(agent_process(&cluster, node)? != old?, "the same on {node}");
    }
    ensure!(connection.asks()?, "a restart broke a connection");
    shop.expect(&cluster, false, "after a restart")?;

    helm(&cluster, &["uninstall", "ringfence", "--timeout=5m"])
        .with_context(|| release::logs(&cluster))?;
    expect_all_traces(&cluster, &before)?;
    shop.expect(&cluster, true, "after the release was removed")?;
    // The last pods end after the command.
    let kinds = "all,configmaps,roles";
    eventually("nothing of the release to be left", || {
        let left = cluster.kubectl(&["get", kinds, &namespace, "--output=name"])?;
        ensure!(!left.contains("ringfence"), "{left}");
        Ok(true)
    })?;
    let kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies";
    let left = cluster.kubectl(&["get", kinds, "--output=name"])?;
    ensure!(!left.contains("ringfence"), "{left}");
    Ok(())
}

#[test]
fn a_release_enforces_until_it_is_uninstalled() {
    enforces_until_it_is_uninstalled().unwrap();
}
