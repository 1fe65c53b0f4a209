//! Policy files that are refused at the start: the other files apply, and the endpoints of a
//! refused file's policies are locked down until the file is fixed.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec};

use crate::testbed::{CLIENT_TO_SERVER, ProbeSpec, SOON, Tcp, Testbed, policy_directory, run};

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
        policies: CLIENT_TO_SERVER.to_owned(),
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
    let (status, healthy) = agent.status_text()?;
    ensure!(status.contains("batch.yaml") && !healthy, "{status}");
    agent
        .http_get("/readyz")
        .context("a bad file is no reason")?;

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
    let reported = || Ok(agent.status_text()?.0.contains("colour"));
    agent.wait_until(reported, SOON, "the refusal in the status")?;
    testbed
        .expect_answered(&ALLOWED)
        .context("the last good content")?;
    testbed
        .expect_silent(&DENIED)
        .context("the last good content")?;

    // And after a restart, too.
    for _ in 0..2 {
        agent.kill()?;
        agent.restart()?;
        ensure!(
            lockdown_reason(&agent)?.is_none(),
            "locked down after a restart"
        );
        testbed
            .expect_answered(&ALLOWED)
            .context("the last good content after a restart")?;
        testbed
            .expect_silent(&DENIED)
            .context("the last good content after a restart")?;
    }
    let (status, healthy) = agent.status_text()?;
    ensure!(
        status.matches("colour").count() == 1 && !healthy,
        "{status}"
    );
    let metrics = agent.metrics()?;
    let counted = "ringfence_refused_files{in_force=\"last-good\"} 1\n";
    ensure!(metrics.contains(counted), "{metrics}");
    Ok(())
}

/// A typo of Monday does not lock a namespace at Thursday's restart.
#[test]
fn a_file_that_never_was_good_changes_nothing_before_and_after_a_restart() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("enforce", "")?;
    let directory = policy_directory(&mut agent, &[("server.toml", CLIENT_TO_SERVER)])?;
    let open = [&ALLOWED[..], &DENIED, &OTHER_FILE].concat();
    testbed.expect_answered(&open).context("the control")?;
    std::fs::write(directory.join("batch.yaml"), broken())?;
    let reported = || Ok(agent.status_text()?.0.contains("colour"));
    agent.wait_until(reported, SOON, "the refusal in the status")?;
    testbed.expect_answered(&open).context("at run time")?;
    // It is written by a thread of its own.
    let store = agent.dir().join("state/last-good");
    let is_remembered = || {
        let mut records = std::fs::read_dir(&store)?.filter_map(Result::ok);
        Ok(records.any(|record| {
            let text = std::fs::read(record.path()).unwrap_or_default();
            String::from_utf8_lossy(&text).contains("batch.yaml")
        }))
    };
    agent.wait_until(is_remembered, SOON, "a record of the refused file")?;
    agent.kill()?;
    agent.restart()?;
    testbed.expect_answered(&open).context("after a restart")?;
    ensure!(lockdown_reason(&agent)?.is_none());
    let (status, healthy) = agent.status_text()?;
    ensure!(status.contains("colour") && !healthy, "{status}");
    // Nothing is known any more: the control.
    agent.kill()?;
    std::fs::remove_dir_all(agent.dir().join("state/last-good"))?;
    agent.restart()?;
    ensure!(lockdown_reason(&agent)?.is_some(), "{}", agent.stderr());
    testbed.expect_silent(&[ALLOWED, DENIED].concat())?;
    testbed.expect_answered(&OTHER_FILE)
}

/// A store that this version cannot use ends no start: what it had is lost, and that is said.
#[test]
fn a_store_of_a_newer_version_is_set_aside() -> Result<()> {
    let testbed = testbed()?;
    let spec = AgentSpec {
        inventory: testbed.inventory().build(),
        policies: CLIENT_TO_SERVER.to_owned(),
        documents: vec![("batch.yaml".to_owned(), BATCH.to_owned())],
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(&testbed.node, &spec)?;
    agent.terminate()?;
    let store = agent.dir().join("state/last-good");
    let records = |end: &str| -> Result<Vec<std::path::PathBuf>> {
        let entries = std::fs::read_dir(&store)?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let paths: Result<Vec<_>> = paths.collect();
        Ok(paths?
            .into_iter()
            .filter(|path| path.to_string_lossy().ends_with(end))
            .filter(|path| path.to_string_lossy().contains('-'))
            .filter(|path| !path.ends_with("complete"))
            .collect())
    };
    let all = records("")?;
    ensure!(all.len() == 3, "{all:?}");
    for path in &all {
        let bytes = std::fs::read(path)?;
        let text = String::from_utf8(bytes)?.replacen("last-good 1 ", "last-good 99 ", 1);
        std::fs::write(path, text)?;
    }
    agent.write_document("batch.yaml", &broken())?;
    agent.restart()?;
    ensure!(records(".set-aside")?.len() == 3);
    ensure!(
        agent.stderr().contains("format version 99"),
        "{}",
        agent.stderr()
    );
    // What its last good content was is not known, so it is closed.
    ensure!(lockdown_reason(&agent)?.is_some());
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
