//! Converts Kubernetes policies, from YAML or JSON files or from the API, to `model::Policy`.
//!
//! A file may contain several documents, including lists as written by `kubectl get -o yaml`. Each
//! object is checked by itself; conflicts between objects (names used twice, unknown namespaces)
//! are left to `files`. All errors of a file are reported at once, each with its place and its
//! object.

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

/// Parses a file; a file without documents has no policies.
///
/// # Errors
/// All errors of the file.
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

/// Converts one object of the Kubernetes API; `name` takes the place of a file name in messages and
/// in the policy's origin. The second value is the list of warnings.
///
/// # Errors
/// All errors of the object.
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

/// The supported kinds of objects.
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

/// What a document is.
enum Role {
    Object(Kind),
    /// A list of items of this kind; `None` if the items name their kinds.
    List(Option<Kind>),
}

/// Converts a document, or an item of a list. An item need not name its kind if the list does.
fn read(
    document: &mut Document<'_>,
    root: &Node<'_>,
    item_of: Option<Option<Kind>>,
    policies: &mut Vec<Arc<Policy>>,
) {
    match role(document, root, item_of.flatten()) {
        None => {}
        Some(Role::Object(kind)) => {
            let mut object = Object::new(document, display_name(kind, root));
            let policy = match kind {
                Kind::NetworkPolicy => network_policy::policy(&mut object, root),
                Kind::ClusterNetworkPolicy => cluster_network_policy::policy(&mut object, root),
            };
            policies.extend(policy.map(Arc::new));
        }
        Some(Role::List(_)) if item_of.is_some() => {
            let mut object = Object::new(document, "a list".to_owned());
            object.refuse(
                root,
                "nested in another list: expected objects as its items",
            );
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

/// Determines what a document is by its `apiVersion` and `kind`; refuses everything else.
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
                "{} {} of {} is not supported: expected {}",
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

/// The name of an object in messages: its kind and its name, if it has one.
fn display_name(kind: Kind, root: &Node<'_>) -> String {
    let field = |key: &str| {
        let metadata = root.get("metadata")?;
        metadata.get(key).and_then(Node::text)
    };
    let name = field("name").unwrap_or("(without name)");
    let full = match (kind, field("namespace")) {
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
