//! The plain manifests are those of the chart, and do without Helm what it does.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ringfence_cluster::{Cluster, Spec};
use ringfence_kubernetes_tests::release::{
    self, SYSTEM, deploy, expect_traces, render, rolled_out, traces,
};

/// Set, the manifests are written instead of compared.
const UPDATE: &str = "RINGFENCE_UPDATE_MANIFESTS";
/// Each file, and how it is made.
const FILES: [(&str, &[&str]); 2] = [
    (
        "ringfence.yaml",
        &["--no-hooks", "--set=createNamespace=true"],
    ),
    (
        "cleanup.yaml",
        &[
            "--show-only=templates/cleanup/rbac.yaml",
            "--show-only=templates/cleanup/daemonset.yaml",
        ],
    ),
];
const HEADING: &str = "# Made from deploy/chart; `tests/kubernetes/tests/manifests.rs` compares, and writes it with\n\
                       # RINGFENCE_UPDATE_MANIFESTS=1.\n";

/// What only means something to Helm.
fn is_of_helm(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("helm.sh/hook") || line == "app.kubernetes.io/managed-by: Helm"
}

fn plain(arguments: &[&str]) -> Result<String> {
    let rendered = render(arguments)?;
    let lines = rendered.lines().filter(|line| !is_of_helm(line));
    let mut text = HEADING.to_owned();
    for line in lines {
        // Nothing is left of the annotations of a hook.
        if line == "  annotations:" && arguments.iter().any(|it| it.contains("cleanup")) {
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

#[test]
fn the_manifests_are_those_of_the_chart() -> Result<()> {
    for (file, arguments) in FILES {
        let path = deploy("manifests").join(file);
        let expected = plain(arguments)?;
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&path, &expected)?;
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            found == expected,
            "{} is not what the chart renders: run this with {UPDATE}=1",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn values_that_the_schema_forbids_are_refused() -> Result<()> {
    render(&["--set=updateStrategy.maxUnavailable=10%"])?;
    for wrong in [
        "--set=updateStrategy.maxUnavailable=0",
        "--set=config.modes.default=on",
        "--set=config.kubernetes.node-name=a",
        "--set=unknown=1",
        "--set=podRanges=some",
        "--set=modeFloor[0].mode=observe,modeFloor[0].namespaces={shop}",
        "--set=modeFloor[0].mode=enforce",
        "--set=podMonitor.enabled=true",
    ] {
        let refused = render(&[wrong]);
        ensure!(refused.is_err(), "{wrong}: {refused:?}");
    }
    let listen = "--set=config.metrics.listen=0.0.0.0:9964";
    let monitored = render(&["--set=podMonitor.enabled=true", listen])?;
    ensure!(monitored.contains("kind: PodMonitor"), "{monitored}");
    Ok(())
}

#[test]
fn the_configuration_keeps_its_types() -> Result<()> {
    let rendered = render(&[
        "--set=config.flows.log-max-bytes=67108864",
        "--set=config.allow-uplink=true",
        "--set=config.cluster-ranges={10.244.0.0/16,10.96.0.0/16}",
        "--show-only=templates/configmap.yaml",
    ])?;
    for line in [
        "mode-labels = \"set\"",
        "pod-ranges = \"off\"",
        "\"log-max-bytes\" = 67108864",
        "\"allow-uplink\" = true",
        "\"cluster-ranges\" = [\"10.244.0.0/16\",\"10.96.0.0/16\"]",
    ] {
        ensure!(rendered.contains(line), "{line}: {rendered}");
    }
    let tables = rendered.find("[kubernetes]").context("no table")?;
    let key = rendered.find("\"allow-uplink\"").context("no key")?;
    ensure!(
        key < tables,
        "a key after a table is in that table: {rendered}"
    );
    Ok(())
}

#[test]
fn what_labels_may_do_to_modes_is_what_the_values_say() -> Result<()> {
    let rendered = render(&[
        "--set=modeAdmission.enabled=false",
        "--set=podRanges={10.244.0.0/16}",
        "--set=modeFloor[0].mode=enforce,modeFloor[0].namespaces={shop,pay}",
        "--set=modeFloor[1].mode=lockdown,modeFloor[1].selector=quarantine=yes",
        "--show-only=templates/configmap.yaml",
    ])?;
    for line in [
        "mode-labels = \"raise\"",
        "pod-ranges = [\"10.244.0.0/16\"]",
        "{ mode = \"enforce\", namespaces = [\"shop\",\"pay\"] },",
        "{ mode = \"lockdown\", selector = \"quarantine=yes\" },",
    ] {
        ensure!(rendered.contains(line), "{line}: {rendered}");
    }
    Ok(())
}

#[test]
fn they_bring_an_agent_to_each_node_and_remove_it() {
    applied_and_removed().unwrap();
}

fn applied_and_removed() -> Result<()> {
    let cluster = Cluster::up(&Spec::unnamed())?;
    cluster.import_image(&release::image()?)?;
    let before = traces(&cluster, "n1")?;
    let path = |file: &str| deploy("manifests").join(file).display().to_string();
    let (agents, cleanup) = (path("ringfence.yaml"), path("cleanup.yaml"));
    cluster.kubectl(&["apply", "--server-side", "--filename", &agents])?;
    rolled_out(&cluster, "ringfence")?;
    ensure!(
        traces(&cluster, "n1")? != before,
        "an agent leaves no traces"
    );

    // The namespace must stay for the pods that clean up.
    let namespace = format!("--namespace={SYSTEM}");
    cluster.kubectl(&["delete", "daemonset/ringfence", &namespace])?;
    cluster.kubectl(&["apply", "--server-side", "--filename", &cleanup])?;
    rolled_out(&cluster, "ringfence-cleanup")?;
    cluster.kubectl(&["delete", "--filename", &cleanup])?;
    // The DaemonSet is gone already.
    cluster.kubectl(&["delete", "--ignore-not-found", "--filename", &agents])?;
    for node in ["n1", "n2"] {
        expect_traces(&cluster, node, &before)?;
    }
    Ok(())
}
