//! One agent on a node.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_cluster::Cluster;
use serde_json::{Value, json};

use crate::{binary, eventually};

/// The service account of agents.
const ACCOUNT: &str = "ringfence";

/// A kubeconfig with what an agent needs to ask the API server.
pub struct Credentials(String);

impl Credentials {
    /// Creates a service account that may do what an agent must, and a token for it.
    pub fn create(cluster: &Cluster) -> Result<Self> {
        let watch = json!(["list", "watch"]);
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": ACCOUNT},
            "rules": [
                {"apiGroups": [""], "resources": ["namespaces", "nodes", "pods"], "verbs": watch},
                {"apiGroups": [""], "resources": ["services"], "verbs": watch},
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": watch,
                },
                {
                    "apiGroups": ["networking.k8s.io"],
                    "resources": ["networkpolicies", "servicecidrs"],
                    "verbs": watch,
                },
                {
                    "apiGroups": ["policy.networking.k8s.io"],
                    "resources": ["clusternetworkpolicies"],
                    "verbs": watch,
                },
            ],
        });
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": "kube-system"},
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": ACCOUNT,
            },
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "kube-system"}],
        });
        cluster.apply(&json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": [account, role, binding],
        }))?;
        let token = cluster.kubectl(&["create", "token", ACCOUNT, "--namespace=kube-system"])?;
        let view = ["config", "view", "--raw", "--flatten", "--output=json"];
        let admin: Value = serde_json::from_str(&cluster.kubectl(&view)?)?;
        let server = admin.pointer("/clusters/0/cluster");
        let server = server.context("a kubeconfig without a cluster")?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": token.trim()}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        Ok(Self(kubeconfig.to_string()))
    }
}

/// A running agent. It ends with the value.
pub struct Agent<'c> {
    cluster: &'c Cluster,
    node: String,
    folder: PathBuf,
    process: Child,
}

impl<'c> Agent<'c> {
    /// Starts an agent on a node, with its files in this folder, and waits until it is ready. It enforces in
    /// every namespace.
    pub fn start(
        cluster: &'c Cluster,
        credentials: &Credentials,
        node: &str,
        folder: &Path,
    ) -> Result<Self> {
        let settings = "[modes]\ndefault = \"enforce\"\n";
        Self::start_with(cluster, credentials, node, folder, "", settings)
    }

