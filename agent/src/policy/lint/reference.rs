//! References to workloads and named ports that are not in the inventory.

use ringfence_common::mode::Direction;

use super::code::LintCode;
use super::finding::{DIRECTIONS, Finding, Place, places_in};
use super::population::Population;
use crate::model::{Peer, Peers, Policy, PortMatch, PortName, Ports, Protocol, Scope, quote};

pub(super) fn lint(policy: &Policy, population: &Population<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has_subjects = population.subjects(policy).next().is_some();
    if !has_subjects {
        let subject = policy.subject.to_string();
        let which = match &policy.scope {
            Scope::Namespace(namespace) => format!("no workload of namespace {namespace}"),
            Scope::Cluster { .. } => "no workload of its namespaces".to_owned(),
        };
        let what = format!("matches {which}: subject = {}", quote(&subject));
        let found = Finding::about(policy, LintCode::UnmatchedSelector, &what);
        findings.push(found);
    }
    for direction in DIRECTIONS {
        for place in places_in(policy, direction) {
            let unmatched = unmatched_peers(&place, population);
            let is_known = match direction {
                Direction::Ingress => has_subjects,
                Direction::Egress => unmatched.is_empty(),
            };
            if is_known {
                findings.extend(unresolved_ports(&place, population));
            }
            findings.extend(unmatched);
        }
    }
    findings
}

fn unmatched_peers(place: &Place<'_>, population: &Population<'_>) -> Vec<Finding> {
    let Peers::Of(peers) = &place.rule.peers else {
        return Vec::new();
    };
    let unmatched = |peer: &&Peer| {
        let groups = population.peers(peer);
        groups.is_some_and(|mut groups| groups.next().is_none())
    };
    let found = peers.iter().filter(unmatched).map(|peer| {
        let what = format!("has a peer that matches no workload: {}", described(peer));
        place.finding(LintCode::UnmatchedSelector, &what)
    });
    found.collect()
}

fn described(peer: &Peer) -> String {
    let Peer::Workloads {
        namespaces,
        pods,
        service_account,
    } = peer
    else {
        return String::new();
    };
    let mut parts = vec![match namespaces {
        crate::model::NamespaceMatch::Own(namespace) => format!("namespace {namespace}"),
        crate::model::NamespaceMatch::Selector(selector) => {
            format!("namespaces {}", quote(&selector.to_string()))
        }
    }];
    if let Some(pods) = pods {
        parts.push(format!("pods {}", quote(&pods.to_string())));
    }
    if let Some(account) = service_account {
        parts.push(format!("service account {account}"));
    }
    parts.join(", ")
}

fn unresolved_ports(place: &Place<'_>, population: &Population<'_>) -> Vec<Finding> {
    let Ports::Of(ports) = &place.rule.ports else {
        return Vec::new();
    };
    let found = ports.iter().filter_map(|port| {
        let PortMatch::Named { protocol, name } = port else {
            return None;
        };
        if is_declared(place, population, *protocol, name) {
            return None;
        }
        let what = format!("names port {port}, which no destination declares");
        Some(place.finding(LintCode::UnresolvedPort, &what))
    });
    found.collect()
}

/// The destinations of ingress are the subjects, those of egress are the peers.
fn is_declared(
    place: &Place<'_>,
    population: &Population<'_>,
    protocol: Option<Protocol>,
    name: &PortName,
) -> bool {
    if !population.declares(protocol, name) {
        return place.rule.peers == Peers::NoPeer;
    }
    if place.direction == Direction::Ingress {
        let mut subjects = population.subjects(place.policy);
        return subjects.any(|group| group.declares(protocol, name));
    }
    match &place.rule.peers {
        // Unknown peers are not reported.
        Peers::Any | Peers::NoPeer => true,
        Peers::Of(peers) => peers.iter().any(|peer| match peer {
            Peer::Cidr { net, except } => population
                .groups_in(net, except)
                .any(|group| group.declares(protocol, name)),
            Peer::Entity(_) => false,
            Peer::Workloads { .. } => population
                .peers(peer)
                .is_some_and(|mut groups| groups.any(|group| group.declares(protocol, name))),
        }),
    }
}
