//! Inventories that contradict policies, or themselves: everything else they say is in force.

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
    let other_node = &testbed.host("other").workload;
    let mut text = String::new();
    for line in inventory.build().lines() {
        // The other workload's addresses besides its own.
        let is_own = line.starts_with("addresses = ") && line.contains(&other_node.ip4.to_string());
        let more: String = claimed.iter().map(|ip| format!(", \"{ip}\"")).collect();
        text += &match is_own {
            true => line.replace(']', &format!("{more}]")),
            false => line.to_owned(),
        };
        text.push('\n');
    }
    agent.write_inventory(&text)?;
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
