//! Inventories that contradict policies, or themselves: everything else they say is in force.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::Attributes;

use crate::testbed::{Ping, ProbeSpec, SOON, Tcp, Testbed, Udp, apply_inventory, run};

const POLICIES: &str = r#"
[[policy]]
name = "shut"
namespace = "ghost"
subject = ""
ingress = []

[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=client" }]

[[policy]]
name = "new"
namespace = "shop"
subject = "app=new"
ingress = []
egress = []
"#;

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/other", &[("app", "other")])?
        .with_labels("shop/server", &[("app", "server")])
}

fn probes(from: &'static str) -> [ProbeSpec; 3] {
    [Tcp(8080), Udp(53), Ping].map(|what| (from, "server", what))
}

#[test]
fn an_inventory_without_a_policy_s_namespace_is_taken() -> Result<()> {
    let mut testbed = testbed()?;
    let agent = testbed.agent("enforce", POLICIES)?;
    // From the start, the inventory lacks `ghost`.
    let warning = "policy ghost/shut is for the unknown namespace ghost";
    let status = run(&agent, &["status"])?;
    ensure!(status.contains(warning), "{status}");
    testbed.expect_answered(&probes("client"))?;
    testbed.expect_silent(&probes("other"))?;
    apply_inventory(&agent, testbed.inventory().namespace("ghost", &[]))?;
    ensure!(!run(&agent, &["status"])?.contains(warning));
    // It goes, and other changes come with the same inventory.
    for (name, label) in [("client", "other"), ("other", "client")] {
        testbed.host_mut(name).attributes = Attributes::labels(&[("app", label)]);
    }
    testbed = testbed.with_labels("shop/new", &[("app", "new")])?;
    testbed.expect_answered(&[("new", "other", Ping)])?;
    apply_inventory(&agent, testbed.inventory())?;
    let is_fenced = || Ok(agent.cli_json(&["status"])?["attached"] == 4);
    agent.wait_until(is_fenced, SOON, "a fence for the new workload")?;
    testbed.expect_answered(&probes("other"))?;
    testbed.expect_silent(&probes("client"))?;
    testbed.expect_silent(&[("new", "other", Ping), ("new", "other", Tcp(8080))])?;
    let log = agent.stderr();
    let logged = |line: &&str| line.contains(" WARN ") && line.contains(warning);
    ensure!(log.lines().filter(logged).count() == 2, "{log}");
    Ok(())
}

#[test]
fn an_address_that_two_claim_is_unknown_to_others() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", POLICIES)?;
    testbed.expect_answered(&probes("client"))?;
    // A workload elsewhere claims the same: this node knows better.
    let other = Attributes::labels(&[("app", "other")]);
    let claimed = testbed.host("client").workload.ips();
    let unknown = || -> Result<String> {
        let metrics = agent.metrics()?;
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with("ringfence_unknown_addresses "));
        Ok(line.context("no such metric")?.to_owned())
    };
    let inventory = testbed.inventory();
    let elsewhere = inventory.clone().remote("shop", "twin", &claimed, &other);
    apply_inventory(&agent, elsewhere)?;
    testbed.expect_answered(&probes("client"))?;
    ensure!(unknown()?.ends_with(" 0"));
    // A workload of this node claims it, too: it is not known whose it is.
    agent.write_inventory(&with_more(&testbed, "other", &claimed))?;
    let is_counted = || Ok(unknown()?.ends_with(&format!(" {}", claimed.len())));
    agent.wait_until(is_counted, SOON, "the metric")?;
    testbed.expect_silent(&probes("client"))?;
    // It is not locked down: only other fences do not know it.
    testbed.expect_answered(&[("client", "node", Ping), ("client", "node", Tcp(8080))])?;
    let (status, healthy) = agent.status_text()?;
    ensure!(
        status.contains("is claimed by workload shop/") && !healthy,
        "{status}"
    );
    let flows = run(&agent, &["flows", "--last", "200", "--verdict", "denied"])?;
    ensure!(flows.contains("unknown-peer"), "{flows}");
    apply_inventory(&agent, inventory)?;
    testbed.expect_answered(&probes("client"))
}

/// The inventory, in which a workload has more addresses besides its own.
fn with_more(testbed: &Testbed, name: &str, more: &[IpAddr]) -> String {
    let own = testbed.host(name).workload.ip4.to_string();
    let more: String = more.iter().map(|ip| format!(", \"{ip}\"")).collect();
    let mut text = String::new();
    for line in testbed.inventory().build().lines() {
        let is_own = line.starts_with("addresses = ") && line.contains(&own);
        text += &match is_own {
            true => line.replace(']', &format!("{more}]")),
            false => line.to_owned(),
        };
        text.push('\n');
    }
    text
}

#[test]
fn an_address_that_two_workloads_here_claim_opens_no_way_around_policy() -> Result<()> {
    let testbed = testbed()?;
    let shut = "[[policy]]\nname = \"quiet\"\nnamespace = \"shop\"\nsubject = \"app=other\"\n\
                [[policy.egress]]\nto = [{ pods = \"app=server\" }]\n";
    let open = "[[policy]]\nname = \"open\"\nnamespace = \"shop\"\nsubject = \"app=server\"\n\
                [[policy.ingress]]\n";
    let agent = testbed.agent("enforce", &format!("{shut}{open}"))?;
    let other = |to: &'static str| [Tcp(8080), Udp(53), Ping].map(|what| ("other", to, what));
    testbed.expect_silent(&other("client"))?;
    testbed.expect_answered(&other("server"))?;
    let claimed = testbed.host("client").workload.ips();
    agent.write_inventory(&with_more(&testbed, "other", &claimed))?;
    let entries = || -> Result<bool> {
        let (status, _) = agent.status_text()?;
        let named = |ip: &IpAddr| {
            let mut lines = status.lines();
            lines.any(|line| line.contains(&format!("address {ip} of workload shop/")))
        };
        Ok(claimed.iter().all(named))
    };
    agent.wait_until(entries, SOON, "each address in status")?;
    // As if the address were its own, its policy would not be asked.
    testbed.expect_silent(&other("client"))?;
    // For its other addresses it keeps its fence and its policies.
    testbed.expect_answered(&other("server"))?;
    let fences = agent.cli_json(&["status"])?;
    ensure!(fences["attached"] == 3, "{fences}");
    // The one without another address is not locked down.
    testbed.expect_answered(&[("client", "node", Ping), ("client", "node", Tcp(8080))])?;
    apply_inventory(&agent, testbed.inventory())?;
    testbed.expect_silent(&other("client"))?;
    testbed.expect_answered(&[("client", "server", Ping)])
}
