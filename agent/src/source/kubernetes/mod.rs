//! Kubernetes policies: YAML or JSON files, and objects of the API, to `model::Policy`.
//!
//! A file may hold several documents, also lists as `kubectl get -o yaml` writes them. What one
//! object shows is checked here; what takes several (names used twice, unknown namespaces) is left
//! to `files`. All errors of a file are reported at once, each with its place and its object.

mod cluster_network_policy;
mod cluster_peers;
mod legacy_fields;
mod metadata;
mod network_policy;
mod node;
mod object;
mod ports;
pub(super) mod refused_subjects;
mod scalar;
mod selector;
mod yaml;

use std::sync::Arc;

use legacy_fields::{CLUSTER_API, NETWORKING_API};
use node::Node;
use object::Object;

use super::document::{Document, SourceError};
use super::limits::MAX_KUBERNETES_SIZE;
use super::policy_file::PolicyFragment;
use crate::model::{Policy, quote};

/// Parses the text of a file; a file without documents is one without policies.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(file_name: &str, text: &str) -> Result<PolicyFragment, Vec<SourceError>> {
    let mut document =
        Document::new(file_name, text, MAX_KUBERNETES_SIZE).map_err(|error| vec![error])?;
    let mut reader = yaml::Reader::new(text);
    let mut policies = Vec::new();
    while let Some(root) = reader.next(&mut document) {
        if !root.is_null() {
            read(&mut document, &root, None, &mut policies);
        }
    }
    let warnings = document.close()?;
    Ok(PolicyFragment { policies, warnings })
}

/// Takes one object of the Kubernetes API, which messages and the policy's origin call by this
/// name. The second value is what is odd in it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn object(
    name: &str,
    json: &serde_json::Value,
) -> Result<(Arc<Policy>, Vec<SourceError>), Vec<SourceError>> {
    let mut document = Document::new(name, "", 0).map_err(|error| vec![error])?;
    let mut policies = Vec::new();
    read(&mut document, &Node::from(json), None, &mut policies);
    if policies.len() != 1 {
        document.refuse(0..0, "expected one policy");
    }
    let warnings = document.close()?;
    let policy = policies.pop();
    policy.map(|policy| (policy, warnings)).ok_or_else(Vec::new)
}

/// The kinds of objects that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    NetworkPolicy,
    ClusterNetworkPolicy,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

/// What a document may be.
enum Role {
    Object(Kind),
    /// A list whose items name their kinds, or are of this kind.
    List(Option<Kind>),
}

/// Reads a document or an item of a list, which need not name its kind if the list does.
fn read(
    document: &mut Document<'_>,
    root: &Node<'_>,
    item_of: Option<Option<Kind>>,
    policies: &mut Vec<Arc<Policy>>,
) {
    match role(document, root, item_of.flatten()) {
        None => {}
        Some(Role::Object(kind)) => {
            let mut object = Object::new(document, shown(kind, root));
            let policy = match kind {
                Kind::NetworkPolicy => network_policy::policy(&mut object, root),
                Kind::ClusterNetworkPolicy => cluster_network_policy::policy(&mut object, root),
            };
            policies.extend(policy.map(Arc::new));
        }
        Some(Role::List(_)) if item_of.is_some() => {
            let mut object = Object::new(document, "a list".to_owned());
            object.refuse(root, "inside a list: expected objects as its items");
        }
        Some(Role::List(kind)) => read_list(document, root, kind, policies),
    }
}

fn read_list(
    document: &mut Document<'_>,
    root: &Node<'_>,
    kind: Option<Kind>,
    policies: &mut Vec<Arc<Policy>>,
) {
    let mut list = Object::new(document, "a list".to_owned());
    let names = ["apiVersion", "kind", "metadata", "items"];
    let Some([_, _, _, items]) = list.fields(root, "it", names) else {
        return;
    };
    let items = items.and_then(|items| list.items(items, "items"));
    for item in items.unwrap_or_default() {
        read(document, item, Some(kind), policies);
    }
}

/// What a document is by its `apiVersion` and `kind`; refuses everything else.
fn role(document: &mut Document<'_>, root: &Node<'_>, default: Option<Kind>) -> Option<Role> {
    let text = |key: &str| root.get(key).and_then(Node::text);
    match (text("apiVersion"), text("kind")) {
        (Some(NETWORKING_API), Some("NetworkPolicy")) => Some(Role::Object(Kind::NetworkPolicy)),
        (Some(CLUSTER_API), Some("ClusterNetworkPolicy")) => {
            Some(Role::Object(Kind::ClusterNetworkPolicy))
        }
        (Some("v1"), Some("List")) => Some(Role::List(None)),
        (Some(NETWORKING_API), Some("NetworkPolicyList")) => {
            Some(Role::List(Some(Kind::NetworkPolicy)))
        }
        (Some(CLUSTER_API), Some("ClusterNetworkPolicyList")) => {
            Some(Role::List(Some(Kind::ClusterNetworkPolicy)))
        }
        (Some(api), Some(kind)) => {
            let name = root.get("metadata").and_then(|node| node.get("name"));
            let name = name.and_then(Node::text).unwrap_or_default();
            let message = format!(
                "{} {} of {} is not read: expected {}",
                quote(kind),
                quote(name),
                quote(api),
                legacy_fields::replacement_object(api, kind)
            );
            document.refuse(yaml::span_at(root.offset), message);
            None
        }
        (None, None) if default.is_some() => default.map(Role::Object),
        _ => {
            let message = "not a Kubernetes object: expected apiVersion and kind";
            document.refuse(yaml::span_at(root.offset), message);
            None
        }
    }
}

/// What messages call an object: its kind and name as far as it has one.
fn shown(kind: Kind, root: &Node<'_>) -> String {
    let of = |key: &str| {
        let metadata = root.get("metadata")?;
        metadata.get(key).and_then(Node::text)
    };
    let name = of("name").unwrap_or("(without name)");
    let full = match (kind, of("namespace")) {
        (Kind::NetworkPolicy, Some(namespace)) => format!("{namespace}/{name}"),
        (Kind::NetworkPolicy, None) => format!("default/{name}"),
        (Kind::ClusterNetworkPolicy, _) => name.to_owned(),
    };
    let plain = |text: &str| {
        text.len() <= 320
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-./() ".contains(&byte))
    };
    if plain(&full) {
        format!("{} {full}", kind.name())
    } else {
        format!("{} {}", kind.name(), quote(&full))
    }
}

#[cfg(test)]
mod tests;
