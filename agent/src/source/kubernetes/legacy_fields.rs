//! Fields and kinds of older policy APIs, and what to write instead.
//!
//! Only texts for messages: whether a field is known is decided where fields are read.

/// The API group and version of ClusterNetworkPolicy.
pub(in crate::source) const CLUSTER_API: &str = "policy.networking.k8s.io/v1alpha2";
/// The API group and version of NetworkPolicy.
pub(in crate::source) const NETWORKING_API: &str = "networking.k8s.io/v1";

const DESTINATION: &str = "destinationPort, as in tcp: {destinationPort: {number: 443}} or \
                           {range: {start: 9000, end: 9010}}";
const PLAIN_SELECTOR: &str = "matchLabels or matchExpressions themselves, without \
                              namespaceSelector around them";
const SAME_LABELS: &str = "matchLabels or matchExpressions, with a separate policy for each value";

/// What to write instead of a field that older or other kinds of policies have in this place.
pub(super) fn replacement_field(what: &str, key: &str) -> Option<&'static str> {
    let in_cluster_policy = what.contains("cluster");
    let in_selector = what.ends_with("namespaces");
    Some(match key {
        "ports" if in_cluster_policy => {
            "protocols, as in [{tcp: {destinationPort: {number: 443}}}]"
        }
        "portNumber" | "portRange" | "port" if in_cluster_policy => DESTINATION,
        "namedPort" if in_cluster_policy => "destinationNamedPort",
        "sameLabels" | "notSameLabels" => SAME_LABELS,
        "ipBlock" if in_cluster_policy => "networks, which are only valid in to",
        "networks" | "nodes" | "domainNames" if in_cluster_policy => {
            "namespaces or pods: the other fields are only valid in egress peers"
        }
        "namespaceSelector" if in_selector => PLAIN_SELECTOR,
        "podSelector" | "namespaceSelector" if in_cluster_policy => {
            "pods: {namespaceSelector: …, podSelector: …}"
        }
        _ => return None,
    })
}

/// What to write instead of an object of this kind.
pub(super) fn replacement_object(api: &str, kind: &str) -> String {
    let networking = || format!("apiVersion: {NETWORKING_API}");
    let cluster = |tier: &str| {
        format!("kind: ClusterNetworkPolicy of apiVersion: {CLUSTER_API} with tier: {tier}")
    };
    match kind {
        "NetworkPolicy" | "NetworkPolicyList" => networking(),
        "AdminNetworkPolicy" => cluster("Admin"),
        "BaselineAdminNetworkPolicy" => cluster("Baseline"),
        "ClusterNetworkPolicy" | "ClusterNetworkPolicyList" => {
            format!("apiVersion: {CLUSTER_API} and its fields")
        }
        _ if api == CLUSTER_API => "kind: ClusterNetworkPolicy".to_owned(),
        _ if api == NETWORKING_API => "kind: NetworkPolicy".to_owned(),
        _ => format!("NetworkPolicy of {NETWORKING_API} or ClusterNetworkPolicy of {CLUSTER_API}"),
    }
}
