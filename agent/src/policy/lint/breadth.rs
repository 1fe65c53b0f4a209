//! Allow rules that are wider than any workload needs: every port, every peer.
//!
//! A deny rule is never too wide, so only allow rules are checked.

use super::code::LintCode;
use super::finding::{Finding, Place};
use crate::model::{LabelSelector, NamespaceMatch, Peer, Peers, Ports, RuleAction};

pub(super) fn lint(place: &Place<'_>) -> Vec<Finding> {
    if place.rule.action != RuleAction::Allow || place.rule.peers == Peers::NoPeer {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if place.rule.ports == Ports::Any {
        let what = "allows every protocol and port";
        findings.push(place.finding(LintCode::NoPorts, what));
    }
    match &place.rule.peers {
        Peers::Any => {
            let what = "allows every peer, because it names none";
            findings.push(place.finding(LintCode::AnyPeer, what));
        }
        Peers::Of(peers) => findings.extend(everyone(place, peers)),
        Peers::NoPeer => {}
    }
    findings
}

fn everyone(place: &Place<'_>, peers: &[Peer]) -> Option<Finding> {
    let which = peers.iter().find_map(|peer| match peer {
        Peer::Workloads {
            namespaces,
            pods,
            service_account: None,
        } if pods.as_ref().is_none_or(LabelSelector::is_everything) => match namespaces {
            NamespaceMatch::Own(namespace) => Some(format!("of its namespace {namespace}")),
            NamespaceMatch::Selector(selector) if selector.is_everything() => {
                Some("of every namespace".to_owned())
            }
            NamespaceMatch::Selector(_) => None,
        },
        Peer::Workloads { .. } | Peer::Cidr { .. } | Peer::Entity(_) => None,
    })?;
    let what = format!("allows every workload {which}");
    Some(place.finding(LintCode::EmptySelector, &what))
}
