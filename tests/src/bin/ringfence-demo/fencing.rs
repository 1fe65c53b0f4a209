//! The second part: the shop enforces, and one permission is revoked.
//!
//! Invariants: clients are stopped before their requests become illegitimate, so that every request
//! has one expected result; every attempt under enforcement is counted; reasons are the agent's.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, End, interrupt};
use serde_json::Value;

use crate::clients::Clients;
use crate::connection::Connection;
use crate::intrusion::Path;
use crate::observed;
use crate::print::{heading, line, rows};
use crate::shop::{POLICIES, Shop};
use crate::totals::Totals;

/// Attempts on each path over each family under enforcement.
const ROUNDS: usize = 5;

/// The rule in `policies/shop.toml` that allows payments, and its replacement.
const GRANT: &str =
    "[[policy.ingress]]\nfrom = [{ service-account = \"orders\" }]\nports = [\"http\"]\n";
const REVOKED: &str = "ingress = []\n";

pub(crate) fn enforce(agent: &Agent, clients: &Clients, payments: &Clients) -> Result<()> {
    heading("Enforce: `ringfence mode set shop enforce`, while requests run");
    let before = clients.totals().answered + payments.totals().answered;
    let output = agent.cli(&["mode", "set", "shop", "enforce"])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ringfence mode set: {message}");
    let (clients, payments) = (
        clients.wait_for_responses(1000)?,
        payments.wait_for_responses(200)?,
    );
    let after = clients.answered + payments.answered - before;
    let failed = clients.failed + payments.failed;
    line(&format!(
        "{before} legitimate requests before the switch, {after} since, {failed} failed"
    ));
    Ok(())
}

pub(crate) fn intrude(
    agent: &Agent,
    paths: &[Path<'_>],
    compromised: &mut [Connection],
    totals: &mut Totals,
) -> Result<()> {
    let mut lines = Vec::new();
    let mut reasons = Vec::new();
    for path in paths {
        let attempts = path.attempt(ROUNDS)?;
        totals.attempted(attempts.made, attempts.succeeded);
        let flow = observed::record(agent, path, "denied")?;
        let mut cells = path.cells()?;
        let number = reason(&mut reasons, flow.explain(agent)?);
        cells.push(format!(
            "after: {}",
            outcome(attempts.made, attempts.succeeded)
        ));
        cells.push(format!("[{number}]"));
        lines.push(cells);
    }
    let (made, succeeded) = exchange(compromised)?;
    totals.attempted(made, succeeded);
    let flow = observed::latest(
        agent,
        "shop/frontend-2",
        "shop/orders-db-1",
        "tcp/5432",
        "denied",
    )?;
    let flow = flow.context("the agent reports no denied packet of the old connection")?;
    let number = reason(&mut reasons, flow.explain(agent)?);
    lines.push(vec![
        "shop/frontend-2 → shop/orders-db-1".to_owned(),
        "tcp/5432".to_owned(),
        format!("opened before: {}", outcome(made, succeeded)),
        format!("[{number}]"),
    ]);
    rows(&lines);
    line("Why, from the agent's flow records:");
    let numbered = reasons.iter().zip(1..);
    let numbered = numbered.map(|(reason, number)| vec![format!("[{number}] {reason}")]);
    rows(&numbered.collect::<Vec<_>>());
    Ok(())
}

pub(crate) fn revoke(
    agent: &Agent,
    shop: &Shop,
    clients: &Clients,
    payments: Clients,
    totals: &mut Totals,
) -> Result<()> {
    heading("Revoke: payments no longer accepts orders; the file is replaced in one step");
    // From here on these requests are not legitimate, so the clients are stopped first.
    totals.count(&payments.stop()?);
    let (from, to) = (shop.member("orders-1")?, shop.member("payments-1")?);
    let mut open = Connection::open(&from.workload, to)?;
    let (sent, arrived) = exchange(&mut open)?;
    ensure!(
        sent == arrived,
        "only {arrived} of {sent} messages arrived before the change"
    );
    line(&format!(
        "{} open connections {} → {}: {arrived} of {sent} messages arrive, in both directions.",
        open.len(),
        from.name(),
        to.name()
    ));
    let rule = POLICIES.matches(GRANT).count();
    ensure!(
        rule == 1,
        "shop.toml has this rule {rule} times instead of once"
    );
    agent.write_policies(&POLICIES.replace(GRANT, REVOKED))?;
    observed::wait_for_policies(agent, "the changed policy", |list| {
        let payments =
            |view: &&Value| view.get("policy").and_then(Value::as_str) == Some("shop/payments");
        let rules = list
            .iter()
            .find(payments)
            .and_then(|p| p.get("ingress_rules"));
        rules.and_then(Value::as_u64) == Some(0)
    })?;
    let (sent, arrived) = exchange(&mut open)?;
    line(&format!(
        "After the change, the next message in each direction: {arrived} of {sent} arrive."
    ));
    ensure!(arrived == 0, "a revoked connection still delivers");
    let (from, to) = (from.name(), to.name());
    let flow = observed::latest(agent, &from, &to, "tcp/8080", "denied")?;
    let flow = flow.context("the agent reports no denied packet of the revoked connection")?;
    line(&format!("Why: {}", flow.explain(agent)?));
    let others = clients.wait_for_responses(500)?;
    line(&format!(
        "All other clients continue: {} requests, {} failed.",
        others.answered, others.failed
    ));
    Ok(())
}

/// Sends one message in each direction on each connection, in alternating order; returns how many
/// were sent and how many arrived.
fn exchange(open: &mut [Connection]) -> Result<(usize, usize)> {
    let orders = [[End::Client, End::Server], [End::Server, End::Client]];
    let (mut sent, mut arrived) = (0, 0);
    for (live, order) in open.iter_mut().zip(orders.iter().cycle()) {
        for end in order {
            interrupt::check()?;
            sent += 1;
            arrived += usize::from(live.delivers(*end)?);
        }
    }
    Ok((sent, arrived))
}

fn outcome(made: usize, succeeded: usize) -> String {
    if succeeded == 0 {
        format!("0 of {made}, nothing arrived")
    } else {
        format!("{succeeded} of {made} SUCCEEDED")
    }
}

/// The number of a reason in the list; adds it if it is new.
fn reason(reasons: &mut Vec<String>, reason: String) -> usize {
    if let Some(index) = reasons.iter().position(|known| *known == reason) {
        return index + 1;
    }
    reasons.push(reason);
    reasons.len()
}
