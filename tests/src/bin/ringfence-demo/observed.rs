//! What the agent observed: flow records, and the policies behind a verdict.
//!
//! Everything comes from the agent's command line with `-o json`; nothing is inferred here. A
//! default deny is explained by the policies that isolate the workload and have no rule for the
//! flow.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, interrupt};
use serde_json::Value;

use crate::intrusion::Path;

const SOON: Duration = Duration::from_secs(10);

/// One flow record.
#[derive(Debug)]
pub(crate) struct Flow {
    source: String,
    destination: String,
    port: String,
    ingress: bool,
    reply: bool,
    new: bool,
    /// Whether the source is a workload, which reports the flow too.
    source_is_workload: bool,
    rule: String,
    policy: Option<String>,
    owner: Option<String>,
    justification: Option<String>,
}

/// Flow records, oldest first.
pub(crate) fn flows(agent: &Agent, filter: &[&str]) -> Result<Vec<Flow>> {
    let arguments = [&["flows", "-o", "json"], filter].concat();
    let output = agent.cli(&arguments)?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ringfence flows: {message}");
    let text = String::from_utf8(output.stdout)?;
    let records = text.lines().map(serde_json::from_str::<Value>);
    let mut flows = Vec::new();
    for record in records {
        let record = record.context("a flow record that is not JSON")?;
        flows.extend(record.get("flow").and_then(Flow::parse));
    }
    Ok(flows)
}

impl Flow {
    fn parse(flow: &Value) -> Option<Self> {
        let text = |pointer: &str| Some(flow.pointer(pointer)?.as_str()?.to_owned());
        let extension = |key: &str| text(&format!("/extensions/value/{key}"));
        let (proto, layer4) = flow.get("l4")?.as_object()?.iter().next()?;
        let port = layer4.get("destination_port").and_then(Value::as_u64);
        let source = flow.get("source")?;
        Some(Self {
            source: end(source)?,
            destination: end(flow.get("destination")?)?,
            port: match port {
                Some(port) => format!("{}/{port}", proto.to_lowercase()),
                None => proto.to_lowercase(),
            },
            ingress: text("/traffic_direction")? == "INGRESS",
            reply: flow.get("is_reply").and_then(Value::as_bool) == Some(true),
            new: extension("event")? == "new",
            source_is_workload: source.get("pod_name").is_some(),
            rule: extension("rule")?,
            policy: extension("policy"),
            owner: extension("owner"),
            justification: extension("justification"),
        })
    }

    /// The originator of the connection.
    pub(crate) fn originator(&self) -> &str {
        if self.reply {
            &self.destination
        } else {
            &self.source
        }
    }

    fn matches(&self, from: &str, to: &str, port: &str) -> bool {
        !self.reply && self.source == from && self.destination == to && self.port == port
    }

    /// The deciding rule, in short.
    pub(crate) fn decider(&self) -> String {
        let side = if self.ingress { "ingress" } else { "egress" };
        match &self.policy {
            Some(policy) => format!("{policy} {}", self.rule),
            None => format!("{} ({side} of {})", self.rule, self.deciding_workload()),
        }
    }

    /// The reason as text: the rule with its owner's justification, or the isolating policies.
    pub(crate) fn explain(&self, agent: &Agent) -> Result<String> {
        if let Some(policy) = &self.policy {
            let owner = self.owner.as_deref().unwrap_or("no owner");
            let reason = self.justification.as_deref().unwrap_or("no reason given");
            return Ok(format!("{policy} {} ({owner}): {reason}", self.rule));
        }
        let (side, key) = if self.ingress {
            ("ingress", "ingress_rules")
        } else {
            ("egress", "egress_rules")
        };
        let endpoints = agent.cli_json(&["endpoints"])?;
        let endpoint = endpoint(&endpoints, self.deciding_workload());
        let selecting = endpoint.and_then(|e| e.get("policies")?.as_array());
        let policies = agent.cli_json(&["policies"])?;
        let mut isolating = Vec::new();
        for policy in selecting.into_iter().flatten().filter_map(Value::as_str) {
            let view = find(&policies, "policy", policy).context("an unknown policy")?;
            if view.get(key).is_some_and(|rules| !rules.is_null()) {
                let owner = view.get("owner").and_then(Value::as_str);
                isolating.push(format!("{policy} ({})", owner.unwrap_or("no owner")));
            }
        }
        ensure!(
            !isolating.is_empty(),
            "no policy isolates {}",
            self.deciding_workload()
        );
        let rule = &self.rule;
        Ok(format!(
            "{rule}: no {side} rule of {} allows it",
            isolating.join(" or ")
        ))
    }

