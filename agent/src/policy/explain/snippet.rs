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
pub(super) fn rule(scene: &FlowSide<'_>, action: RuleAction, own_namespace: bool) -> Vec<String> {
    let mut lines = vec![format!("[[policy.{}]]", scene.direction.name())];
    if action != RuleAction::Allow {
        lines.push(format!("action = \"{action}\""));
    }
    let key = peers_key(scene.direction);
    lines.push(format!("{key} = [{}]", peer(scene, own_namespace)));
    lines.push(format!("ports = [\"{}\"]", scene.port()));
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
pub(super) fn peer(scene: &FlowSide<'_>, own_namespace: bool) -> String {
    match scene.other {
        PartyKind::Workload(workload) => workload_peer(scene, workload, own_namespace),
        PartyKind::Host(_) => "{ entity = \"host\" }".to_owned(),
        PartyKind::RemoteNode(_) => "{ entity = \"remote-node\" }".to_owned(),
        PartyKind::World => {
            let length = if scene.address.is_ipv6() { 128 } else { 32 };
            format!("{{ cidr = \"{}/{length}\" }}", scene.address)
        }
    }
}

fn workload_peer(scene: &FlowSide<'_>, workload: &Workload, own_namespace: bool) -> String {
    let mut parts = Vec::new();
    if !own_namespace || workload.id.namespace != scene.subject.id.namespace {
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
