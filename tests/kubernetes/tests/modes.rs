//! Labels of namespaces set modes on every node of a cluster.

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::{Cluster, Spec};
use ringfence_kubernetes_tests::{
    Agent, Credentials, Pod, create_namespace, eventually, manifest, request,
};
use serde_json::json;

const SHOP: &str = "shop";
const BANK: &str = "bank";

/// A floor for one namespace; the default is observe.
const SETTINGS: &str = "mode-floor = [{ mode = \"enforce\", namespaces = [\"bank\"] }]\n";

struct World<'c> {
    cluster: &'c Cluster,
    agents: Vec<Agent<'c>>,
    /// A pod on each node.
    pods: [Pod; 2],
}

impl World<'_> {
    /// Whether the pods reach each other in both directions: the fence of each node decides one of them.
    fn expect(&self, is_reaching: bool, when: &str) -> Result<()> {
        let [one, two] = &self.pods;
        for (from, to) in [(one, two), (two, one)] {
            let what = format!("{when}: {} reaches {}: {is_reaching}", from.name, to.name);
            eventually(&what, || {
                Ok(request(self.cluster, from, to, 0)? == is_reaching)
            })
            .with_context(|| self.about())?;
        }
        Ok(())
    }

    fn expect_mode(&self, namespace: &str, mode: &str) -> Result<()> {
        for agent in &self.agents {
            eventually(&format!("{namespace} to be {mode}"), || {
                let found = agent.mode_of(namespace)?;
                ensure!(found == mode, "{found}");
                Ok(true)
            })
            .with_context(|| self.about())?;
        }
        Ok(())
    }

    fn label(&self, label: &str) -> Result<()> {
        let name = format!("namespace/{SHOP}");
        self.cluster
            .kubectl(&["label", &name, label, "--overwrite"])?;
        Ok(())
    }

    fn about(&self) -> String {
        let about = self.agents.iter().map(Agent::about);
        about.collect::<Vec<_>>().join("\n")
    }
}

fn follows_labels() -> Result<()> {
    let cluster = Cluster::up(&Spec::unnamed())?;
    let folder = tempfile::tempdir()?;
    let credentials = Credentials::create(&cluster)?;
    for name in [SHOP, BANK] {
        create_namespace(&cluster, name)?;
    }
    let agents = ["n1", "n2"]
        .map(|node| Agent::start_with(&cluster, &credentials, node, folder.path(), SETTINGS, ""));
    let pods = [("one", "n1"), ("two", "n2")];
    for (name, node) in pods {
        cluster.apply(&manifest(SHOP, name, name, node))?;
    }
    let [one, two] = pods.map(|(name, _)| Pod::ready(&cluster, SHOP, name));
    let world = World {
        cluster: &cluster,
        agents: agents.into_iter().collect::<Result<_>>()?,
        pods: [one?, two?],
    };
    for (agent, pod) in world.agents.iter().zip(&world.pods) {
        let name = format!("{SHOP}/{}", pod.name);
        eventually("a fence", || Ok(agent.interface_of(&name)?.is_some()))?;
    }
    cluster.apply(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "none", "namespace": SHOP},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }))?;
    for agent in &world.agents {
        eventually("the policy", || {
            let policies = agent.show("policies")?;
            Ok(policies.as_array().is_some_and(|it| !it.is_empty()))
        })?;
    }

    // The control: in observe, the policy drops nothing.
    world.expect_mode(SHOP, "observe/config")?;
    world.expect(true, "without a label")?;
    world.label("ringfence.dev/mode=enforce")?;
    world.expect(false, "with the label")?;
    world.expect_mode(SHOP, "enforce/label")?;
    world.label("ringfence.dev/mode=strict")?;
    for agent in &world.agents {
        eventually("the bad value to be said", || {
            Ok(agent.errors()?.contains("unknown mode"))
        })?;
    }
    world.expect_mode(SHOP, "enforce/label")?;
    world.expect(false, "with a value that is no mode")?;
    world.label("ringfence.dev/mode-")?;
    world.expect(true, "without the label again")?;
    world.expect_mode(SHOP, "observe/config")?;

    world.expect_mode(BANK, "enforce/floor")?;
    cluster.kubectl(&["delete", "namespace", BANK, "--wait=true"])?;
    cluster.kubectl(&["create", "namespace", BANK])?;
    world.expect_mode(BANK, "enforce/floor")?;

    world.agents.into_iter().try_for_each(Agent::clean_up)
}

#[test]
fn a_label_of_a_namespace_is_its_mode_on_every_node() {
    follows_labels().unwrap();
}
