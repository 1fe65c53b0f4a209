//! `unsafe` is allowed only in listed, reviewed places.
//!
//! The places are few: kernel programs, the one macro for plain-old-data, the agent's datapath, the
//! tests' network namespaces and frames, the benchmark's no-op program, and the switch of seeded bugs. That each block says why
//! it is sound is clippy's business.

use super::Finding;
use super::source::SourceFile;

/// Files, or directories with a `/` at the end.
const PLACES: [&str; 8] = [
    "agent/src/datapath/",
    "common/src/mutant.rs",
    "common/src/layout.rs",
    "ebpf/src/",
    "tests/src/bin/ringfence-bench/bpf/mod.rs",
    "tests/src/frame.rs",
    "tests/src/netns.rs",
    "xtask/src/mutants/switch.rs",
];

pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| !is_permitted(&file.path))
        .flat_map(check_file)
        .collect()
}

fn check_file(file: &SourceFile) -> impl Iterator<Item = Finding> {
    file.tokens
        .iter()
        .filter(|token| token.is("unsafe"))
        .map(|token| {
            let message = format!("`unsafe` is allowed only in {}", PLACES.join(", "));
            Finding::at(file, token.line, message)
        })
}

fn is_permitted(path: &str) -> bool {
    PLACES
        .iter()
        .any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&[SourceFile::new(path, text)]).len()
    }

    #[test]
    fn unsafe_is_found_outside_the_listed_places() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(findings("agent/src/app.rs", text), 1);
        assert_eq!(findings("common/src/layout.rs.rs", text), 1);
        assert_eq!(findings("common/src/layout.rs", text), 0);
        assert_eq!(findings("agent/src/datapath/maps.rs", text), 0);
    }

    #[test]
    fn comments_strings_and_lints_with_the_word_are_no_findings() {
        let text = "#![deny(unsafe_code)] // unsafe\nconst S: &str = \"unsafe\";";
        assert_eq!(findings("agent/src/app.rs", text), 0);
    }
}
