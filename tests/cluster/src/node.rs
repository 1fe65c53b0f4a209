//! One node: namespaces, mounts, network, and the components in it.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::component::Site;
use crate::ledger::ProcessId;
use crate::namespaces::{self, Namespaces};
use crate::pki::Pki;
use crate::spec::node_name;
use crate::{cni, containerd, kube_proxy, kubelet, mounts, network};

/// A node whose namespaces exist.
pub(crate) struct Node {
    number: u8,
    holder: ProcessId,
}

impl Node {
    /// Creates the namespaces of node `number`, with its mounts, but without a network.
    pub(crate) fn create(site: &Site<'_>, number: u8) -> Result<Self> {
        let name = node_name(number);
        let holder = namespaces::in_new_node(|| {
            nix::unistd::sethostname(&name).context("setting the host name of a node")?;
            mounts::make(site.folder, &name, &site.programs().cni)?;
            let configuration = cni::configuration(site.description, number);
            fs::create_dir_all(cni::FOLDER)?;
            fs::write(cni::FILE, serde_json::to_vec_pretty(&configuration)?)
                .context("writing the CNI configuration")?;
            site.hold(&name)
        })
        .with_context(|| format!("creating node {name}"))?;
        Ok(Self { number, holder })
    }

    /// The process that keeps its namespaces.
    pub(crate) fn holder(&self) -> ProcessId {
        self.holder
    }

    /// Its number.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// Sets addresses and routes, once its link exists, and starts containerd with the images.
    pub(crate) fn start_runtime(&self, site: &Site<'_>) -> Result<()> {
        let (name, description) = (node_name(self.number), site.description);
        self.run(|| {
            namespaces::set_sysctls(&network::sysctls(description))?;
            namespaces::batch("ip", &network::node(description, self.number))?;
            if let Some(peers) = network::tunnel_peers(description, self.number) {
                namespaces::batch("bridge", &peers)?;
            }
            containerd::start(site, &name)?;
            let ctr = site.programs().containerd.join("ctr");
            let images = site.programs().images()?;
            images
                .iter()
                .try_for_each(|image| containerd::import(&ctr, image))
        })
    }

    /// Starts kubelet and kube-proxy. Its Node object must exist.
    pub(crate) fn start_kubelet(&self, site: &Site<'_>, pki: &Pki) -> Result<()> {
        self.run(|| {
            kubelet::start(site, pki, self.number)?;
            kube_proxy::start(site, pki, self.number)
        })
    }

    fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespaces = Namespaces::node_of(self.holder.pid)?;
        let name = node_name(self.number);
        namespaces.run(f).with_context(|| format!("on node {name}"))
    }
}

/// The Node objects, which have the ranges that the CNI configuration uses.
pub(crate) fn objects(site: &Site<'_>) -> Value {
    let (spec, ranges) = (&site.description.spec, site.description.ranges());
    let object = |number| {
        let mut pods = vec![ranges.pods4(number)];
        if spec.is_dual() {
            pods.push(ranges.pods6(number));
        }
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node_name(number)},
            "spec": {"podCIDR": ranges.pods4(number), "podCIDRs": pods},
        })
    };
    let items: Vec<Value> = spec.node_numbers().map(object).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
