//! Policy files that are refused at the start: the other files apply, and the endpoints of a
//! refused file's policies are locked down until the file is fixed.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec};

use crate::testbed::{ProbeSpec, SOON, Tcp, Testbed, run};

const SERVER: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080"]
"#;

const BATCH: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: batch, namespace: shop}
spec:
  podSelector: {matchLabels: {app: batch}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 9000}]}]
";

/// Traffic that the refused file allows or denies, and traffic of the other file.
const ALLOWED: [ProbeSpec; 1] = [("batch", "client", Tcp(9000))];
const DENIED: [ProbeSpec; 1] = [("batch", "client", Tcp(8081))];
const OTHER_FILE: [ProbeSpec; 2] = [
    ("client", "server", Tcp(8080)),
    ("server", "client", Tcp(8081)),
];

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("shop/batch", &[("app", "batch")])
}

fn broken() -> String {
    BATCH.replace("egress:", "colour: red\n  egress:")
}

/// Why `batch` is locked down, if it is.
fn lockdown_reason(agent: &Agent) -> Result<Option<String>> {
    let endpoints = agent.cli_json(&["endpoints"])?;
    let endpoints = endpoints.as_array().context("a list")?;
    let mut reasons = Vec::new();
    for endpoint in endpoints {
        if let Some(reason) = endpoint["locked"].as_str() {
            ensure!(endpoint["workload"] == "shop/batch", "{endpoint}");
            ensure!(endpoint["mode"] == "lockdown", "{endpoint}");
            reasons.push(reason.to_owned());
        }
    }
    Ok(reasons.pop())
}

#[test]
fn endpoints_of_a_refused_file_are_locked_down_until_it_is_fixed() -> Result<()> {
    let testbed = testbed()?;
    let spec = AgentSpec {
        inventory: testbed.inventory().build(),
        policies: SERVER.to_owned(),
        documents: vec![("batch.yaml".to_owned(), broken())],
        default_mode: "observe".to_owned(),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(&testbed.node, &spec)?;
    testbed
        .expect_answered(&[&ALLOWED[..], &DENIED, &OTHER_FILE].concat())
        .context("the control: observe does not drop")?;
    ensure!(
        lockdown_reason(&agent)?.is_none(),
        "an endpoint is locked down in observe"
    );

    run(&agent, &["mode", "set", "shop", "enforce"])?;
    testbed.expect_silent(&[ALLOWED, DENIED].concat())?;
    testbed
        .expect_answered(&OTHER_FILE)
        .context("the other file applies")?;
    let reason = lockdown_reason(&agent)?.context("batch is not locked down")?;
    ensure!(
        reason.contains("batch.yaml:1 is refused and has no earlier content"),
        "{reason}"
    );
    let status = run(&agent, &["status"])?;
    ensure!(status.contains("batch.yaml"), "{status}");

    agent.write_document("batch.yaml", BATCH)?;
    agent.wait_until(
        || Ok(lockdown_reason(&agent)?.is_none()),
        SOON,
        "the end of lockdown",
    )?;
    testbed.expect_answered(&ALLOWED).context("after the fix")?;
    testbed.expect_silent(&DENIED).context("after the fix")?;

    // If there is earlier content, it stays in force.
    agent.write_document("batch.yaml", &broken())?;
    let reported = || Ok(run(&agent, &["status"])?.contains("colour"));
    agent.wait_until(reported, SOON, "the refusal in the status")?;
    testbed
        .expect_answered(&ALLOWED)
        .context("the last good content")?;
    testbed
        .expect_silent(&DENIED)
        .context("the last good content")?;

    // After a restart there is no earlier content.
    agent.kill()?;
    agent.restart()?;
    ensure!(
        lockdown_reason(&agent)?.is_some(),
        "not locked down after a restart"
    );
    testbed.expect_silent(&[ALLOWED, DENIED].concat())?;
    testbed.expect_answered(&OTHER_FILE)
}

#[test]
fn an_unparseable_file_locks_no_endpoint_down() -> Result<()> {
    let testbed = testbed()?;
    let spec = AgentSpec {
        inventory: testbed.inventory().build(),
        policies: "[[policy]\n".to_owned(),
        documents: vec![("batch.yaml".to_owned(), BATCH.to_owned())],
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let agent = Agent::start(&testbed.node, &spec)?;
    ensure!(
        lockdown_reason(&agent)?.is_none(),
        "an endpoint is locked down"
    );
    let output = agent.stderr() + &agent.stdout();
    for expected in ["policies.toml:1:", "so no workload is locked down"] {
        ensure!(output.contains(expected), "no {expected:?} in: {output}");
    }
    testbed.expect_answered(&ALLOWED)?;
    testbed.expect_silent(&DENIED)
}
