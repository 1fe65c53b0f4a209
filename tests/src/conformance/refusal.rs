//! Whether an error names what was refused.

/// Whether `error` has one of the names as a word of its own; any error will do if there is none,
/// because then the text is too broken to hold a name.
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
    fn a_name_is_a_word() {
        let names = ["p".to_owned()];
        assert!(names_one_of("networkpolicy x/p: no", &names));
        assert!(names_one_of("policy \"p\"", &names));
        assert!(!names_one_of("policies.toml:1:1: unknown field", &names));
        assert!(!names_one_of("x/p-q", &names));
        assert!(names_one_of("anything", &[]));
    }
}
