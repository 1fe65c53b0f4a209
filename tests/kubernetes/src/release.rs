//! The chart on a cluster: its image on the nodes, and its release.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::{Cluster, binaries};
use serde_json::json;

use crate::eventually;

/// The namespace of the agents.
pub const SYSTEM: &str = "ringfence-system";
/// The arguments by which an agent's process is known.
const AGENT: [&str; 2] = ["/bin/ringfence", "agent"];

/// `RINGFENCE_IMAGE`: an image archive that was made with `cargo xtask image`.
pub fn image() -> Result<PathBuf> {
    let path = std::env::var_os("RINGFENCE_IMAGE");
    let path = path.context("set RINGFENCE_IMAGE to what `cargo xtask image` prints")?;
    Ok(PathBuf::from(path).canonicalize()?)
}

/// A folder of the checkout's `deploy`.
#[must_use]
pub fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

/// What Helm makes of the chart, without a cluster.
pub fn render(arguments: &[&str]) -> Result<String> {
    let mut helm = Command::new(binaries::ensure_helm()?);
    helm.args(["template", "ringfence"]).arg(deploy("chart"));
    helm.arg(format!("--namespace={SYSTEM}")).args(arguments);
    output(&mut helm)
}

/// Makes the image available on every node, and creates the namespace that its pods need.
pub fn prepare(cluster: &Cluster) -> Result<()> {
    cluster.import_image(&image()?)?;
    cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": SYSTEM,
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
        },
    }))
}

/// Runs Helm on a cluster, and returns what it prints.
pub fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let mut command = cluster.helm_command()?;
    command.args(arguments).arg(format!("--namespace={SYSTEM}"));
    cluster.control_plane()?.run(|| output(&mut command))
}

/// Installs or changes the release with these values, as `key=value`.
pub fn install(cluster: &Cluster, values: &[&str]) -> Result<()> {
    let chart = deploy("chart");
    let chart = chart.to_str().context("a path that is not UTF-8")?;
    let mut arguments = vec!["upgrade", "--install", "ringfence", chart];
    for value in values {
        arguments.extend(["--set", value]);
    }
    helm(cluster, &arguments).map(drop)
}

/// Waits until every pod of a DaemonSet is ready. The error has what the pods say.
pub fn rolled_out(cluster: &Cluster, name: &str) -> Result<()> {
    let daemonset = format!("daemonset/{name}");
    let namespace = format!("--namespace={SYSTEM}");
    let arguments = [
        "rollout",
        "status",
        &daemonset,
        &namespace,
        "--timeout=120s",
    ];
    cluster.kubectl(&arguments).map(drop).with_context(|| {
        let pods = cluster.kubectl(&["describe", "pods", &namespace]);
        format!("{}\n{}", pods.unwrap_or_default(), logs(cluster))
    })
}

/// The end of the agents' logs.
#[must_use]
pub fn logs(cluster: &Cluster) -> String {
    let namespace = format!("--namespace={SYSTEM}");
    let selector = "--selector=app.kubernetes.io/name=ringfence";
    let arguments = ["logs", selector, &namespace, "--tail=20", "--prefix"];
    cluster.kubectl(&arguments).unwrap_or_default()
}

/// The agent's process on a node.
pub fn agent_process(cluster: &Cluster, node: &str) -> Result<i32> {
    let inode = |path: &str| Ok(fs::metadata(path)?.ino());
    let network = cluster
        .node(node)?
        .run(|| inode("/proc/thread-self/ns/net"))?;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let mut arguments = arguments.split('\0');
        let is_agent = AGENT.iter().all(|it| arguments.next() == Some(*it));
        if is_agent && inode(&format!("/proc/{pid}/ns/net")).ok() == Some(network) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no agent runs on {node}")
}

/// What an agent could leave on a node: pins, traffic control, and its files.
pub fn traces(cluster: &Cluster, node: &str) -> Result<BTreeSet<String>> {
    cluster.node(node)?.run(|| {
        let mut found = BTreeSet::new();
        for root in ["/sys/fs/bpf", "/var/lib/ringfence", "/run/ringfence"] {
            below(Path::new(root), &mut found)?;
        }
        let tc = output(Command::new("tc").args(["qdisc", "show"]))?;
        found.extend(
            tc.lines()
                .filter(|it| it.contains("clsact"))
                .map(str::to_owned),
        );
        Ok(found)
    })
}

/// Waits until a node has these traces again.
pub fn expect_traces(cluster: &Cluster, node: &str, expected: &BTreeSet<String>) -> Result<()> {
    let mut found = BTreeSet::new();
    let waited = eventually("a node without traces of the agent", || {
        found = traces(cluster, node)?;
        Ok(found == *expected)
    });
    waited.with_context(|| format!("{node} had {expected:?}, and has {found:?}"))
}

/// Everything below a folder; the folder itself does not count.
fn below(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        found.insert(entry.path().display().to_string());
        if entry.file_type()?.is_dir() {
            below(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("starting a program")?;
    ensure!(
        output.status.success(),
        "{:?}: {}{}",
        command.get_args().collect::<Vec<_>>(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
