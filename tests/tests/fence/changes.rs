//! Changes while the agent runs: policies under load, relabelled and new workloads.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Attributes, Load, LoadSpec, Proto};

use crate::testbed::{ProbeSpec, SOON, Tcp, Testbed, Udp, apply, apply_inventory, run};

/// Policies that allow the load; `extra` is a further port, so that the policy table changes.
fn allowing(extra: u16) -> String {
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = ["tcp/8080", "udp/53", "tcp/{extra}"]

[[policy]]
name = "client"
namespace = "shop"
subject = "app=client"

[[policy.egress]]
to = [{{ pods = "app=server" }}]
ports = ["tcp/8080", "udp/53", "tcp/{extra}", "tcp/9011"]
"#
    )
}

/// Load over TCP and UDP in both families, at a rate that does not saturate the machine.
pub(crate) fn load(testbed: &Testbed, from: &str, to: &str) -> Result<Vec<Load>> {
    // A lost SYN is retransmitted after a second; this deadline makes that a failure.
    load_within(testbed, from, to, Duration::from_millis(900))
}

/// Load whose requests may take so long.
pub(crate) fn load_within(
    testbed: &Testbed,
    from: &str,
    to: &str,
    reply_within: Duration,
) -> Result<Vec<Load>> {
    let spec = LoadSpec {
        clients: 1,
        reply_within,
        interval: Duration::from_millis(2),
    };
    let mut loads = Vec::new();
    for ip in testbed.host(to).workload.ips() {
        for (proto, port) in [(Proto::Tcp, 8080), (Proto::Udp, 53)] {
            let ns = &testbed.host(from).workload.ns;
            loads.push(Load::start(ns, proto, SocketAddr::new(ip, port), spec)?);
        }
    }
    for load in &loads {
        load.wait_for_answers(5, SOON)?;
    }
    Ok(loads)
}

/// Stops loads and fails if any request has failed.
pub(crate) fn expect_no_failures(loads: Vec<Load>) -> Result<()> {
    for load in loads {
        load.wait_for_answers(5, SOON)?;
        let totals = load.stop()?;
        ensure!(totals.failed == 0 && totals.answered > 10, "{totals:?}");
    }
    Ok(())
}

#[test]
fn fifty_reloads_under_load_fail_no_request() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    let agent = testbed.agent("enforce", &allowing(9000))?;
    let loads = load(&testbed, "client", "server")?;
    let denied: [ProbeSpec; 1] = [("client", "server", Tcp(9011))];
    for round in 0..50 {
        let extra = if round % 2 == 0 { 9004 } else { 9005 };
        apply(&agent, &allowing(extra))?;
        if round % 10 == 9 {
            testbed.expect_silent(&denied)?;
        }
    }
    expect_no_failures(loads)?;
    testbed.expect_answered(&[("client", "server", Tcp(9005))])?;
    testbed.expect_silent(&[("client", "server", Tcp(9004))])?;
    testbed.set_mode(&agent, "observe")?;
    testbed.expect_answered(&denied).context("the control")
}

const WEB_ONLY: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=web" }]
"#;

#[test]
fn a_changed_inventory_changes_identities_at_once() -> Result<()> {
    let mut testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("shop/peer", &[("app", "other")])?;
    let agent = testbed.agent("enforce", WEB_ONLY)?;
    let specs: [ProbeSpec; 2] = [("peer", "server", Tcp(8080)), ("peer", "server", Udp(53))];
    testbed.expect_silent(&specs)?;

    testbed.host_mut("peer").attributes = Attributes::labels(&[("app", "web")]);
    apply_inventory(&agent, testbed.inventory())?;
    testbed
        .expect_answered(&specs)
        .context("a peer relabelled to web")?;
    let server = &testbed.host("server").workload;
    let peer = &testbed.host("peer").workload;
    let mut streams = Vec::new();
    for ip in server.ips() {
        let stream = ringfence_testbed::Stream::open(&peer.ns, &server.ns, ip, 0, SOON)?;
        streams.push(stream);
    }

    testbed.host_mut("peer").attributes = Attributes::labels(&[("app", "other")]);
    apply_inventory(&agent, testbed.inventory())?;
    testbed
        .expect_silent(&specs)
        .context("a peer relabelled from web")?;
    for stream in &mut streams {
        stream.expect_silent(ringfence_testbed::End::Client, crate::testbed::SHORT)?;
    }

    // A new workload that sends packets before the inventory contains it.
    let late = testbed.node.workload("shop", "late")?;
    testbed.add(late, Attributes::labels(&[("app", "web")]))?;
    let specs: [ProbeSpec; 2] = [("late", "server", Tcp(8080)), ("late", "server", Udp(53))];
    testbed
        .expect_silent(&specs)
        .context("a workload that is not in the inventory")?;
    apply_inventory(&agent, testbed.inventory())?;
    testbed.expect_answered(&specs).context("a new workload")?;

    // Removed from the inventory while its interface still exists.
    let late = testbed.hosts.pop().context("late")?;
    let without = testbed.inventory();
    testbed.hosts.push(late);
    apply_inventory(&agent, without)?;
    testbed
        .expect_silent(&specs)
        .context("a removed workload")?;
    testbed.set_mode(&agent, "observe")?;
    // The kernel removes the fence from the removed endpoint's interface asynchronously; TCP
    // retransmits until then.
    testbed
        .expect_answered(&specs[..1])
        .context("a fence being removed")?;
    testbed.expect_answered(&specs).context("the control")
}

#[test]
fn a_refused_policy_file_changes_only_the_status() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("shop/web", &[("app", "web")])?
        .with_labels("shop/peer", &[("app", "other")])?;
    let agent = testbed.agent("enforce", WEB_ONLY)?;
    let allowed: [ProbeSpec; 1] = [("web", "server", Tcp(8080))];
    let denied: [ProbeSpec; 1] = [("peer", "server", Tcp(8080))];
    let bad = WEB_ONLY.replace("from = [{ pods", "form = [{ pods");
    agent.write_policies(&bad)?;
    let error = || -> Result<Option<String>> {
        let status = agent.cli_json(&["status"])?;
        let sources = status["sources"].as_array().context("sources")?.clone();
        let policies = sources.iter().find(|source| source["kind"] == "policies");
        let policies = policies.context("a policies source")?;
        let state = policies["state"].as_str().context("a state")?;
        let error = policies["error"].as_str().map(str::to_owned);
        ensure!((state == "error") == error.is_some(), "{policies}");
        Ok(error)
    };
    let mut found = None;
    agent.wait_until(
        || {
            found = error()?;
            Ok(found.is_some())
        },
        SOON,
        "an error in the status",
    )?;
    let found = found.context("an error")?;
    let line = bad
        .lines()
        .position(|l| l.contains("form"))
        .context("a line")?
        + 1;
    ensure!(
        found.contains(&format!("policies.toml:{line}:1")),
        "{found}"
    );
    ensure!(found.contains("form"), "{found}");
    for _ in 0..3 {
        testbed
            .expect_answered(&allowed)
            .context("the last good policies")?;
        testbed
            .expect_silent(&denied)
            .context("the last good policies")?;
    }
    ensure!(run(&agent, &["policies"])?.contains("shop/server"));

    let wider = WEB_ONLY.replace("app=web", "app in (web,other)");
    apply(&agent, &wider)?;
    ensure!(
        error()?.is_none(),
        "the error remains after the file was fixed"
    );
    testbed.expect_answered(&denied).context("the fixed file")
}
