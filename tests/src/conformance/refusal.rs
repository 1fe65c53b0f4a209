//! Checks that an error names the policy that was refused.

/// Whether `error` contains one of the names as a whole word. Without names any error is accepted,
/// because then the text is too malformed to contain a name.
pub(super) fn names_one_of(error: &str, names: &[String]) -> bool {
    let word = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    names.is_empty()
        || names.iter().any(|name| {
            error.match_indices(name.as_str()).any(|(at, _)| {
                let before = error.get(..at).unwrap_or_default();
                let after = error.get(at + name.len()..).unwrap_or_default();
                !before.ends_with(word) && !after.starts_with(word)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_only_as_a_whole_word() {
        let names = ["p".to_owned()];
        assert!(names_one_of("networkpolicy x/p: no", &names));
        assert!(names_one_of("policy \"p\"", &names));
        assert!(!names_one_of("policies.toml:1:1: unknown field", &names));
        assert!(!names_one_of("x/p-q", &names));
        assert!(names_one_of("anything", &[]));
    }
}
