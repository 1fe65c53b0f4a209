//! An agent that is killed, stops or cleans up: what stays in place and what is removed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, eventually};

use crate::changes::{expect_no_failures, load};
use crate::testbed::{Ping, ProbeSpec, SOON, Tcp, Testbed, Udp, probing, run, use_clsact};

const POLICIES: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080", "udp/53"]
"#;

const ALLOWED: [ProbeSpec; 2] = [
    ("client", "server", Tcp(8080)),
    ("client", "server", Udp(53)),
];
const DENIED: [ProbeSpec; 4] = [
    ("client", "server", Tcp(8081)),
    ("client", "server", Udp(9005)),
    ("batch", "server", Tcp(8080)),
    ("batch", "server", Ping),
];

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("shop/batch", &[("app", "batch")])
}

#[test]
fn enforcement_continues_while_the_agent_is_killed_and_restarted() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("observe", POLICIES)?;
    testbed.expect_answered(&DENIED).context("the control")?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    let loads = load(&testbed, "client", "server")?;
    for _ in 0..3 {
        agent.kill()?;
        testbed
            .expect_silent(&DENIED)
            .context("while the agent is dead")?;
        testbed
            .expect_answered(&ALLOWED)
            .context("while the agent is dead")?;
        // From before the new process starts until after its API responds.
        probing(&testbed, &DENIED, &[], || agent.restart())?;
        let status = agent.cli_json(&["status"])?;
        ensure!(
            status["enforcing"] == true && status["attached"] == 3,
            "{status}"
        );
    }
    expect_no_failures(loads)?;
    let mode = run(&agent, &["mode", "get", "shop"])?;
    ensure!(
        mode.contains("enforce"),
        "the mode was not restored: {mode}"
    );
    Ok(())
}

/// SIGTERM leaves the fence in place; `cleanup` removes it completely.
fn check_stop_and_cleanup(attach: &str) -> Result<()> {
    let testbed = testbed()?;
    let spec = AgentSpec {
        inventory: testbed.inventory().build(),
        policies: POLICIES.to_owned(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(&testbed.node, &spec)?;
    if attach == "clsact" {
        use_clsact(&mut agent)?;
    }
    let status = agent.cli_json(&["status"])?;
    ensure!(status["kernel"]["attach"] == attach, "{status}");
    let refused = agent.cli(&[
        "cleanup",
        "--config",
        &agent.config_path().to_string_lossy(),
    ])?;
    ensure!(
        !refused.status.success(),
        "cleanup succeeded while the agent was running"
    );
    ensure!(
        agent.terminate()?.success(),
        "the agent did not exit cleanly on SIGTERM"
    );
    testbed.expect_silent(&DENIED).context("after SIGTERM")?;
    testbed.expect_answered(&ALLOWED).context("after SIGTERM")?;
    agent.restart()?;
    testbed.expect_silent(&DENIED).context("after a restart")?;
    testbed
        .expect_answered(&ALLOWED)
        .context("after a restart")?;
    agent.kill()?;

    cleanup(&agent)?;
    ensure!(count_pins(agent.bpffs())? == 0, "pins remain");
    let state = std::fs::read_dir(agent.dir().join("state"))?;
    let names = state.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    ensure!(
        !names.iter().any(|name| name == "last-good"),
        "the store remains: {names:?}"
    );
    for host in &testbed.hosts {
        let interface = &host.workload.interface;
        for hook in ["ingress", "egress"] {
            let shown = testbed
                .node
                .ns
                .command("tc")
                .args(["filter", "show", "dev", interface, hook])
                .output()?;
            ensure!(
                shown.stdout.is_empty(),
                "{}",
                String::from_utf8_lossy(&shown.stdout)
            );
        }
    }
    testbed
        .expect_answered(&DENIED)
        .context("the control: no fence")?;
    cleanup(&agent).context("a second time")
}

fn cleanup(agent: &Agent) -> Result<()> {
    run(
        agent,
        &[
            "cleanup",
            "--config",
            &agent.config_path().to_string_lossy(),
        ],
    )?;
    Ok(())
}

/// The number of entries in a directory, without the kernel's own files in the root of a bpffs.
fn count_pins(dir: &std::path::Path) -> Result<usize> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let ours = entries.filter(|entry| {
        let name = entry.as_ref().map(std::fs::DirEntry::file_name);
        !name.is_ok_and(|name| name.to_string_lossy().ends_with(".debug"))
    });
    Ok(ours.count())
}

#[test]
fn a_stopped_agent_keeps_its_tcx_fence_and_cleanup_removes_it() -> Result<()> {
    check_stop_and_cleanup("tcx")
}

#[test]
fn a_stopped_agent_keeps_its_clsact_fence_and_cleanup_removes_it() -> Result<()> {
    check_stop_and_cleanup("clsact")
}

/// A time this many seconds from now, also as policies write it.
fn in_seconds(seconds: i64) -> Result<(jiff::Timestamp, String)> {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    Ok((at, format!("{at:.3}")))
}

#[test]
fn a_rule_expires_on_time_while_the_agent_is_dead() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("enforce", POLICIES)?;
    let expiring: ProbeSpec = ("batch", "server", Tcp(9000));
    testbed
        .expect_silent(&[expiring])
        .context("before the rule")?;
    let (end, text) = in_seconds(4)?;
    let policies = format!(
        "{POLICIES}\n[[policy.ingress]]\nfrom = [{{ pods = \"app=batch\" }}]\n\
         ports = [\"tcp/9000\"]\nexpires = {text}\n"
    );
    crate::testbed::apply(&agent, &policies)?;
    agent.kill()?;
    // A probe that ended before the expiry must have been answered, and one that started after it
    // must not. A probe that overlaps it, with a tolerance for the difference of two clocks, may do
    // either.
    let tolerance = jiff::SignedDuration::from_millis(100);
    let mut passed = 0;
    eventually(Duration::from_secs(15), "the rule's expiry", || {
        let before = jiff::Timestamp::now();
        let answered = testbed.all_answered(&[expiring]);
        let silent = !answered && testbed.all_silent(&[expiring]);
        let after = jiff::Timestamp::now();
        ensure!(
            answered || after > end - tolerance,
            "expired {} early",
            end - after
        );
        ensure!(
            silent || before < end + tolerance,
            "still allowed {} after its expiry",
            before - end
        );
        passed += u32::from(answered);
        Ok(silent.then_some(()))
    })?;
    ensure!(passed > 0, "the rule never allowed a probe");
    testbed
        .expect_answered(&ALLOWED)
        .context("rules without expiry")?;
    agent.restart()?;
    testbed
        .expect_silent(&[expiring])
        .context("after a restart")?;
    eventually(SOON, "a response of the agent", || {
        Ok(agent.cli(&["status"])?.status.success().then_some(()))
    })
}
