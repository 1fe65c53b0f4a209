//! Policies for which the kernel's maps have no room.

use anyhow::{Result, ensure};
use ringfence_testbed::{Agent, AgentSpec};

use crate::testbed::{ProbeSpec, SOON, Tcp, Testbed};

/// The server of `shop` is open to one port.
fn shop(port: u16) -> String {
    format!(
        "[[policy]]\nname = \"server\"\nnamespace = \"shop\"\nsubject = \"app=server\"\n\
         [[policy.ingress]]\nports = [\"tcp/{port}\"]\n"
    )
}

/// A policy that needs more rows than the map has, or few.
fn lab(ports: usize) -> String {
    let ports = (0..ports).map(|number| format!("\"tcp/{}\"", 9005 + 2 * number));
    format!(
        "[[policy]]\nname = \"greedy\"\nnamespace = \"lab\"\nsubject = \"\"\n\
         [[policy.ingress]]\nports = [{}]\n",
        ports.collect::<Vec<_>>().join(", ")
    )
}

fn counts_without_room(agent: &Agent, expected: u32) -> Result<()> {
    let line = format!("ringfence_policies_without_room {expected}\n");
    agent.wait_until(
        || Ok(agent.metrics()?.contains(&line)),
        SOON,
        "the metric of policies without room",
    )
}

#[test]
fn a_namespace_without_room_keeps_no_other_from_changes() -> Result<()> {
    const TO_SHOP: ProbeSpec = ("client", "server", Tcp(8080));
    const TO_SHOP_2: ProbeSpec = ("client", "server", Tcp(8081));
    const TO_LAB: ProbeSpec = ("client", "hoarder", Tcp(9005));
    const TO_LAB_2: ProbeSpec = ("client", "hoarder", Tcp(9004));
    let testbed = Testbed::new(&[("shop", &[]), ("lab", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("lab/hoarder", &[("app", "hoarder")])?;
    let agent = Agent::start(
        &testbed.node,
        &AgentSpec {
            inventory: testbed.inventory().build(),
            policies: shop(8080) + &lab(900),
            default_mode: "enforce".to_owned(),
            config: "[maps]\npolicy = 400\n".to_owned(),
            ..AgentSpec::default()
        },
    )?;
    agent.wait_enforcing(SOON)?;
    counts_without_room(&agent, 1)?;
    let (status, _) = agent.status_text()?;
    ensure!(
        status.contains("policy lab/greedy does not fit"),
        "{status}"
    );
    testbed.expect_answered(&[TO_SHOP])?;
    // Of a policy that was never in force, the subjects are locked down.
    testbed.expect_silent(&[TO_SHOP_2, TO_LAB])?;
    // Others change meanwhile.
    agent.write_policies(&(shop(8081) + &lab(900)))?;
    agent.wait_until(
        || Ok(testbed.all_answered(&[TO_SHOP_2])),
        SOON,
        "the changed policy",
    )?;
    testbed.expect_silent(&[TO_SHOP])?;
    // One that fits is in force at once, and stays when it asks for too much.
    agent.write_policies(&(shop(8081) + &lab(1)))?;
    counts_without_room(&agent, 0)?;
    testbed.expect_answered(&[TO_LAB])?;
    agent.write_policies(&(shop(8081) + &lab(900)))?;
    counts_without_room(&agent, 1)?;
    let (status, _) = agent.status_text()?;
    ensure!(
        status.contains("its earlier version stays in force"),
        "{status}"
    );
    testbed.expect_answered(&[TO_LAB, TO_SHOP_2])?;
    testbed.expect_silent(&[TO_LAB_2])
}