    /// The workload with the fence that decided.
    fn deciding_workload(&self) -> &str {
        if self.ingress {
            &self.destination
        } else {
            &self.source
        }
    }
}

/// The newest record of a path with this verdict, from the fence that decided first.
fn verdict_on(agent: &Agent, path: &Path<'_>, verdict: &str) -> Result<Option<Flow>> {
    let (from, to, port) = (path.from.name(), path.to.name(), path.port()?);
    latest(agent, &from, &to, &port, verdict)
}

/// The newest record between two ends with this verdict, from the fence that decided first.
pub(crate) fn latest(
    agent: &Agent,
    from: &str,
    to: &str,
    port: &str,
    verdict: &str,
) -> Result<Option<Flow>> {
    let flows = flows(agent, &["--workload", from, "--verdict", verdict])?;
    let matching = flows
        .into_iter()
        .filter(|flow| flow.matches(from, to, port));
    // The sender's fence sees a packet first; `max_by_key` returns the last, hence newest, maximum.
    Ok(matching.max_by_key(|flow| !flow.ingress))
}

/// The agent's record of a path; waits until the agent has read it from the kernel.
pub(crate) fn record(agent: &Agent, path: &Path<'_>, verdict: &str) -> Result<Flow> {
    let mut found = None;
    let condition = || {
        interrupt::check()?;
        found = verdict_on(agent, path, verdict)?;
        Ok(found.is_some())
    };
    agent.wait_until(condition, SOON, &format!("a {verdict} record of {path:?}"))?;
    found.context("no record")
}

/// Waits until the agent's list of policies meets a condition.
pub(crate) fn wait_for_policies(
    agent: &Agent,
    what: &str,
    condition: impl Fn(&[Value]) -> bool,
) -> Result<()> {
    let condition = || {
        interrupt::check()?;
        let policies = agent.cli_json(&["policies"])?;
        Ok(policies.as_array().is_some_and(|list| condition(list)))
    };
    agent.wait_until(condition, SOON, what)
}

/// Number of new connections by source, destination and port.
pub(crate) fn relations(flows: &[Flow]) -> BTreeMap<(String, String, String), usize> {
    let mut relations = BTreeMap::new();
    // A connection between two workloads of this node is reported by both fences; one counts.
    let once = |flow: &&Flow| flow.new && !flow.reply && flow.ingress != flow.source_is_workload;
    for flow in flows.iter().filter(once) {
        let key = (
            flow.source.clone(),
            flow.destination.clone(),
            flow.port.clone(),
        );
        *relations.entry(key).or_default() += 1;
    }
    relations
}

fn end(end: &Value) -> Option<String> {
    let text = |key: &str| end.get(key).and_then(Value::as_str);
    if let Some((namespace, name)) = text("namespace").zip(text("pod_name")) {
        return Some(format!("{namespace}/{name}"));
    }
    let labels = end.get("labels")?.as_array()?;
    let mut labels = labels.iter().filter_map(Value::as_str);
    labels.find_map(|label| Some(label.strip_prefix("reserved:")?.to_owned()))
}

fn endpoint<'a>(list: &'a Value, workload: &str) -> Option<&'a Value> {
    let mut endpoints = list.as_array()?.iter();
    endpoints.find(|endpoint| {
        let text = |key: &str| {
            endpoint
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (namespace, name) = (text("namespace"), text("workload"));
        name == workload || workload.strip_prefix(namespace) == Some(&format!("/{name}"))
    })
}

fn find<'a>(list: &'a Value, key: &str, name: &str) -> Option<&'a Value> {
    let mut items = list.as_array()?.iter();
    items.find(|item| item.get(key).and_then(Value::as_str) == Some(name))
}
