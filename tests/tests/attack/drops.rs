//! The drops that an agent reports, by reason: in counters and in flow records.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::Agent;

/// Packets by reason.
pub(crate) type Drops = BTreeMap<String, u64>;

/// The counter of packets that an agent dropped (`dropped`) or would have dropped (`observed`).
pub(crate) fn drop_counters(agent: &Agent, action: &str) -> Result<Drops> {
    let page = agent.metrics()?;
    let label = format!("action=\"{action}\"");
    let lines = page
        .lines()
        .filter(|line| line.starts_with("ringfence_drops_total{") && line.contains(&label));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once(' ').context("a sample without value")?;
            let reason = labels
                .split("reason=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            Ok((reason.context("no reason")?.to_owned(), value.parse()?))
        })
        .collect()
}

/// The increase between two readings, without reasons that did not increase.
pub(crate) fn difference(before: &Drops, after: &Drops) -> Drops {
    let more = after.iter().filter_map(|(reason, count)| {
        let more = count - before.get(reason).unwrap_or(&0);
        (more > 0).then(|| (reason.clone(), more))
    });
    more.collect()
}

/// The reasons in an agent's flow records.
pub(crate) fn recorded_reasons(agent: &Agent, verdict: &str) -> Result<BTreeSet<String>> {
    let output = agent.cli(&["flows", "--verdict", verdict, "-o", "json"])?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let mut reasons = BTreeSet::new();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let ours = &record["flow"]["extensions"]["value"];
        if let Some(reason) = ours["reason"].as_str() {
            reasons.insert(reason.to_owned());
        }
    }
    Ok(reasons)
}
