//! The subjects of a refused TOML policy file, as far as they can be read.
//!
//! Best effort, for lockdown: nothing that is read here is ever in force as a policy. If the
//! subject of a policy cannot be read, all workloads of its namespace are subjects. A policy whose
//! namespace cannot be read has no subjects.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::limits::MAX_TOML_POLICY_SIZE;
use crate::model::{LabelSelector, Lockdown, LockedScope, NamespaceName, Origin};

/// The subjects of the policies in a TOML file.
pub(super) fn in_toml(file_name: &str, text: &str) -> Vec<Lockdown> {
    let Ok(document) = Document::new(file_name, text, MAX_TOML_POLICY_SIZE) else {
        return Vec::new();
    };
    let (root, _) = DeTable::parse_recoverable(text);
    let Some(DeValue::Array(policies)) = root.get_ref().get("policy").map(Spanned::get_ref) else {
        return Vec::new();
    };
    policies
        .iter()
        .filter_map(|policy| {
            let DeValue::Table(table) = policy.get_ref() else {
                return None;
            };
            let origin = Origin {
                file: document.file().clone(),
                line: document.line(policy.span().start),
            };
            subject(table, origin)
        })
        .collect()
}

fn subject(policy: &DeTable<'_>, origin: Origin) -> Option<Lockdown> {
    let text = |key: &str| match policy.get(key).map(Spanned::get_ref) {
        Some(DeValue::String(text)) => Some(&**text),
        _ => None,
    };
    let selector = |key: &str| text(key)?.parse::<LabelSelector>().ok();
    if let Some(namespace) = text("namespace") {
        return Some(Lockdown {
            scope: LockedScope::Namespace(NamespaceName::new(namespace).ok()?),
            subject: selector("subject").unwrap_or_default(),
            origin,
        });
    }
    // A cluster policy whose subjects cannot be read has none: otherwise a single typo would lock
    // down the whole cluster.
    let namespaces = match policy.get("subject-namespaces") {
        Some(_) => selector("subject-namespaces")?,
        None => LabelSelector::everything(),
    };
    (text("scope") == Some("cluster")).then_some(())?;
    Some(Lockdown {
        scope: LockedScope::Namespaces(namespaces),
        subject: selector("subject")?,
        origin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        in_toml("p.toml", text)
            .iter()
            .map(|lockdown| {
                let scope = match &lockdown.scope {
                    LockedScope::Namespace(name) => name.to_string(),
                    LockedScope::Namespaces(selector) => format!("[{selector}]"),
                };
                format!("{} {scope} {}", lockdown.origin.line, lockdown.subject)
            })
            .collect()
    }

    #[test]
    fn the_readable_subjects_of_a_refused_file_are_found() {
        let text = r#"
[[policy]]
name = "a"
namespace = "shop"
subject = "app=web"
colour = "red"

[[policy]]
namespace = "lab"
subject = "app in ("

[[policy]]
namespace = "No"
subject = ""

[[policy]]
scope = "cluster"
subject-namespaces = "env=prod"
subject = "app"

[[policy]]
scope = "cluster"
subject = 7
"#;
        assert_eq!(
            shown(text),
            ["2 shop app=web", "8 lab ", "16 [env=prod] app"]
        );
    }

    #[test]
    fn the_valid_lines_of_malformed_toml_are_used() {
        let text = "[[policy]]\nname = \"a\nnamespace = \"shop\"\nsubject = \"app=web\"\n";
        assert_eq!(shown(text), ["1 shop app=web"]);
        assert_eq!(shown("[[policy"), Vec::<String>::new());
        assert_eq!(shown("policy = 7"), Vec::<String>::new());
    }
}
