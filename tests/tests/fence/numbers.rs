//! Numbers: those in conntrack keep their meaning over a restart, and none is lost for ever.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use aya::maps::{LpmTrie, Map, MapData};
use ringfence::datapath::Pins;
use ringfence_common::{
    ids::TableId,
    maps,
    policy::{PolicyKey, PolicyRow},
};
use ringfence_testbed::{Agent, End, Stream};

use crate::testbed::{SHORT, SOON, Tcp, Testbed, apply};

fn allowing(ports: &str) -> String {
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = [{ports}]
"#
    )
}

const REVOKED: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
ingress = []
"#;

/// What happens to the agent between the harmless change and the revocation.
type Meanwhile = fn(&mut Agent) -> Result<()>;

/// The tables with rows in the kernel.
fn tables(agent: &Agent) -> Result<BTreeSet<TableId>> {
    let pin = Pins::below(agent.bpffs()).map(maps::POLICY);
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let rows: LpmTrie<_, PolicyKey, PolicyRow> = map.try_into()?;
    rows.keys().map(|key| Ok(key?.data().table)).collect()
}

/// An idle connection keeps the number of the table that allowed it. Whatever happens to that table
/// and to the agent, no later table may have the number.
fn revoke_after(meanwhile: Meanwhile) -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    let mut agent = testbed.agent("enforce", &allowing("\"tcp/9300-9310\""))?;
    let before = tables(&agent)?;
    let (client, server) = (testbed.host("client"), testbed.host("server"));
    let mut streams = Vec::new();
    for (port, ip) in (9300..).zip(server.workload.ips()) {
        let (from, to) = (&client.workload.ns, &server.workload.ns);
        let mut stream = Stream::open(from, to, ip, port, SOON)?;
        stream.expect_delivered(End::Client, SOON)?;
        stream.expect_delivered(End::Server, SOON)?;
        streams.push(stream);
    }
    apply(&agent, &allowing("\"tcp/9300-9310\", \"tcp/9400\""))?;
    let removed = || {
        let now = tables(&agent)?;
        Ok(now.len() == before.len() && now != before)
    };
    agent.wait_until(removed, SOON, "the old table's removal")?;
    meanwhile(&mut agent)?;
    apply(&agent, REVOKED)?;
    for stream in &mut streams {
        stream.expect_silent(End::Client, SHORT)?;
        stream.expect_silent(End::Server, SHORT)?;
    }
    // The control: the connections are whole, only policy stops them.
    testbed.set_mode(&agent, "observe")?;
    for stream in &mut streams {
        stream.expect_delivered(End::Client, SOON)?;
    }
    let status = agent.cli_json(&["status"])?;
    ensure!(status["ready"] == true, "{status}");
    Ok(())
}

#[test]
fn a_connection_revoked_after_a_restart_is_cut() -> Result<()> {
    revoke_after(Agent::restart)
}

#[test]
fn a_connection_revoked_after_the_ledger_was_lost_is_cut() -> Result<()> {
    revoke_after(|agent| {
        agent.kill()?;
        std::fs::remove_file(agent.dir().join("state/numbers"))?;
        agent.restart()
    })
}

#[test]
fn a_connection_revoked_without_a_restart_is_cut() -> Result<()> {
    revoke_after(|_| Ok(()))
}

/// The test bed's inventory with namespaces of these numbers.
fn with_namespaces(testbed: &Testbed, numbers: std::ops::Range<u32>) -> String {
    let names = numbers.map(|number| format!("ns-{number}"));
    let inventory = names.fold(testbed.inventory(), |inventory, name| {
        inventory.namespace(&name, &[])
    });
    inventory.build()
}

/// Every namespace needs a slot while it exists, and no longer.
#[test]
fn an_exhausted_node_is_not_ready_and_numbers_come_back() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    let agent = testbed.agent("enforce", REVOKED)?;
    let denied = [("client", "server", Tcp(8080))];
    let ready = |wanted: bool, namespaces: usize| -> Result<()> {
        let condition = || {
            let status = agent.cli_json(&["status"])?;
            let error = status["last_error"].as_str().unwrap_or_default();
            let told = wanted || error.contains("distinct values of type namespace");
            let http = agent.http_get("/readyz").is_ok();
            let count = status["namespaces"].as_array().map(Vec::len) == Some(namespaces);
            Ok(count && told && status["ready"] == wanted && http == wanted)
        };
        agent.wait_until(condition, 4 * SOON, &format!("ready: {wanted}"))
    };
    // Half as many again as there are slots, a third of them at a time.
    let third = ringfence_common::maps::NAMESPACES / 2;
    for reload in 0..3 {
        let numbers = reload * third..(reload + 1) * third;
        agent.write_inventory(&with_namespaces(&testbed, numbers))?;
        ready(true, third as usize + 1)?;
    }
    agent.write_inventory(&with_namespaces(&testbed, 0..2 * third + 1))?;
    ready(false, 2 * third as usize + 2)?;
    testbed.expect_silent(&denied)?;
    agent.write_inventory(&with_namespaces(&testbed, 0..0))?;
    ready(true, 1)?;
    testbed.expect_silent(&denied)?;
    testbed.set_mode(&agent, "observe")?;
    testbed.expect_answered(&denied)
}
