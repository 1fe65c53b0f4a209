//! `metadata` of an object: its name, namespace and annotations.
//!
//! All fields of `ObjectMeta` are accepted; those that the API server fills in are ignored. The
//! annotations `ringfence.io/owner`, `/justification`, `/ticket` and `/review-by` have the meaning
//! of the keys of the same name in a TOML policy.

use super::node::{Node, Value};
use super::object::Object;
use crate::model::{About, NamespaceName, PolicyName};
use crate::source::value;

const FIELDS: [&str; 15] = [
    "name",
    "namespace",
    "annotations",
    "labels",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "selfLink",
];

/// The parts of `metadata` that policies use.
pub(super) struct Metadata<'n> {
    pub(super) name: PolicyName,
    pub(super) namespace: Option<&'n Node<'n>>,
    pub(super) about: About,
}

/// Reads the metadata of an object.
pub(super) fn metadata<'n>(
    object: &mut Object<'_, '_>,
    root: &Node<'_>,
    node: Option<&'n Node<'n>>,
) -> Option<Metadata<'n>> {
    let Some(node) = node else {
        object.refuse(root, "metadata is missing: expected metadata with a name");
        return None;
    };
    let [name, namespace, annotations, labels, ..] = object.fields(node, "metadata", FIELDS)?;
    if let Some(labels) = labels
        && !matches!(labels.value, Value::Map(_))
    {
        object.refuse(
            labels,
            "labels are not a mapping: expected for example {app: web}",
        );
    }
    let about = match annotations {
        // Who is responsible does not matter for what a policy does.
        Some(annotations) => object.part(|object| about(object, annotations)).0,
        None => About::default(),
    };
    let Some(name) = name else {
        object.refuse(node, "metadata without name: expected a name");
        return None;
    };
    Some(Metadata {
        name: object.parsed(name, "metadata.name")?,
        namespace,
        about,
    })
}

/// The namespace of a namespaced object; `default` if it does not name one.
pub(super) fn namespace(
    object: &mut Object<'_, '_>,
    root: &Node<'_>,
    node: Option<&Node<'_>>,
) -> Option<NamespaceName> {
    match node {
        Some(node) => object.parsed(node, "metadata.namespace"),
        None => object.accept(root, NamespaceName::new("default")),
    }
}

fn about(object: &mut Object<'_, '_>, node: &Node<'_>) -> About {
    if !matches!(node.value, Value::Map(_)) {
        object.refuse(
            node,
            "annotations are not a mapping: expected keys with text",
        );
        return About::default();
    }
    let mut read = |key: &str| {
        let node = node.get(key)?;
        let text = object.text(node, key)?;
        let text = value::free_text(text);
        object.accept(node, text)
    };
    let owner = read("ringfence.io/owner");
    let justification = read("ringfence.io/justification");
    let ticket = read("ringfence.io/ticket");
    let review_by = read("ringfence.io/review-by").and_then(|text| {
        let place = node.get("ringfence.io/review-by")?;
        let day = value::day(&toml::Value::String(text));
        object.accept(place, day)
    });
    About {
        owner,
        justification,
        ticket,
        review_by,
    }
}
