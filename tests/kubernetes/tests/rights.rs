//! What users and the agent may do, as the API server says, and what an agent says that may not do what it must.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::mount::umount;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use ringfence_cluster::{Cluster, Spec};
use ringfence_kubernetes_tests::eventually;
use ringfence_kubernetes_tests::release::{self, SYSTEM, helm, install, rolled_out};
use serde_json::json;

/// The rights of a service account, as lines `resources|verbs` of `kubectl auth can-i --list`.
fn rights(cluster: &Cluster, account: &str) -> Result<BTreeSet<String>> {
    let user = format!("--as=system:serviceaccount:{SYSTEM}:{account}");
    let listed = cluster.kubectl(&["auth", "can-i", "--list", &user])?;
    let mut found = BTreeSet::new();
    for line in listed.lines().skip(1) {
        let (resource, verbs) = line.rsplit_once('[').context("a line without verbs")?;
        let resource = resource.split_whitespace().next().unwrap_or_default();
        let verbs = verbs.trim_end_matches(']');
        found.insert(format!("{resource}|{verbs}"));
    }
    Ok(found)
}

/// The table of rights of docs/security.md.
fn documented() -> Result<BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
    let text = fs::read_to_string(path)?;
    let (_, table) = text
        .split_once("| resources | verbs |")
        .context("no table")?;
    let mut found = BTreeSet::new();
    for line in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let mut cells = line
            .split('|')
            .skip(1)
            .map(|cell| cell.replace(['`', ','], ""));
        let (resources, verbs) = cells.next().zip(cells.next()).context("no cells")?;
        for resource in resources.split_whitespace() {
            found.insert(format!("{resource}|{}", verbs.trim()));
        }
    }
    Ok(found)
}

#[test]
fn the_agent_has_the_documented_rights_and_no_others() {
    let compare = || -> Result<()> {
        let cluster = Cluster::up(&Spec::unnamed())?;
        release::prepare(&cluster)?;
        install(&cluster, &[])?;
        // What every service account has.
        let others = rights(&cluster, "default")?;
        let found: BTreeSet<_> = rights(&cluster, "ringfence")?;
        let found: BTreeSet<_> = found.difference(&others).cloned().collect();
        let documented = documented()?;
        ensure!(!documented.is_empty(), "no rights are documented");
        ensure!(found == documented, "{found:?}, documented: {documented:?}");
        Ok(())
    };
    compare().unwrap();
}

/// A user who may change namespaces, and one who may switch modes besides.
fn users(cluster: &Cluster) -> Result<()> {
    let role = |name: &str, group: &str, resources: &[&str], verbs: &[&str]| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [group], "resources": resources, "verbs": verbs}],
        })
    };
    let binding = |role: &str, user: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{role}-{user}")},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role,
            },
            "subjects": [{
                "kind": "User",
                "apiGroup": "rbac.authorization.k8s.io",
                "name": user,
            }],
        })
    };
    let namespaces = ["namespaces", "namespaces/status", "namespaces/finalize"];
    cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            role("namespaces", "", &namespaces, &["get", "create", "update", "patch", "delete"]),
            binding("namespaces", "editor"),
            binding("namespaces", "switcher"),
            binding("ringfence-mode-switch", "switcher"),
        ],
    }))
}

fn label(cluster: &Cluster, user: &str, namespace: &str, label: &str) -> Result<()> {
    let user = format!("--as={user}");
    let arguments = ["label", "namespace", namespace, label, "--overwrite", &user];
    cluster.kubectl(&arguments).map(drop)
}

/// That the policy, and nothing else, refused it.
fn is_forbidden(outcome: &Result<()>) -> bool {
    let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
    error.is_some_and(|it| it.contains("switch modes.ringfence.dev"))
}

