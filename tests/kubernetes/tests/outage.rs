//! An agent that starts while the API server is away enforces what it knew before.

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::{Cluster, Spec};
use ringfence_kubernetes_tests::{
    Agent, Credentials, Pod, create_namespace, eventually, manifest, request, server_policy,
};
use serde_json::{Value, json};

const SHOP: &str = "shop";
const API_SERVER: &str = "kube-apiserver";
const STORE: &str = "kubernetes-objects.jsonl";

struct World<'c> {
    cluster: &'c Cluster,
    agent: Agent<'c>,
    server: Pod,
    /// Pods that the policy lets reach the server, one on its node and one elsewhere.
    clients: Vec<Pod>,
    others: Vec<Pod>,
}

impl World<'_> {
    fn expect(&self, pods: &[Pod], is_reaching: bool, when: &str) -> Result<()> {
        for pod in pods {
            let what = format!("{when}: {} reaches the server: {is_reaching}", pod.name);
            eventually(&what, || {
                Ok(request(self.cluster, pod, &self.server, 0)? == is_reaching)
            })
            .with_context(|| self.agent.about())?;
        }
        Ok(())
    }

    fn expect_policy(&self, when: &str) -> Result<()> {
        self.expect(&self.others, false, when)?;
        self.expect(&self.clients, true, when)
    }

    /// Waits for a status with these kinds of reasons for not being ready.
    fn expect_reasons(&self, kinds: &[&str]) -> Result<Value> {
        let mut last = Value::Null;
        eventually(&format!("the reasons {kinds:?}"), || {
            last = self.agent.show("status")?;
            let reasons = last.get("not_in_force").and_then(Value::as_array);
            let found: Vec<_> = reasons
                .into_iter()
                .flatten()
                .filter_map(|it| it.get("kind")?.as_str())
                .collect();
            ensure!(found == kinds, "{last}");
            Ok(true)
        })
        .with_context(|| self.agent.about())?;
        Ok(last)
    }
}

fn survives() -> Result<()> {
    let cluster = Cluster::up(&Spec::unnamed())?;
    let folder = tempfile::tempdir()?;
    let credentials = Credentials::create(&cluster)?;
    create_namespace(&cluster, SHOP)?;
    let namespace = format!("--namespace={SHOP}");
    let agent = Agent::start(&cluster, &credentials, "n1", folder.path())?;
    let pods = [
        ("server", "server", "n1"),
        ("client-1", "client", "n1"),
        ("client-2", "client", "n2"),
        ("other-1", "other", "n1"),
        ("other-2", "other", "n2"),
    ];
    for (name, app, node) in pods {
        cluster.apply(&manifest(SHOP, name, app, node))?;
    }
    let [server, client1, client2, other1, other2] =
        pods.map(|(name, ..)| Pod::ready(&cluster, SHOP, name));
    let mut world = World {
        cluster: &cluster,
        agent,
        server: server?,
        clients: vec![client1?, client2?],
        others: vec![other1?, other2?],
    };
    world.expect(&world.others, true, "without a policy")?;
    cluster.apply(&server_policy(SHOP))?;
    world.expect_policy("with the policy")?;
    eventually("the policy to be stored", || {
        Ok(world.agent.state(STORE)?.contains("networkpolicies"))
    })?;

    cluster.kill(API_SERVER, "cp")?;
    world.agent.kill()?;
    world.expect_policy("without an agent")?;
    // The control: nothing of it is left in the kernel, as after a reboot.
    world.agent.unpin()?;
    world.expect(&world.others, true, "without a fence")?;

    world.agent.start_again()?;
    let status = world.expect_reasons(&["restored"])?;
    ensure!(status.get("ready") == Some(&json!(false)), "{status}");
    let errors = world.agent.errors()?;
    ensure!(
        errors.contains("what an earlier run stored is in force"),
        "{errors}"
    );
    world.expect_policy("without an API server")?;
    // A mode that is set takes effect, and so does one that is set back.
    world.agent.set_mode(SHOP, "observe")?;
    world.expect(&world.others, true, "in observe")?;
    world.agent.set_mode(SHOP, "enforce")?;
    world.expect_policy("in enforce")?;
    // Over another start, which finds what this one left in the kernel.
    world.agent.kill()?;
    world.agent.start_again()?;
    world.expect_reasons(&["restored"])?;
    world.expect_policy("after another start")?;

    cluster.start_again(API_SERVER, "cp")?;
    world.expect_reasons(&[])?;
    eventually("no errors", || Ok(world.agent.errors()? == "[]"))?;
    world.expect_policy("after the API server came back")?;
    cluster.kubectl(&["delete", "networkpolicy", "server", &namespace])?;
    world.expect(&world.others, true, "without the policy again")?;
    world.agent.clean_up()
}

#[test]
fn a_start_without_the_api_server_enforces_what_was_stored() {
    survives().unwrap();
}
