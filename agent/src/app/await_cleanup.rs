//! Waits until the fences of every node of a cluster are removed, after the agents were deleted.
//!
//! On each node a pod runs `ringfence cleanup`, and is ready when that has succeeded. Invariants: a node of which this
//! cannot be said is named; a pod that is being deleted says nothing; it changes nothing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use hyper::Request;
use kube::{Client, Config};
use serde_json::Value;

use super::AppError;
use crate::source::kubernetes_api::watch::query_part;

/// The labels of pods by what they do, as in the chart.
const PODS: &str = "app.kubernetes.io/name=ringfence,app.kubernetes.io/component";
/// How often it asks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Whose cleanup to wait for, and for how long.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// The namespace of the pods.
    pub namespace: String,
    /// Only nodes with all of these labels, as `key=value`.
    pub node_labels: Vec<String>,
    /// How long.
    pub timeout: Duration,
}

/// Waits, by the service account of this process's pod. Returns the number of nodes.
///
/// # Errors
/// After the time, what has not been cleaned up, or why the API server cannot be asked.
pub async fn await_cleanup(awaited: &Awaited) -> Result<usize, AppError> {
    let end = Instant::now() + awaited.timeout;
    loop {
        let reason = match state(awaited).await {
            Ok(state) if state.is_done() => return Ok(state.nodes),
            Ok(state) => state.reason(),
            Err(error) => format!("the API server cannot be asked: {error}"),
        };
        if Instant::now() >= end {
            return Err(AppError::NotCleanedUp(reason));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn state(awaited: &Awaited) -> Result<State, kube::Error> {
    let config = Config::incluster().map_err(|error| kube::Error::Service(error.into()))?;
    let client = Client::try_from(config)?;
    let (pods, namespace) = (query_part(PODS), &awaited.namespace);
    let of = |component: &str| {
        format!("/api/v1/namespaces/{namespace}/pods?labelSelector={pods}%3D{component}")
    };
    let nodes = query_part(&awaited.node_labels.join(","));
    let nodes = list(&client, format!("/api/v1/nodes?labelSelector={nodes}")).await?;
    let agents = list(&client, of("agent")).await?;
    let cleaned = list(&client, of("cleanup")).await?;
    Ok(State::of(&nodes, &agents, &cleaned))
}

async fn list(client: &Client, path: String) -> Result<Vec<Value>, kube::Error> {
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    let mut list: Value = client.request(request).await?;
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// What is left to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    nodes: usize,
    /// Nodes on which an agent is left.
    with_agent: BTreeSet<String>,
    /// Other nodes that are not known to be clean.
    missing: BTreeSet<String>,
}

impl State {
    fn of(nodes: &[Value], agents: &[Value], cleaned: &[Value]) -> Self {
        let text = |object: &Value, path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let node_of = |pod: &Value| text(pod, "/spec/nodeName");
        let with_agent: BTreeSet<String> = agents.iter().filter_map(node_of).collect();
        let clean: BTreeSet<String> = cleaned
            .iter()
            .filter(|pod| is_ready(pod))
            .filter_map(node_of)
            .collect();
        let names: BTreeSet<String> = nodes
            .iter()
            .filter_map(|node| text(node, "/metadata/name"))
            .collect();
        let missing = names
            .iter()
            .filter(|node| !clean.contains(*node) && !with_agent.contains(*node));
        Self {
            nodes: names.len(),
            missing: missing.cloned().collect(),
            with_agent,
        }
    }

    fn is_done(&self) -> bool {
        // A cluster without nodes runs no such process: then the answer is not the whole truth.
        self.nodes > 0 && self.with_agent.is_empty() && self.missing.is_empty()
    }

    fn reason(&self) -> String {
        let names = |of: &BTreeSet<String>| of.iter().cloned().collect::<Vec<_>>().join(", ");
        let mut reasons = Vec::new();
        if !self.with_agent.is_empty() {
            reasons.push(format!("an agent is left on {}", names(&self.with_agent)));
        }
        if !self.missing.is_empty() {
            reasons.push(format!(
                "not known to be without fences: {}",
                names(&self.missing)
            ));
        }
        if reasons.is_empty() {
            reasons.push("the API server lists no nodes".to_owned());
        }
        reasons.join("; ")
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is_deleted = pod.pointer("/metadata/deletionTimestamp").is_some();
    let is = |condition: &Value, key: &str, value: &str| {
        condition.get(key).and_then(Value::as_str) == Some(value)
    };
    let is_ready = |it: &Value| is(it, "type", "Ready") && is(it, "status", "True");
    !is_deleted && conditions.is_some_and(|all| all.iter().any(is_ready))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    fn pod(node: &str, ready: &str) -> Value {
        json!({
            "metadata": {},
            "spec": {"nodeName": node},
            "status": {"conditions": [
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": ready},
            ]},
        })
    }

    #[test]
    fn every_node_must_be_clean_and_without_an_agent() {
        let nodes = [node("a"), node("b")];
        let both = [pod("a", "True"), pod("b", "True")];
        assert!(State::of(&nodes, &[], &both).is_done());
        let left = State::of(&nodes, &[pod("a", "False")], &both);
        assert_eq!(left.reason(), "an agent is left on a");
        let failed = State::of(&nodes, &[], &[pod("a", "True"), pod("b", "False")]);
        assert_eq!(failed.reason(), "not known to be without fences: b");
        let missing = State::of(&nodes, &[], &[]);
        assert_eq!(missing.reason(), "not known to be without fences: a, b");
        for state in [left, failed, missing, State::default()] {
            assert!(!state.is_done(), "{state:?}");
        }
    }

    #[test]
    fn a_pod_that_is_being_deleted_says_nothing() {
        let mut deleted = pod("a", "True");
        assert!(is_ready(&deleted));
        if let Some(metadata) = deleted.get_mut("metadata") {
            *metadata = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        }
        assert!(!State::of(&[node("a")], &[], &[deleted]).is_done());
    }

    #[test]
    fn selectors_are_escaped() {
        assert_eq!(query_part("a/b=c,d=e"), "a%2Fb%3Dc%2Cd%3De");
    }
}
