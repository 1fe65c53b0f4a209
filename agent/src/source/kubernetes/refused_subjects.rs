//! Whom a refused file of Kubernetes objects is about, as far as it can be read.
//!
//! Best effort, for lockdown: nothing that is read here is ever in force as a policy. An object
//! whose subject cannot be read is about its whole namespace; of an object that breaks off in the
//! middle only the namespace counts.

use super::cluster_network_policy::subject_of;
use super::metadata;
use super::node::{Node, Value};
use super::object::Object;
use super::selector::selector;
use super::yaml::{Reader, span_at};
use crate::model::{LabelSelector, Lockdown, LockedScope, Origin};
use crate::source::document::Document;
use crate::source::limits::MAX_KUBERNETES_SIZE;

/// The subjects of the policies of a file.
pub(in crate::source) fn subjects(file_name: &str, text: &str) -> Vec<Lockdown> {
    // What is wrong with the file has been reported; this document's findings go nowhere.
    let Ok(mut document) = Document::new(file_name, text, MAX_KUBERNETES_SIZE) else {
        return Vec::new();
    };
    let mut reader = Reader::new(text);
    let mut found = Vec::new();
    while let Some(root) = reader.next(&mut document) {
        collect(&mut document, &root, true, &mut found);
    }
    for root in reader.broken() {
        collect(&mut document, &root, false, &mut found);
    }
    found
}

fn collect(document: &mut Document<'_>, root: &Node<'_>, whole: bool, found: &mut Vec<Lockdown>) {
    let items = root.get("items").map(|items| &items.value);
    let Some(Value::List(items)) = items else {
        found.extend(subject(document, root, root.get("kind"), whole));
        return;
    };
    let of_list = root.get("kind").and_then(Node::text).unwrap_or_default();
    for item in items {
        let lockdown = match item.get("kind") {
            None if of_list == "NetworkPolicyList" => namespaced(document, item, whole),
            None if of_list == "ClusterNetworkPolicyList" => cluster(document, item, whole),
            kind => subject(document, item, kind, whole),
        };
        found.extend(lockdown);
    }
}

fn subject(
    document: &mut Document<'_>,
    root: &Node<'_>,
    kind: Option<&Node<'_>>,
    whole: bool,
) -> Option<Lockdown> {
    match kind?.text()? {
        "NetworkPolicy" => namespaced(document, root, whole),
        "ClusterNetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => {
            cluster(document, root, whole)
        }
        _ => None,
    }
}

fn namespaced(document: &mut Document<'_>, root: &Node<'_>, whole: bool) -> Option<Lockdown> {
    let origin = origin(document, root);
    let mut object = Object::new(document, String::new());
    let namespace = root.get("metadata")?.get("namespace");
    let scope = LockedScope::Namespace(metadata::namespace(&mut object, root, namespace)?);
    let pods = root.get("spec").and_then(|spec| spec.get("podSelector"));
    let subject = pods.filter(|_| whole);
    let subject = subject.and_then(|pods| selector(&mut object, pods, "podSelector"));
    Some(Lockdown {
        scope,
        subject: subject.unwrap_or_else(LabelSelector::everything),
        origin,
    })
}

/// Whose subjects cannot be told is nobody's lockdown: one slip of a pen would close the whole
/// cluster.
fn cluster(document: &mut Document<'_>, root: &Node<'_>, whole: bool) -> Option<Lockdown> {
    let origin = origin(document, root);
    let mut object = Object::new(document, String::new());
    let subject = root.get("spec")?.get("subject").filter(|_| whole)?;
    let (namespaces, subject) = subject_of(&mut object, subject)?;
    Some(Lockdown {
        scope: LockedScope::Namespaces(namespaces),
        subject,
        origin,
    })
}

fn origin(document: &Document<'_>, root: &Node<'_>) -> Origin {
    Origin {
        file: document.file().clone(),
        line: document.line(span_at(root.offset).start),
    }
}
