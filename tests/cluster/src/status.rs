//! Whether a cluster runs: its components by the ledger, its nodes by the API server.

use std::fmt;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::Cluster;
use crate::component::tail;
use crate::ledger::{Entry, Ledger};
use crate::spec::node_name;

/// State of one cluster.
#[derive(Debug)]
pub struct Status {
    name: String,
    /// Whether `up` was finished.
    complete: bool,
    /// With the end of the log of those that have ended.
    components: Vec<(Entry, Option<String>)>,
    /// Name of each expected node, and whether it is Ready; or why that is unknown.
    nodes: Result<Vec<(String, bool)>>,
}

impl Status {
    /// Asks.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let folder = cluster.folder();
        let entries = Ledger::at(folder.ledger()).latest()?;
        let with_end = |entry: Entry| {
            let log = folder.log(&entry.component, &entry.place);
            let end = (!entry.process.lives()).then(|| tail(&log, 3));
            (entry, end)
        };
        Ok(Self {
            name: folder.name().to_owned(),
            complete: folder.path().join("ready").exists(),
            components: entries.into_iter().map(with_end).collect(),
            nodes: nodes(cluster),
        })
    }

    /// The components that have ended, as component and place.
    #[must_use]
    pub fn ended(&self) -> Vec<(&str, &str)> {
        let ended = self.components.iter().filter(|(_, end)| end.is_some());
        ended
            .map(|(entry, _)| (entry.component.as_str(), entry.place.as_str()))
            .collect()
    }

    /// Whether everything runs and every node is Ready.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.complete
            && self.components.iter().all(|(_, end)| end.is_none())
            && matches!(&self.nodes, Ok(nodes) if nodes.iter().all(|(_, ready)| *ready))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_healthy() {
            "healthy"
        } else if self.complete {
            "not healthy"
        } else {
            "incomplete: its `up` was not finished"
        };
        writeln!(f, "cluster {}: {state}", self.name)?;
        for (entry, end) in &self.components {
            let (component, place) = (&entry.component, &entry.place);
            let state = if end.is_none() { "running" } else { "ENDED" };
            writeln!(
                f,
                "  {component:<24} {place:<4} {state}  pid {}",
                entry.process.pid
            )?;
            if let Some(end) = end {
                end.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
            }
        }
        match &self.nodes {
            Ok(nodes) => nodes.iter().try_for_each(|(name, ready)| {
                let state = if *ready { "Ready" } else { "NOT READY" };
                writeln!(f, "  node {name:<19} {state}")
            }),
            Err(error) => writeln!(f, "  nodes: unknown: {error:#}"),
        }
    }
}

fn nodes(cluster: &Cluster) -> Result<Vec<(String, bool)>> {
    let list = cluster.kubectl(&["get", "nodes", "--output=json", "--request-timeout=5s"])?;
    let list: Value = serde_json::from_str(&list)?;
    let ready = ready_nodes(&list);
    ensure!(!ready.is_empty(), "no node is Ready");
    let expected = cluster.description().spec.node_numbers().map(node_name);
    let state = |name: String| {
        let is_ready = ready.contains(&name.as_str());
        (name, is_ready)
    };
    Ok(expected.map(state).collect())
}

/// Names of the nodes in a list whose condition `Ready` is true.
fn ready_nodes(list: &Value) -> Vec<&str> {
    let items = list.get("items").and_then(Value::as_array);
    let is_ready = |node: &&Value| {
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|condition| {
            let text = |key: &str| condition.get(key).and_then(Value::as_str);
            text("type") == Some("Ready") && text("status") == Some("True")
        })
    };
    let names = items.into_iter().flatten().filter(is_ready);
    names
        .filter_map(|node| node.pointer("/metadata/name")?.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_condition_that_is_true_makes_a_node_ready() {
        let node = |name: &str, status: &str| {
            json!({"metadata": {"name": name}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "True"},
                {"type": "Ready", "status": status},
            ]}})
        };
        let new = json!({"metadata": {"name": "n4"}});
        let items = [
            node("n1", "True"),
            node("n2", "False"),
            node("n3", "Unknown"),
            new,
        ];
        assert_eq!(ready_nodes(&json!({"items": items})), ["n1"]);
    }
}
