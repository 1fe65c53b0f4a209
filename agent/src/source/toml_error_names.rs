//! Adds policy names to the errors of a TOML policy file.
//!
//! Works on the text, because a table that cannot be parsed as a policy still has a position and
//! often a name.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::document::SourceError;
use crate::model::quote::sanitise;

/// The maximum length of a name in a message.
const MAX_NAME: usize = 320;

/// The errors, each prefixed with the name of the policy whose table it is in.
pub(super) fn add_policy_names(text: &str, mut errors: Vec<SourceError>) -> Vec<SourceError> {
    let (root, _) = DeTable::parse_recoverable(text);
    let policies = match root.get_ref().get("policy").map(Spanned::get_ref) {
        Some(DeValue::Array(policies)) => policies.iter(),
        _ => return errors,
    };
    let ends: Vec<usize> = text.match_indices('\n').map(|(end, _)| end).collect();
    let names: Vec<(u32, String)> = policies
        .filter_map(|policy| {
            Some((
                line_of(&ends, policy.span().start),
                name_of(policy.get_ref())?,
            ))
        })
        .collect();
    for error in &mut errors {
        let before = names.partition_point(|(line, _)| *line <= error.line);
        let within = before.checked_sub(1).and_then(|last| names.get(last));
        if let Some((_, name)) = within {
            error.message = format!("policy {name}: {}", error.message);
        }
    }
    errors
}

/// The line of an offset, counted from 1.
fn line_of(ends: &[usize], offset: usize) -> u32 {
    let before = ends.partition_point(|end| *end < offset);
    u32::try_from(before + 1).unwrap_or(u32::MAX)
}

fn name_of(policy: &DeValue<'_>) -> Option<String> {
    let DeValue::Table(table) = policy else {
        return None;
    };
    let text = |key: &str| match table.get(key).map(Spanned::get_ref) {
        Some(DeValue::String(text)) => Some(&**text),
        _ => None,
    };
    let name = text("name")?;
    let full = match text("namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    };
    Some(sanitise(&full).chars().take(MAX_NAME).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::policy_toml;

    fn messages(text: &str) -> Vec<String> {
        let errors = policy_toml::parse("p.toml", text).unwrap_err();
        let named = add_policy_names(text, errors);
        named.iter().map(ToString::to_string).collect()
    }

    const GOOD: &str =
        "[[policy]]\nname = \"good\"\nnamespace = \"x\"\nsubject = \"\"\ningress = []\n\n";

    #[test]
    fn an_error_names_the_policy_that_contains_it() {
        let unknown =
            format!("{GOOD}[[policy]]\nname = \"bad\"\nscope = \"cluster\"\nsubjectt = 1\n");
        let found = messages(&unknown);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("p.toml:10:1: policy bad: unknown field `subjectt`"),
            "{found:?}"
        );
        let wrong = format!("{GOOD}[[policy.egress]]\naction = \"drop\"\n");
        assert_eq!(
            messages(&wrong),
            [
                "p.toml:8:10: policy x/good: unknown action \"drop\": expected allow, deny, reject \
                 or pass"
            ]
        );
    }

    #[test]
    fn an_incomplete_policy_is_named_if_its_name_can_be_read() {
        let found = messages(&format!("{GOOD}[[policy]]\nname = \"bad\"\nsubject = \n"));
        assert!(
            found[0].starts_with("p.toml:9:11: policy bad: "),
            "{found:?}"
        );
        let nameless = messages("[[policy]]\nsubject = 1\n");
        assert!(!nameless[0].contains("policy :"), "{nameless:?}");
    }
}
