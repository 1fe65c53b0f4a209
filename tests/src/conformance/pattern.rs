//! Globs over ends, ports and families: `*` matches any sequence of characters; there are no other
//! special characters.

/// One or more globs, any of which may match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patterns(Vec<String>);

impl Patterns {
    /// From the globs as written.
    pub(super) fn new(globs: Vec<String>) -> Self {
        Self(globs)
    }

    /// Patterns that match everything, for an omitted key.
    pub(super) fn any() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// Whether one of the globs matches the whole of `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|glob| matches(glob, text))
    }

    /// Whether the pattern is exactly the name `text`: no wildcard, and no other globs.
    pub(super) fn is_exactly(&self, text: &str) -> bool {
        matches!(self.0.as_slice(), [only] if only == text)
    }
}

fn matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_sequence() {
        for (glob, text, expected) in [
            ("*", "ext", true),
            ("*", "x/a", true),
            ("*/*", "x/a", true),
            ("*/*", "node", false),
            ("x/*", "x/a", true),
            ("x/*", "xx/a", false),
            ("*/a", "x/a", true),
            ("*/a", "x/aa", false),
            ("x/a", "x/a", true),
            ("x/a", "x/ab", false),
            ("", "x", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("tcp/*", "tcp/80", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn only_a_single_plain_name_is_exact() {
        let list = |globs: &[&str]| Patterns::new(globs.iter().map(ToString::to_string).collect());
        assert!(list(&["x/a"]).is_exactly("x/a"));
        assert!(!list(&["x/*"]).is_exactly("x/a"));
        assert!(!list(&["x/a", "x/b"]).is_exactly("x/a"));
        assert!(list(&["x/a", "y/*"]).matches("y/c"));
        assert!(!list(&[]).matches("y/c"));
    }
}
