//! The last acts: the shop enforces, and one permission is revoked.
//!
//! Invariants: clients are stopped before what they do becomes illegitimate, so that no request is
//! ever in doubt; every attempt under enforcement is counted; reasons are the agent's own.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, End, interrupt};
use serde_json::Value;

use crate::clients::Clients;
use crate::intrusion::Path;
use crate::live::Live;
use crate::observed;
use crate::print::{heading, rows, say};
use crate::shop::{POLICIES, Shop};
use crate::totals::Totals;

/// Attempts on each path over each family once the shop enforces.
const ROUNDS: usize = 5;

/// What allows payments in `policies/shop.toml`, and what it is replaced by.
const GRANT: &str =
    "[[policy.ingress]]\nfrom = [{ service-account = \"orders\" }]\nports = [\"http\"]\n";
const REVOKED: &str = "ingress = []\n";

pub(crate) fn enforce(agent: &Agent, clients: &Clients, payments: &Clients) -> Result<()> {
    heading("Enforce: `ringfence mode set shop enforce`, while requests run");
    let before = clients.totals().answered + payments.totals().answered;
    let output = agent.cli(&["mode", "set", "shop", "enforce"])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ringfence mode set: {message}");
    let (clients, payments) = (clients.go_on(1000)?, payments.go_on(200)?);
    let after = clients.answered + payments.answered - before;
    let failed = clients.failed + payments.failed;
    say(&format!(
        "{before} legitimate requests before the switch, {after} since, {failed} failed"
    ));
    Ok(())
}

pub(crate) fn intrude(
    agent: &Agent,
    paths: &[Path<'_>],
    compromised: &mut [Live],
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
    let (made, succeeded) = both_ways(compromised)?;
    totals.attempted(made, succeeded);
    let flow = observed::between(
        agent,
        "shop/frontend-2",
        "shop/orders-db-1",
        "tcp/5432",
        "denied",
    )?;
    let flow = flow.context("the agent reports no denial of the old connection")?;
    let number = reason(&mut reasons, flow.explain(agent)?);
    lines.push(vec![
        "shop/frontend-2 → shop/orders-db-1".to_owned(),
        "tcp/5432".to_owned(),
        format!("open since before: {}", outcome(made, succeeded)),
        format!("[{number}]"),
    ]);
    rows(&lines);
    say("Why, from the agent's flow records:");
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
    // From here on these requests are not legitimate: the clients end first.
    totals.count(&payments.stop()?);
    let (from, to) = (shop.member("orders-1")?, shop.member("payments-1")?);
    let mut open = Live::open(&from.workload, to)?;
    let (sent, arrived) = both_ways(&mut open)?;
    ensure!(
        sent == arrived,
        "{arrived} of {sent} messages before the change"
    );
    say(&format!(
        "{} open connections {} → {}: {arrived} messages of {sent} arrive, both ways.",
        open.len(),
        from.name(),
        to.name()
    ));
    let rule = POLICIES.matches(GRANT).count();
    ensure!(rule == 1, "shop.toml has {rule} such rules instead of one");
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
    let (sent, arrived) = both_ways(&mut open)?;
    say(&format!(
        "Then the next packet each way, on each: {arrived} of {sent} arrive."
    ));
    ensure!(arrived == 0, "a revoked connection still delivers");
    let (from, to) = (from.name(), to.name());
    let flow = observed::between(agent, &from, &to, "tcp/8080", "denied")?;
    let flow = flow.context("the agent reports no denial of the revoked connection")?;
    say(&format!("Why: {}", flow.explain(agent)?));
    let others = clients.go_on(500)?;
    say(&format!(
        "Everyone else goes on: {} requests, {} failed.",
        others.answered, others.failed
    ));
    Ok(())
}

/// One message each way on each connection, in either order: sent and arrived.
fn both_ways(open: &mut [Live]) -> Result<(usize, usize)> {
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
        format!("{succeeded} of {made} CAME THROUGH")
    }
}

/// The number of a reason in the list, which holds each once.
fn reason(reasons: &mut Vec<String>, reason: String) -> usize {
    if let Some(index) = reasons.iter().position(|known| *known == reason) {
        return index + 1;
    }
    reasons.push(reason);
    reasons.len()
}
