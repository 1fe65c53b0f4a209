//! The subjects of a refused file of Kubernetes objects, as far as they can be read.
//!
//! Best effort, for lockdown: nothing that is read here is ever in force as a policy. If the
//! subject of an object cannot be read, all workloads of its namespace are subjects. Of an
//! incomplete object (one that is malformed in the middle), only the namespace is used.

use super::cluster_network_policy::subject_of;
use super::metadata;
use super::node::{Node, Value};
use super::object::Object;
use super::selector::selector;
use super::yaml::{Reader, span_at};
use crate::model::{LabelSelector, Lockdown, LockedScope, Origin};
use crate::source::document::Document;
use crate::source::limits::MAX_KUBERNETES_SIZE;

/// The subjects of the policies in a file.
pub(in crate::source) fn subjects(file_name: &str, text: &str) -> Vec<Lockdown> {
    // The errors of the file have been reported already; the findings of this document are ignored.
    let Ok(mut document) = Document::new(file_name, text, MAX_KUBERNETES_SIZE) else {
        return Vec::new();
    };
    let mut reader = Reader::new(text);
    let mut found = Vec::new();
    while let Some(root) = reader.next(&mut document) {
        collect(&mut document, &root, true, &mut found);
    }
    for root in reader.into_incomplete() {
        collect(&mut document, &root, false, &mut found);
    }
    found
}

fn collect(
    document: &mut Document<'_>,
    root: &Node<'_>,
    complete: bool,
    found: &mut Vec<Lockdown>,
) {
    let items = root.get("items").map(|items| &items.value);
    let Some(Value::List(items)) = items else {
        found.extend(subject(document, root, root.get("kind"), complete));
        return;
    };
    let list_kind = root.get("kind").and_then(Node::text).unwrap_or_default();
    for item in items {
        let lockdown = match item.get("kind") {
            None if list_kind == "NetworkPolicyList" => namespaced(document, item, complete),
            None if list_kind == "ClusterNetworkPolicyList" => cluster(document, item, complete),
            kind => subject(document, item, kind, complete),
        };
        found.extend(lockdown);
    }
}

fn subject(
    document: &mut Document<'_>,
    root: &Node<'_>,
    kind: Option<&Node<'_>>,
    complete: bool,
) -> Option<Lockdown> {
    match kind?.text()? {
        "NetworkPolicy" => namespaced(document, root, complete),
        "ClusterNetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => {
            cluster(document, root, complete)
        }
        _ => None,
    }
}

fn namespaced(document: &mut Document<'_>, root: &Node<'_>, complete: bool) -> Option<Lockdown> {
    let origin = origin(document, root);
    let mut object = Object::new(document, String::new());
    let namespace = root.get("metadata")?.get("namespace");
    let scope = LockedScope::Namespace(metadata::namespace(&mut object, root, namespace)?);
    let pods = root.get("spec").and_then(|spec| spec.get("podSelector"));
    let subject = pods.filter(|_| complete);
    let subject = subject.and_then(|pods| selector(&mut object, pods, "podSelector"));
    Some(Lockdown {
        scope,
        subject: subject.unwrap_or_else(LabelSelector::everything),
        origin,
    })
}

/// The subjects of a cluster policy; none if they cannot be read, because otherwise a single typo
/// would lock down the whole cluster.
fn cluster(document: &mut Document<'_>, root: &Node<'_>, complete: bool) -> Option<Lockdown> {
    let origin = origin(document, root);
    let mut object = Object::new(document, String::new());
    let subject = root.get("spec")?.get("subject").filter(|_| complete)?;
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
