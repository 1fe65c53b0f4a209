//! The seeded bugs, found where they are seeded.
//!
//! A bug may take several places to be one; they share its name. Tests are not looked at.

use std::collections::BTreeSet;

use crate::lint::source::SourceFile;

/// Every name in a `mutant!(name, …)` of the agent and of `common`.
pub(super) fn names(files: &[SourceFile]) -> BTreeSet<String> {
    files
        .iter()
        .filter(|file| file.path.starts_with("agent/src/") || file.path.starts_with("common/src/"))
        .filter(|file| !file.is_test())
        .flat_map(names_in)
        .collect()
}

fn names_in(file: &SourceFile) -> Vec<String> {
    let seams = file.tokens.windows(4).filter_map(|four| match four {
        [macro_name, mark, open, name]
            if macro_name.is("mutant") && mark.is("!") && open.is("(") && name.is_word() =>
        {
            Some(name.text.clone())
        }
        _ => None,
    });
    seams.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seams_are_found_and_nothing_else() {
        let text = "
            // mutant!(in_a_comment, a, b)
            macro_rules! mutant { ($name:ident) => {} }
            fn f() -> bool { mutant!(one, true, false) && ringfence_common::mutant!(
                two, true, false,
            ) && mutant!(one, 1, 2) }
            const TEXT: &str = \"mutant!(in_text, a, b)\";
        ";
        let files = [
            "agent/src/policy/x.rs",
            "xtask/src/x.rs",
            "agent/src/x/tests.rs",
        ]
        .map(|path| SourceFile::new(path, text));
        assert_eq!(Vec::from_iter(names(&files)), ["one", "two"]);
        assert!(names(&files[1..]).is_empty());
    }
}
