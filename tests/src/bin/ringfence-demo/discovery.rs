//! The first part: the shop, and an agent that only observes.
//!
//! Invariants: nothing is enforced here, so every intrusion must succeed, which shows that later
//! failures are due to the fence. These intrusions are not counted in the totals.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, interrupt};
use serde_json::Value;

use crate::clients::Clients;
use crate::intrusion::Path;
use crate::observed;
use crate::print::{heading, line, rows};
use crate::shop::{INVENTORY, POLICIES, Shop};

const SOON: Duration = Duration::from_secs(10);

pub(crate) fn open() -> Result<Shop> {
    heading("The shop: policies/inventory.toml, each workload in a network namespace");
    let shop = Shop::open()?;
    rows(&shop.rows());
    Ok(shop)
}

/// All clients; those of payments, whose permission is revoked later, separately.
pub(crate) fn clients(shop: &Shop) -> Result<(Clients, Clients)> {
    let (mut clients, mut payments) = (Clients::default(), Clients::default());
    for frontend in ["frontend-1", "frontend-2"] {
        let frontend = shop.member(frontend)?;
        clients.add(&shop.customer, frontend)?;
        clients.add(&frontend.workload, shop.member("orders-1")?)?;
    }
    let orders = &shop.member("orders-1")?.workload;
    clients.add(orders, shop.member("orders-db-1")?)?;
    payments.add(orders, shop.member("payments-1")?)?;
    line(&format!(
        "{} clients send requests continuously: customers → frontend → orders → payments, db;",
        clients.len() + payments.len()
    ));
    line("IPv4 and IPv6, half on persistent connections, half on a new one for each request.");
    clients.wait_for_responses(100)?;
    payments.wait_for_responses(20)?;
    Ok((clients, payments))
}

pub(crate) fn observe(shop: &Shop, clients: &Clients) -> Result<Agent> {
    heading(
        "Observe: the agent starts without policies and reports which workloads talk to each other",
    );
    let spec = AgentSpec {
        inventory: INVENTORY.to_owned(),
        default_mode: "observe".to_owned(),
        ..AgentSpec::default()
    };
    let agent = Agent::start(&shop.node, &spec)?;
    agent.wait_until(
        || {
            interrupt::check()?;
            let status = agent.cli_json(&["status"])?;
            let attached = status.get("attached").and_then(Value::as_u64);
            Ok(attached == u64::try_from(shop.members.len()).ok())
        },
        SOON,
        "every workload attached",
    )?;
    let mut relations = observed::relations(&[]);
    // Every relation is seen after some more requests.
    for _ in 0..20 {
        clients.wait_for_responses(200)?;
        relations = observed::relations(&observed::flows(&agent, &[])?);
        if relations.len() >= 6 {
            break;
        }
    }
    let cells: Vec<_> = relations
        .iter()
        .map(|((from, to, port), count)| {
            let ends = format!("{from} → {to}");
            vec![ends, port.clone(), format!("{count} new connections")]
        })
        .collect();
    rows(&cells);
    Ok(agent)
}

/// The control: without enforcement the same attempts succeed.
pub(crate) fn baseline(paths: &[Path<'_>]) -> Result<()> {
    line("Nothing is fenced yet. An intruder and a compromised frontend try to get in:");
    let mut lines = Vec::new();
    for path in paths {
        let attempts = path.attempt(1)?;
        ensure!(
            attempts.succeeded == attempts.made,
            "before enforcement every attempt should succeed: {path:?}: {attempts:?}"
        );
        let mut cells = path.cells()?;
        cells.push("before: reached, IPv4 and IPv6".to_owned());
        lines.push(cells);
    }
    rows(&lines);
    Ok(())
}

pub(crate) fn would_deny(agent: &Agent, paths: &[Path<'_>], clients: &Clients) -> Result<()> {
    heading("Policies: policies/shop.toml is loaded; the shop still observes");
    agent.write_policies(POLICIES)?;
    let policies = POLICIES.matches("[[policy]]").count();
    observed::wait_for_policies(agent, "every policy to be in force", |list| {
        list.len() == policies
    })?;
    clients.wait_for_responses(100)?;
    line("The same attempts still succeed, but now the agent reports what it would deny:");
    let mut lines = Vec::new();
    for path in paths {
        let attempts = path.attempt(1)?;
        ensure!(
            attempts.succeeded == attempts.made,
            "observe mode must drop nothing: {path:?}: {attempts:?}"
        );
        let flow = observed::record(agent, path, "would-deny")?;
        let mut cells = path.cells()?;
        cells.push(format!("would deny: {}", flow.decider()));
        lines.push(cells);
    }
    rows(&lines);
    let denied = observed::flows(agent, &["--verdict", "would-deny"])?;
    let intruders = ["shop/frontend-2", "lab/intruder-1"];
    let legitimate = denied
        .iter()
        .filter(|flow| !intruders.contains(&flow.originator()));
    let legitimate = legitimate.count();
    line(&format!(
        "Legitimate flows that would be denied: {legitimate}"
    ));
    Ok(())
}
