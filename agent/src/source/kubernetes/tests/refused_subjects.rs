//! The subjects that can be read in a refused file.

use crate::model::LockedScope;
use crate::source::kubernetes::refused_subjects::subjects;

fn shown(text: &str) -> Vec<String> {
    subjects("k.yaml", text)
        .iter()
        .map(|lockdown| {
            let scope = match &lockdown.scope {
                LockedScope::Namespace(name) => name.to_string(),
                LockedScope::Namespaces(selector) => format!("[{selector}]"),
            };
            let (line, subject) = (lockdown.origin.line, &lockdown.subject);
            format!("{line} {scope} {subject}")
        })
        .collect()
}

#[test]
fn the_readable_subjects_of_a_refused_file_are_found() {
    let text = "\
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, colour: red}
---
kind: NetworkPolicy
metadata: {namespace: lab}
spec: {podSelector: {matchLabels: {app: 7}}}
---
kind: NetworkPolicy
metadata: {namespace: No}
---
kind: NetworkPolicy
metadata: {name: a}
---
kind: AdminNetworkPolicy
spec: {subject: {pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {}}}}
---
kind: ClusterNetworkPolicy
spec: {subject: {everyone: {}}}
---
kind: List
items:
- kind: NetworkPolicy
  metadata: {namespace: x}
---
kind: ConfigMap
metadata: {namespace: x}
";
    assert_eq!(
        shown(text),
        [
            "1 shop app=web",
            "5 lab ",
            "12 default ",
            "15 [env=prod] ",
            "23 x "
        ]
    );
}

#[test]
fn an_incomplete_document_selects_its_whole_namespace() {
    let text = "kind: NetworkPolicy\nmetadata:\n  namespace: shop\nspec:\n  podSelector: \
                {matchLabels: {app: web}}\n  ingress: [\n---\nkind: NetworkPolicy\nmetadata: \
                {namespace: lab}\nspec: {podSelector: {matchLabels: {app: db}}}\n";
    assert_eq!(shown(text), ["8 lab app=db", "1 shop "]);
}