    /// As [`Self::start`], with these lines in `[kubernetes]` and these further tables.
    pub fn start_with(
        cluster: &'c Cluster,
        credentials: &Credentials,
        node: &str,
        folder: &Path,
        of_kubernetes: &str,
        tables: &str,
    ) -> Result<Self> {
        let folder = folder.join(node);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("kubeconfig"), &credentials.0)?;
        let config = format!(
            "state-dir = \"state\"\nrun-dir = \"run\"\n[kubernetes]\nkubeconfig = \"kubeconfig\"\n\
             {of_kubernetes}{tables}"
        );
        fs::write(folder.join("ringfence.toml"), config)?;
        let process = spawn(cluster, node, &folder)?;
        let mut agent = Self {
            cluster,
            node: node.to_owned(),
            folder,
            process,
        };
        let is_ready = eventually("an agent to enforce", || {
            if let Some(status) = agent.process.try_wait()? {
                bail!("it ended with {status}");
            }
            Ok(agent.show("status")?.get("not_in_force") == Some(&json!([])))
        });
        is_ready.with_context(|| agent.about())?;
        Ok(agent)
    }

    /// Kills it, as a crash does: it stores nothing.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again after it has ended. It need not be ready on return.
    pub fn start_again(&mut self) -> Result<()> {
        let status = self.process.try_wait()?;
        ensure!(status.is_some(), "the agent on {} runs", self.node);
        self.process = spawn(self.cluster, &self.node, &self.folder)?;
        Ok(())
    }

    /// Removes everything that it has pinned, as a reboot of its node does.
    pub fn unpin(&self) -> Result<()> {
        let pins = Path::new("/sys/fs/bpf/ringfence");
        let remove = || Ok(fs::remove_dir_all(pins)?);
        self.cluster.node(&self.node)?.run(remove)
    }

    /// A file of its state directory.
    pub fn state(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("state").join(file))?)
    }

    /// Sets the mode of a namespace.
    pub fn set_mode(&self, namespace: &str, mode: &str) -> Result<()> {
        let output = self.command(&["mode", "set", namespace, mode])?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mode set: {error}");
        Ok(())
    }

    /// What a command shows, as JSON.
    pub fn show(&self, what: &str) -> Result<Value> {
        self.ask(&[what])
    }

    /// Why a workload reaches an address or not.
    pub fn explain(&self, workload: &str, address: &str, port: &str) -> Result<Value> {
        let of = ["--from", workload, "--to", address, "--port", port];
        self.ask(&[&["policy", "explain"], of.as_slice()].concat())
    }

    /// What it says an address is, for a workload that sends to it: `world`, `cluster`, …
    pub fn kind_of(&self, workload: &str, address: &str) -> Result<String> {
        let explanation = self.explain(workload, address, "tcp/443")?;
        let kind = explanation.pointer("/to/kind").and_then(Value::as_str);
        Ok(kind.context("an explanation without a kind")?.to_owned())
    }

    /// The mode of a namespace, and what it comes from, as `mode/source`.
    pub fn mode_of(&self, namespace: &str) -> Result<String> {
        let modes = self.ask(&["mode", "get", namespace])?;
        let text = |key: &str| modes.get(0)?.get(key)?.as_str();
        let (mode, source) = text("mode").zip(text("source")).context("no mode")?;
        Ok(format!("{mode}/{source}"))
    }

    fn ask(&self, command_line: &[&str]) -> Result<Value> {
        let output = self.command(&[command_line, &["--output=json"]].concat())?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("{command_line:?} on {}: {text}{error}", self.node)
        })
    }

    fn command(&self, command_line: &[&str]) -> Result<Output> {
        let binary = binary()?;
        self.cluster.node(&self.node)?.run(|| {
            let mut command = Command::new(&binary);
            command.arg("--socket");
            command.arg(self.folder.join("run/ringfence.sock"));
            Ok(command.args(command_line).output()?)
        })
    }

    /// The errors of its sources.
    pub fn errors(&self) -> Result<String> {
        let status = self.show("status")?;
        let errors = status.get("errors").context("a status without errors")?;
        Ok(errors.to_string())
    }

    /// The interface of a pod of its node, if it has a fence.
    pub fn interface_of(&self, workload: &str) -> Result<Option<String>> {
        let endpoints = self.show("endpoints")?;
        let endpoints = endpoints.as_array().context("no list of endpoints")?;
        let is_it = |it: &&Value| {
            let name = it.get("workload").and_then(Value::as_str);
            name == Some(workload) && it.get("attached") == Some(&json!(true))
        };
        let found = endpoints.iter().find(is_it);
        let interface = found.and_then(|it| it.get("interface")?.as_str());
        Ok(interface.map(str::to_owned))
    }

    /// The end of its log, for errors.
    #[must_use]
    pub fn about(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(30)..);
        format!(
            "the agent on {}:\n{}",
            self.node,
            end.unwrap_or_default().join("\n")
        )
    }

    /// Ends it, and removes its fences.
    pub fn clean_up(mut self) -> Result<()> {
        self.end()?;
        let binary = binary()?;
        let config = self.folder.join("ringfence.toml");
        let cleanup = || {
            let mut command = Command::new(&binary);
            command.arg("cleanup").arg("--config").arg(&config);
            Ok(command.env("NODE_NAME", &self.node).output()?)
        };
        let output = self.cluster.node(&self.node)?.run(cleanup)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cleanup on {}: {error}", self.node);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.process.try_wait()?.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.process.id())?);
            kill(pid, Signal::SIGTERM)?;
        }
        self.process.wait()?;
        Ok(())
    }
}

/// Starts the process of an agent whose files are in this folder.
fn spawn(cluster: &Cluster, node: &str, folder: &Path) -> Result<Child> {
    let binary = binary()?;
    let log = folder.join("log");
    let log = File::options().append(true).create(true).open(log)?;
    cluster.node(node)?.run(|| {
        let mut command = Command::new(&binary);
        command
            .arg("agent")
            .arg("--config")
            .arg(folder.join("ringfence.toml"))
            .env("NODE_NAME", node)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command.spawn()?)
    })
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the agent on {} did not end: {error:#}", self.node);
        }
        if std::thread::panicking() {
            eprintln!("{}", self.about());
        }
    }
}
