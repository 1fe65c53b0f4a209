//! The seeded bugs, found where they are seeded.
//!
//! A bug may take several places to be one; they share its name. Tests are not looked at. Where a
//! bug is says what it is about: the rows' look-up alone is policy's in `common`.

use std::collections::BTreeMap;

use super::suites::Area;
use crate::lint::source::SourceFile;

/// Every name in a `mutant!(name, …)`, with what it is about.
pub(super) fn names(files: &[SourceFile]) -> BTreeMap<String, Area> {
    let files = files.iter().filter(|file| !file.is_test());
    let with_area = files.filter_map(|file| Some((file, area(&file.path)?)));
    let named =
        with_area.flat_map(|(file, area)| names_in(file).into_iter().map(move |name| (name, area)));
    named.collect()
}

fn area(path: &str) -> Option<Area> {
    if path.starts_with("agent/src/") || path == "common/src/policy.rs" {
        Some(Area::Policy)
    } else if path.starts_with("common/src/") || path.starts_with("ebpf/src/") {
        Some(Area::Datapath)
    } else {
        None
    }
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
        assert_eq!(Vec::from_iter(names(&files).into_keys()), ["one", "two"]);
        assert!(names(&files[1..]).is_empty());
    }

    #[test]
    fn the_place_of_a_bug_says_what_it_is_about() {
        assert_eq!(area("agent/src/policy/rows.rs"), Some(Area::Policy));
        assert_eq!(area("common/src/policy.rs"), Some(Area::Policy));
        assert_eq!(area("common/src/packet/ipv4.rs"), Some(Area::Datapath));
        assert_eq!(area("ebpf/src/pipeline.rs"), Some(Area::Datapath));
        assert_eq!(area("tests/src/lib.rs"), None);
    }
}