fn guarded() -> Result<()> {
    let cluster = Cluster::up(&Spec::unnamed())?;
    release::prepare(&cluster)?;
    install(&cluster, &["modeAdmission.enabled=true"])?;
    users(&cluster)?;
    cluster.kubectl(&["create", "namespace", "shop"])?;
    // A policy is in force some time after it is created.
    let mut turn = 0;
    eventually("the admission policy", || {
        turn += 1;
        let mode = format!("ringfence.dev/mode=m{turn}");
        Ok(is_forbidden(&label(&cluster, "editor", "shop", &mode)))
    })?;
    cluster.kubectl(&["label", "namespace", "shop", "ringfence.dev/mode-"])?;

    let enforce = "ringfence.dev/mode=enforce";
    let observe = "ringfence.dev/mode=observe";
    for (wrong, what) in [
        (label(&cluster, "editor", "shop", enforce), "adding"),
        (create(&cluster, "editor", "other"), "creating"),
        (patch(&cluster, "editor", "shop", "status"), "status"),
    ] {
        ensure!(is_forbidden(&wrong), "{what}: {wrong:?}");
    }
    // The control: other labels.
    label(&cluster, "editor", "shop", "team=a")?;

    label(&cluster, "switcher", "shop", enforce)?;
    create(&cluster, "switcher", "other")?;
    for (wrong, what) in [
        (label(&cluster, "editor", "shop", observe), "changing"),
        (
            label(&cluster, "editor", "shop", "ringfence.dev/mode-"),
            "removing",
        ),
    ] {
        ensure!(is_forbidden(&wrong), "{what}: {wrong:?}");
    }
    label(&cluster, "editor", "shop", "team=b")?;
    // Who may delete a Namespace may delete its label with it.
    let delete = [
        "delete",
        "namespace",
        "other",
        "--wait=false",
        "--as=editor",
    ];
    cluster.kubectl(&delete)?;
    label(&cluster, "switcher", "shop", "ringfence.dev/mode-")
}

fn create(cluster: &Cluster, user: &str, name: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("namespace.json");
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"ringfence.dev/mode": "observe"}},
    });
    fs::write(&file, namespace.to_string())?;
    let (file, user) = (file.display().to_string(), format!("--as={user}"));
    cluster
        .kubectl(&["create", "--filename", &file, &user])
        .map(drop)
}

fn patch(cluster: &Cluster, user: &str, name: &str, subresource: &str) -> Result<()> {
    let patch = r#"{"metadata":{"labels":{"ringfence.dev/mode":"enforce"}}}"#;
    let (user, subresource) = (
        format!("--as={user}"),
        format!("--subresource={subresource}"),
    );
    let arguments = ["patch", "namespace", name, &subresource, "--type=merge"];
    let arguments = [&arguments[..], &["--patch", patch, &user]].concat();
    cluster.kubectl(&arguments).map(drop)
}

#[test]
fn only_who_may_switch_changes_the_mode_label() {
    guarded().unwrap();
}

fn mounted_when_it_is_asked_for() -> Result<()> {
    let cluster = Cluster::up(&Spec::unnamed())?;
    release::prepare(&cluster)?;
    for node in ["n1", "n2"] {
        // The host's may be below the node's; unmounted is only what the node sees.
        cluster.node(node)?.run(|| {
            while statfs("/sys/fs/bpf")?.filesystem_type() == BPF_FS_MAGIC {
                umount("/sys/fs/bpf")?;
            }
            Ok(())
        })?;
    }
    install(&cluster, &[])?;
    let namespace = format!("--namespace={SYSTEM}");
    eventually("an agent to say what is missing", || {
        let pods = ["get", "pods", &namespace, "--output=yaml"];
        let pods = cluster.kubectl(&pods)?;
        Ok(pods.contains("is not on a BPF file system") && pods.contains("mountBpffs=true"))
    })?;
    helm(&cluster, &["uninstall", "ringfence", "--no-hooks"])?;
    install(&cluster, &["mountBpffs=true"])?;
    rolled_out(&cluster, "ringfence")
}

#[test]
fn bpffs_is_asked_for_and_mounted() {
    mounted_when_it_is_asked_for().unwrap();
}
