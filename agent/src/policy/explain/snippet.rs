//! TOML lines for a missing rule.
//!
//! Invariant: the rule matches the flow that it was written for. Names and labels are validated
//! values, so they need no escaping in strings.

use ringfence_common::mode::Direction;

use super::flow_side::{FlowSide, PartyKind};
use crate::model::workload::NAMESPACE_NAME_LABEL;
use crate::model::{Labels, RuleAction, Workload};

/// Label keys that identify a workload, best first.
const TELLING: [&str; 4] = ["app", "app.kubernetes.io/name", "k8s-app", "name"];

/// A rule for the flow: the lines of a `[[policy.ingress]]` or `[[policy.egress]]`.
pub(super) fn rule(
    flow_side: &FlowSide<'_>,
    action: RuleAction,
    own_namespace: bool,
) -> Vec<String> {
    let mut lines = vec![format!("[[policy.{}]]", flow_side.direction.name())];
    if action != RuleAction::Allow {
        lines.push(format!("action = \"{action}\""));
    }
    let key = peers_key(flow_side.direction);
    lines.push(format!("{key} = [{}]", peer(flow_side, own_namespace)));
    lines.push(format!("ports = [\"{}\"]", flow_side.port()));
    lines
}

/// `from` or `to`.
pub(super) const fn peers_key(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// The other side as a peer; without the namespace if it is the subject's.
pub(super) fn peer(flow_side: &FlowSide<'_>, own_namespace: bool) -> String {
    match flow_side.other {
        PartyKind::Workload(workload) => workload_peer(flow_side, workload, own_namespace),
        PartyKind::Host(_) => "{ entity = \"host\" }".to_owned(),
        PartyKind::RemoteNode(_) => "{ entity = \"remote-node\" }".to_owned(),
        PartyKind::World
        | PartyKind::Special(_)
        | PartyKind::Cluster
        | PartyKind::Service(_)
        | PartyKind::Unknown => {
            let length = if flow_side.address.is_ipv6() { 128 } else { 32 };
            format!("{{ cidr = \"{}/{length}\" }}", flow_side.address)
        }
    }
}

fn workload_peer(flow_side: &FlowSide<'_>, workload: &Workload, own_namespace: bool) -> String {
    let mut parts = Vec::new();
    if !own_namespace || workload.id.namespace != flow_side.subject.id.namespace {
        let namespace = &workload.id.namespace;
        parts.push(format!(
            "namespaces = \"{NAMESPACE_NAME_LABEL}={namespace}\""
        ));
    }
    match identifying_label(&workload.labels) {
        Some(label) => parts.push(format!("pods = \"{label}\"")),
        None => parts.push(format!(
            "service-account = \"{}\"",
            workload.service_account
        )),
    }
    format!("{{ {} }}", parts.join(", "))
}

/// The identifying label of a workload, or its first one.
fn identifying_label(labels: &Labels) -> Option<String> {
    let known = TELLING
        .iter()
        .find_map(|key| Some((*key, labels.get(key)?)));
    let (key, value) = known.or_else(|| labels.iter().next())?;
    Some(format!("{key}={value}"))
}
