//! Kubernetes policies: the value that each form is converted to, and each error with its place.

mod cluster;
mod files;
mod namespaced;
mod refused_subjects;
mod selectors;

use super::*;
use crate::model::{LabelSelector, NamespaceMatch, Peer, Peers, Rule};

fn refusals(text: &str) -> Vec<String> {
    let errors = parse("k.yaml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refusal(text: &str) -> String {
    let refusals = refusals(text);
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
    refusals[0].clone()
}

#[track_caller]
fn parsed(text: &str) -> PolicyFragment {
    parse("k.yaml", text).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[track_caller]
fn one(text: &str) -> Policy {
    let fragment = parsed(text);
    assert_eq!(fragment.warnings, []);
    assert_eq!(fragment.policies.len(), 1);
    (*fragment.policies[0]).clone()
}

/// The policy, and the only warning about it.
#[track_caller]
fn with_warning(text: &str) -> (Policy, String) {
    let fragment = parsed(text);
    assert_eq!(fragment.warnings.len(), 1, "{:?}", fragment.warnings);
    let warning = fragment.warnings[0].to_string();
    ((*fragment.policies[0]).clone(), warning)
}

fn labels(text: &str) -> LabelSelector {
    text.parse().unwrap()
}

fn workloads(namespaces: &str, pods: &str) -> Peer {
    Peer::Workloads {
        namespaces: NamespaceMatch::Selector(labels(namespaces)),
        pods: Some(labels(pods)).filter(|pods| !pods.is_everything()),
        service_account: None,
    }
}

/// A NetworkPolicy `shop/p` with these lines as its spec, which begins in line 7.
fn network_policy(spec: &str) -> String {
    let mut text =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  \
                    namespace: shop\nspec:\n"
            .to_owned();
    for line in spec.lines() {
        text += &format!("  {line}\n");
    }
    text
}

/// A ClusterNetworkPolicy `p` with these lines as its spec, which begins in line 5.
fn cluster_policy(spec: &str) -> String {
    let mut text = format!(
        "apiVersion: {CLUSTER_API}\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\nspec:\n"
    );
    for line in spec.lines() {
        text += &format!("  {line}\n");
    }
    text
}
