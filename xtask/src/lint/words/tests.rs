//! Planted words are found in every kind of place, and exceptions apply only where they are given.
//!
//! The planted words are invented ones, so that this file needs no exception.

use super::list::Retired;
use super::*;

const RETIRED: &str = r#"
[[skip]]
path = "Cargo.lock"
reason = "generated"

[[skip]]
path = "CHANGELOG.md"
lines_starting = "|"
reason = "the table of renames"

[[retired]]
words = ["gloop", "gloops", "warm zibble"]
names = ["GLP4", "old/path.rs"]
instead = "treacle"
except = [{ path = "tests/data/", reason = "frozen" }]

[[retired]]
words = ["fnord"]
instead = "nothing"
only = ["ebpf/"]
"#;

/// The findings in these files, without those about unused exceptions.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let list = List::parse(RETIRED).unwrap();
    let mut search = Search::new(&list);
    for (path, text) in files {
        search.file(path, text);
    }
    let found = search.finish().into_iter();
    let found = found.filter(|finding| finding.place != LIST);
    found.map(|finding| finding.to_string()).collect()
}

fn is_found(path: &str, text: &str) -> bool {
    !findings(&[(path, text)]).is_empty()
}

#[test]
fn a_retired_word_is_found_in_every_kind_of_place() {
    for (path, text) in [
        ("agent/src/x.rs", "fn f() {} // a gloop"),
        ("agent/src/x.rs", "//! Gloops, explained."),
        ("agent/src/x.rs", "/* gloop */"),
        ("agent/src/x.rs", "let s = \"no gloop here\";"),
        ("agent/src/x.rs", "let s = r#\"gloop\"#;"),
        ("agent/src/x.rs", "fn find_gloop_of() {}"),
        ("agent/src/x.rs", "struct GloopFinder;"),
        ("agent/src/x.rs", "static MAP_GLOOP6: u8 = 0;"),
        ("docs/x.md", "A *gloop*, quoted: `gloop`."),
        ("deny.toml", "# gloop"),
        ("tests/x.yaml", "name: the-gloop-is-open"),
        (".ci/run", "# gloop"),
        ("agent/src/gloop.rs", ""),
    ] {
        assert!(is_found(path, text), "{path}: {text}");
    }
}

#[test]
fn a_finding_has_the_line_the_word_and_the_replacement() {
    let found = findings(&[("docs/x.md", "one\ntwo Gloops\n")]);
    assert_eq!(found, ["docs/x.md:2: `gloops`: write treacle"]);
    let found = findings(&[("docs/gloop.md", "")]);
    assert_eq!(
        found,
        ["docs/gloop.md: the file's name has `gloop`: write treacle"]
    );
}

#[test]
fn words_match_whole() {
    assert!(!is_found("docs/x.md", "gloopy agloop glo op"));
    assert!(!is_found("agent/src/x.rs", "fn gloopy_agloop() {}"));
}

#[test]
fn phrases_match_across_line_breaks_only_within_a_paragraph() {
    assert!(is_found("docs/x.md", "a warm\nzibble"));
    assert!(is_found("agent/src/x.rs", "    // a warm\n    // zibble"));
    assert!(is_found("agent/src/x.rs", "fn warm_zibble() {}"));
    assert!(!is_found("docs/x.md", "so warm. Zibble"));
    assert!(!is_found("docs/x.md", "so warm\n\nZibble"));
}

#[test]
fn names_match_exactly() {
    assert!(is_found("docs/x.md", "the map `GLP4`"));
    assert!(is_found("docs/x.md", "see old/path.rs."));
    assert!(!is_found("docs/x.md", "glp4 XGLP4 GLP44"));
}

#[test]
fn entries_for_some_files_leave_the_others_alone() {
    assert!(is_found("ebpf/src/x.rs", "fnord"));
    assert!(!is_found("agent/src/x.rs", "fnord"));
}

#[test]
fn exceptions_hold_where_they_are_given() {
    assert!(!is_found("tests/data/x.toml", "gloop"));
    assert!(is_found("tests/src/x.rs", "gloop"));
    assert!(!is_found("Cargo.lock", "gloop"));
    assert!(!is_found("CHANGELOG.md", "| gloop | treacle |"));
    assert!(is_found("CHANGELOG.md", "- The gloop is gone."));
}

#[test]
fn an_exception_that_covers_nothing_is_a_finding() {
    let list = List::parse(RETIRED).unwrap();
    let unused = |files: &[(&str, &str)]| {
        let mut search = Search::new(&list);
        for (path, text) in files {
            search.file(path, text);
        }
        search.finish().len()
    };
    assert_eq!(unused(&[]), 3);
    let all = [
        ("Cargo.lock", ""),
        ("CHANGELOG.md", ""),
        ("tests/data/x", "gloop"),
    ];
    assert_eq!(unused(&all), 0);
}

#[test]
fn entries_need_a_replacement_and_exceptions_a_reason() {
    for text in [
        "[[retired]]\nwords = [\"a\"]\n",
        "[[retired]]\nwords = [\"a\"]\ninstead = \" \"\n",
        "[[retired]]\ninstead = \"b\"\n",
        "[[retired]]\nwords = [\"A\"]\ninstead = \"b\"\n",
        "[[retired]]\nwords = [\"a\"]\ninstead = \"b\"\nexcept = [{ path = \"x\", reason = \"\" }]\n",
        "[[skip]]\npath = \"x\"\nreason = \"\"\n[[retired]]\nwords = [\"a\"]\ninstead = \"b\"\n",
    ] {
        assert!(List::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_list_itself_is_valid_and_lists_each_term_once() {
    let list = List::parse(include_str!("../retired_words.toml")).unwrap();
    let mut terms: Vec<&str> = list.retired.iter().flat_map(Retired::terms).collect();
    let all = terms.len();
    terms.sort_unstable();
    terms.dedup();
    assert_eq!(terms.len(), all);
}
