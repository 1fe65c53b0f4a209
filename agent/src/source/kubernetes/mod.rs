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

pub(super) use legacy_fields::{CLUSTER_API, NETWORKING_API};
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

/// What is known of a policy object of the Kubernetes API.
#[derive(Debug)]
pub(super) struct ReadPolicy {
    /// The policy, in which what cannot be read grants nothing; `None` if too little of it can be read, its
    /// subject above all.
    pub(super) policy: Option<Arc<Policy>>,
    /// What cannot be read.
    pub(super) errors: Vec<SourceError>,
    /// What may not be meant as it is read.
    pub(super) warnings: Vec<SourceError>,
}

/// Converts an object of the Kubernetes API; `name` takes the place of a file name in messages and in the
/// policy's origin.
pub(super) fn read_object(name: &str, json: &serde_json::Value) -> ReadPolicy {
    let mut document = match Document::new(name, "", 0) {
        Ok(document) => document,
        Err(error) => {
            return ReadPolicy {
                policy: None,
                errors: vec![error],
                warnings: Vec::new(),
            };
        }
    };
    let root = Node::from(json);
    let kind = match role(&mut document, &root, None) {
        Some(Role::Object(kind)) => Some(kind),
        _ => None,
    };
    let policy = kind.and_then(|kind| {
        let mut object = Object::new(&mut document, display_name(kind, &root));
        let policy = read_kind(&mut object, kind, &root)?;
        let tolerable = object.tolerable();
        (document.errors() == tolerable).then_some(policy)
    });
    let (mut errors, mut warnings) = document.into_findings();
    for finding in errors.iter_mut().chain(&mut warnings) {
        // The text has no lines.
        (finding.line, finding.column) = (0, 0);
    }
    ReadPolicy {
        policy: policy.map(|mut policy| {
            policy.origin.line = 0;
            Arc::new(policy)
        }),
        errors,
        warnings,
    }
}

fn read_kind(object: &mut Object<'_, '_>, kind: Kind, root: &Node<'_>) -> Option<Policy> {
    match kind {
        Kind::NetworkPolicy => network_policy::policy(object, root),
        Kind::ClusterNetworkPolicy => cluster_network_policy::policy(object, root),
    }
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
            let policy = read_kind(&mut object, kind, root);
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
