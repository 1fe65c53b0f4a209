//! Lints: what is valid in a policy but probably not meant, or not fit to be kept.
//!
//! Invariants: pure functions of one policy and the time; a finding says where, what and what to
//! do about it. A deny rule is never too wide, so width is asked of allow rules alone. Policies
//! are read elsewhere, and so are the parser's own warnings.

use std::sync::Arc;

use ringfence_common::mode::Direction;

use crate::model::{Peer, Peers, Policy, PolicyKind, Ports, Rule, RuleAction, WallTime, quote};

/// Something about a policy that its author should look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
    /// What kind of finding it is, stable.
    pub code: &'static str,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = crate::model::quote::sanitise(&self.file);
        let Self {
            line,
            code,
            message,
            remedy,
            ..
        } = self;
        write!(out, "{file}:{line}: {code}: {message} — {remedy}")
    }
}

/// Everything to be said about a policy as of a moment, in the order of its lines.
#[must_use]
pub fn lint(policy: &Policy, now: WallTime) -> Vec<Finding> {
    let mut findings = about(policy);
    for (direction, rules) in [
        (Direction::Ingress, &policy.ingress),
        (Direction::Egress, &policy.egress),
    ] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            let place = Place {
                policy,
                direction,
                index,
                rule,
            };
            findings.extend(expired(&place, now));
            if rule.action == RuleAction::Allow {
                findings.extend(every_port(&place));
                findings.extend(everyone(&place));
                findings.extend(every_address(&place));
            }
        }
    }
    findings.sort();
    findings
}

struct Place<'a> {
    policy: &'a Policy,
    direction: Direction,
    index: usize,
    rule: &'a Rule,
}

impl Place<'_> {
    fn finding(&self, code: &'static str, what: &str, remedy: &'static str) -> Finding {
        let (direction, index) = (self.direction.name(), self.index);
        Finding {
            file: self.policy.origin.file.clone(),
            line: self.rule.line,
            code,
            message: format!("{direction}[{index}] of {} {what}", self.policy.id()),
            remedy,
        }
    }
}

fn about(policy: &Policy) -> Vec<Finding> {
    let missing = |code, key: &str, remedy| Finding {
        file: policy.origin.file.clone(),
        line: policy.origin.line,
        code,
        message: format!("policy {} has no {key}", policy.id()),
        remedy,
    };
    let is_blank = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
    let mut findings = Vec::new();
    if is_blank(&policy.about.owner) {
        let remedy = match policy.kind {
            PolicyKind::Ringfence => "name the team that answers for it: owner = \"…\"",
            PolicyKind::NetworkPolicy | PolicyKind::ClusterNetworkPolicy => {
                "name the team that answers for it in the annotation ringfence.io/owner"
            }
        };
        findings.push(missing("missing-owner", "owner", remedy));
    }
    if is_blank(&policy.about.justification) {
        let remedy = match policy.kind {
            PolicyKind::Ringfence => "say why it exists: justification = \"…\"",
            PolicyKind::NetworkPolicy | PolicyKind::ClusterNetworkPolicy => {
                "say why it exists in the annotation ringfence.io/justification"
            }
        };
        findings.push(missing("missing-justification", "justification", remedy));
    }
    findings
}

fn expired(place: &Place<'_>, now: WallTime) -> Option<Finding> {
    let over = place.rule.window.expires.is_some_and(|end| end <= now);
    let remedy = "remove the rule, or move expires if it is still needed";
    over.then(|| place.finding("expired-rule", "has expired and matches nothing", remedy))
}

fn every_port(place: &Place<'_>) -> Option<Finding> {
    let remedy = "list what is needed: ports = [\"tcp/443\"]";
    (place.rule.ports == Ports::Any)
        .then(|| place.finding("no-ports", "allows every protocol and port", remedy))
}

fn everyone(place: &Place<'_>) -> Option<Finding> {
    let (key, remedy) = match place.direction {
        Direction::Ingress => ("from", "name who is meant: from = [{ pods = \"app=…\" }]"),
        Direction::Egress => ("to", "name who is meant: to = [{ pods = \"app=…\" }]"),
    };
    let what = format!("allows everyone, because it has no {key}");
    (place.rule.peers == Peers::Any).then(|| place.finding("any-peer", &what, remedy))
}

fn every_address(place: &Place<'_>) -> Option<Finding> {
    let Peers::Of(peers) = &place.rule.peers else {
        return None;
    };
    let wide = peers.iter().find_map(|peer| match peer {
        Peer::Cidr { net, .. } if net.prefix_len() == 0 => Some(net),
        Peer::Cidr { .. } | Peer::Workloads { .. } | Peer::Entity(_) => None,
    })?;
    let what = format!(
        "allows {}, which holds every workload and node too",
        quote(&wide.to_string())
    );
    let remedy = "use { entity = \"world\" } for what is outside, or a smaller range";
    Some(place.finding("any-address", &what, remedy))
}
