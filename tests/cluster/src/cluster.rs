//! A running cluster: bringing it up, using it, and ending it with the value.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::binaries;
use crate::cgroup::{self, Cgroup};
use crate::component::{CONTROL_PLANE, HOLDER, Site};
use crate::home::{Description, Folder, Home};
use crate::ledger::{Ledger, ProcessId};
use crate::namespaces::{self, Namespaces};
use crate::node::{self, Node};
use crate::pki::Pki;
use crate::spec::Spec;
use crate::wait::eventually;
use crate::{containerd, control_plane, network, spec, teardown};

/// How long the API server and the nodes may take to become ready on a busy machine.
const READY: Duration = Duration::from_secs(120);

/// A cluster. Unless it was attached to or kept, it ends with this value, also while unwinding.
pub struct Cluster {
    folder: Folder,
    description: Description,
    ends: bool,
}

impl Cluster {
    /// Brings a cluster up for as long as the value lives. If this process is killed, the next
    /// call, or `cargo xtask cluster down --all`, ends it. Builds the programs if need be.
    pub fn up(spec: &Spec) -> Result<Self> {
        let home = Home::default_place()?;
        teardown::end_abandoned(&home)?;
        Self::up_in(&home, spec, Some(ProcessId::own()?))
    }

    /// Brings a cluster up in `home`. `owner` is the process with whose end it is abandoned.
    pub fn up_in(home: &Home, spec: &Spec, owner: Option<ProcessId>) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a cluster needs root");
        cgroup::check()?;
        let programs = binaries::ensure_built()?;
        let (folder, description, lock) = home.begin(spec, owner, programs)?;
        let cluster = Self {
            folder,
            description,
            ends: true,
        };
        let started = cluster.start();
        // What follows an error, the end of the cluster, takes the lock itself.
        drop(lock);
        started?;
        Ok(cluster)
    }

    /// A cluster that is up, or should be. It does not end with the value.
    pub fn attach(folder: Folder) -> Result<Self> {
        ensure!(
            folder.exists(),
            "there is no cluster {0}: `cargo xtask cluster up --name {0}` brings one up",
            folder.name()
        );
        let description = folder.description()?;
        Ok(Self {
            folder,
            description,
            ends: false,
        })
    }

    /// Lets the cluster outlive the value.
    pub fn keep(mut self) {
        self.ends = false;
    }

    /// Ends the cluster; an error says what is left.
    pub fn down(mut self) -> Result<()> {
        self.ends = false;
        teardown::down(&self.folder)
    }

    /// What was asked for, and what was decided.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The administrator's kubeconfig, of use in the control plane's and nodes' namespaces only.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki().kubeconfig("admin").into()
    }

    /// Runs kubectl and returns its standard output; its standard error is in the error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "")
    }

    /// Creates or changes the objects of a manifest, which may be a `List`.
    pub fn apply(&self, manifest: &Value) -> Result<()> {
        let arguments = ["apply", "--server-side", "--filename=-"];
        self.kubectl_with_input(&arguments, &manifest.to_string())?;
        Ok(())
    }

    /// kubectl with the administrator's kubeconfig, to be started in [`Cluster::control_plane`].
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        self.command(&self.description.programs.kubernetes.join("kubectl"))
    }

    /// Moves the calling thread into the cluster's cgroup: what it starts ends with the cluster. Before it enters
    /// namespaces of the cluster, in which there are no cgroups.
    pub fn join(&self) -> Result<()> {
        Cgroup::named(&self.folder.cgroup())?.join()
    }

    /// Helm as administrator, to be started in [`Cluster::control_plane`]; built if need be.
    pub fn helm_command(&self) -> Result<Command> {
        Ok(self.command(&binaries::ensure_helm()?))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig());
        // What clients keep ends with the cluster, and no other cluster with these addresses reads it.
        let kept = self.folder.path().join("clients");
        for (variable, folder) in [
            ("KUBECACHEDIR", "kubectl"),
            ("HELM_CACHE_HOME", "helm-cache"),
            ("HELM_CONFIG_HOME", "helm-config"),
            ("HELM_DATA_HOME", "helm-data"),
        ] {
            command.env(variable, kept.join(folder));
        }
        // The API server is not behind a proxy.
        for variable in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(variable);
        }
        command
    }

    fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.control_plane()?.run(|| {
            let mut child = self
                .kubectl_command()
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("starting kubectl")?;
            if let Some(mut pipe) = child.stdin.take() {
                // If it does not read its input, its own message is more helpful.
                let _ = pipe.write_all(input.as_bytes());
            }
            Ok(child.wait_with_output()?)
        })?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The network namespace of the control plane, in which the API server is reached.
    pub fn control_plane(&self) -> Result<Namespaces> {
        Namespaces::network_of(self.holder(CONTROL_PLANE)?.pid)
    }

    /// The network, mount and UTS namespaces of a node, for example `n1`.
    pub fn node(&self, name: &str) -> Result<Namespaces> {
        Namespaces::node_of(self.holder(name)?.pid)
    }

    /// Makes an image archive (docker or OCI) available on every node.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let ctr = self.description.programs.containerd.join("ctr");
        for number in self.description.spec.node_numbers() {
            let node = self.node(&spec::node_name(number))?;
            node.run(|| containerd::import(&ctr, archive))?;
        }
        Ok(())
    }

    fn holder(&self, place: &str) -> Result<ProcessId> {
        let entries = Ledger::at(self.folder.ledger()).latest()?;
        let mut holders = entries.iter().filter(|entry| entry.component == HOLDER);
        let holder = holders.find(|entry| entry.place == place && entry.process.lives());
        let holder = holder.with_context(|| {
            let name = self.folder.name();
            format!("the cluster {name} has no running {place}: see `cargo xtask cluster status`")
        })?;
        Ok(holder.process)
    }

    fn pki(&self) -> Pki {
        Pki::at(self.folder.pki(), &self.description)
    }

    fn start(&self) -> Result<()> {
        let cgroup = Cgroup::named(&self.folder.cgroup())?;
        let site = Site {
            folder: &self.folder,
            description: &self.description,
            cgroup: &cgroup,
        };
        self.start_all(&site).map_err(|error| {
            let ended = site.ended();
            if ended.is_empty() {
                error
            } else {
                error.context(ended)
            }
        })
    }

    fn start_all(&self, site: &Site<'_>) -> Result<()> {
        let (spec, pki) = (&self.description.spec, self.pki());
        let nodes: Vec<String> = spec.node_numbers().map(spec::node_name).collect();
        site.cgroup.create(&nodes)?;
        pki.create(&self.description)?;
        namespaces::in_new_network(|| {
            namespaces::batch("ip", &network::bridge(&self.description))?;
            site.hold(CONTROL_PLANE)?;
            control_plane::start_api(site, &pki)
        })
        .context("starting the control plane")?;
        let nodes: Vec<Node> = in_parallel(spec.node_numbers(), |n| Node::create(site, n))?;
        let control_plane = self.control_plane()?;
        control_plane.run(|| {
            let links = nodes.iter().map(|n| network::link(n.number(), n.holder()));
            namespaces::batch("ip", &links.collect::<String>())?;
            namespaces::batch("ip", &network::routes_to_pods(&self.description))
        })?;
        in_parallel(&nodes, |node| node.start_runtime(site))?;
        self.wait_for_api(site, &control_plane)?;
        control_plane.run(|| control_plane::start_controllers(site, &pki))?;
        self.create_objects(site)?;
        in_parallel(&nodes, |node| node.start_kubelet(site, &pki))?;
        let timeout = format!("--timeout={}s", READY.as_secs());
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", &timeout])
            .context("waiting for the nodes")?;
        // Without it no pod can be created in the namespace.
        self.kubectl(&["wait", "--for=create", "serviceaccount/default", &timeout])?;
        self.folder.write("ready", b"")?;
        Ok(())
    }

    fn wait_for_api(&self, site: &Site<'_>, control_plane: &Namespaces) -> Result<()> {
        let pause = Duration::from_millis(100);
        eventually(READY, pause, "the API server to be ready", || {
            let ended = site.ended();
            ensure!(ended.is_empty(), "the control plane does not run");
            // Starting kubectl costs more than a connection.
            if !control_plane.run(|| Ok(control_plane::listens(site)))? {
                return Ok(None);
            }
            Ok(self.kubectl(&["get", "--raw", "/readyz"]).ok())
        })?;
        Ok(())
    }

    fn create_objects(&self, site: &Site<'_>) -> Result<()> {
        let user = "--user=kube-apiserver-kubelet-client";
        let role = "--clusterrole=system:kubelet-api-admin";
        self.kubectl(&["create", "clusterrolebinding", "kubelet-api", role, user])?;
        self.apply(&node::objects(site))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.ends
            && let Err(error) = teardown::down(&self.folder)
        {
            eprintln!("the cluster {} did not end: {error:#}", self.folder.name());
        }
    }
}

/// Calls `f` for each item at the same time; results in order, or the first error.
fn in_parallel<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    f: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let f = &f;
    thread::scope(|scope| {
        let start = |item| scope.spawn(move || f(item));
        let threads: Vec<_> = items.into_iter().map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<T>>| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        // Every thread is waited for, also after an error.
        let results: Vec<Result<T>> = threads.into_iter().map(join).collect();
        results.into_iter().collect()
    })
}
