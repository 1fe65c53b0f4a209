//! Tests of the checks, and of the seeded bugs of this very tree.

use super::*;
use crate::workspace;

const SOURCE: &str = "fn f(a: bool) -> bool {\n    let x = g(a) && a;\n    h(\n        a,\n        x,\n    );\n    x || a\n}\nconst N: u32 = one();\n";

fn entry(name: &str, text: &str, replacement: &str) -> String {
    format!(
        "[[mutant]]\nname = '{name}'\nbug = 'It errs.'\nsuite = 'kernel::steps'\nfile = 'ebpf/src/x.rs'\n\
         text = '''{text}'''\nreplacement = '''{replacement}'''\n"
    )
}

fn checked(data: &str) -> (Places, Vec<String>) {
    let catalogue = catalogue::parsed(data).unwrap();
    let sources = Sources::from([("ebpf/src/x.rs".to_owned(), SOURCE.to_owned())]);
    let (places, findings) = places(&catalogue, &sources);
    let messages = findings.into_iter().map(|finding| finding.to_string());
    (places, messages.collect())
}

/// The one finding, without the place.
fn finding(data: &str) -> String {
    let (_, messages) = checked(data);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.into_iter().next().unwrap()
}

#[test]
fn the_seeded_bugs_of_this_tree_are_in_their_places() {
    let findings = check(&workspace::root().unwrap()).unwrap();
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn a_bug_is_found_however_its_code_is_wrapped() {
    let (places, messages) = checked(&entry("a_bug", "h(a, x)", "()"));
    assert!(messages.is_empty(), "{messages:?}");
    let bytes = places["ebpf/src/x.rs"][0].bytes.clone();
    assert_eq!(&SOURCE[bytes], "h(\n        a,\n        x,\n    )");
}

#[test]
fn stale_bugs_are_named() {
    let gone = finding(&entry("a_bug", "g(b)", "true"));
    assert!(
        gone.starts_with("tests/mutants/x.toml: a_bug: text `g(b)` is not in ebpf/src/x.rs"),
        "{gone}"
    );
    let twice = finding(&entry("a_bug", "a", "true"));
    assert!(
        twice.contains("a_bug: text `a` is 5 times in ebpf/src/x.rs: add `within`"),
        "{twice}"
    );
    let elsewhere = entry("a_bug", "g(a)", "true").replace("ebpf/src/x.rs", "ebpf/src/y.rs");
    assert!(finding(&elsewhere).contains("a_bug: ebpf/src/y.rs is no source file"));
}

#[test]
fn surroundings_tell_places_apart() {
    let within = |within: &str| entry("a_bug", "a", "true") + &format!("within = '{within}'\n");
    let (places, messages) = checked(&within("x || a"));
    assert!(messages.is_empty(), "{messages:?}");
    assert_eq!(
        places["ebpf/src/x.rs"][0].bytes.start,
        SOURCE.find("x || a").unwrap() + 5
    );
    assert!(finding(&within("y || a")).contains("within `y || a` is not in"));
    assert!(finding(&within("a")).contains("within `a` is 5 times"));
    assert!(finding(&within("g(a) && a")).contains("text `a` is 2 times in `within`"));
    assert!(finding(&within("g(")).contains("text `a` is not in `within`"));
}

#[test]
fn only_whole_expressions_are_replaced_by_others() {
    assert!(finding(&entry("a_bug", "g(a) && ", "true")).contains("is not one whole expression"));
    assert!(
        finding(&entry("a_bug", "let x = g(a) && a;", "()"))
            .contains("is not one whole expression")
    );
    assert!(finding(&entry("a_bug", "one()", "2")).contains("is evaluated by the compiler"));
    assert!(finding(&entry("a_bug", "g(a)", "return;")).contains("`return;` is no expression"));
    assert!(finding(&entry("a_bug", "g(a)", "g( a )")).contains("is the same code"));
}

#[test]
fn names_sentences_and_suites_are_checked() {
    let twice = entry("a_bug", "g(a)", "true") + &entry("a_bug", "x || a", "true");
    assert!(finding(&twice).contains("a_bug: another bug has this name"));
    assert!(finding(&entry("A-bug", "g(a)", "true")).contains("the name must be"));
    let data = entry("a_bug", "g(a)", "true");
    assert!(finding(&data.replace("It errs.", "errs")).contains("must say what goes wrong"));
    assert!(
        finding(&data.replace("kernel::steps", "steps")).contains("no suite is called `steps`")
    );
}

#[test]
fn places_may_nest_but_not_overlap() {
    let nested = entry("inner", "g(a)", "true") + &entry("outer", "g(a) && a", "true");
    let (places, messages) = checked(&nested);
    assert!(messages.is_empty(), "{messages:?}");
    let names: Vec<_> = places["ebpf/src/x.rs"].iter().map(told).collect();
    assert_eq!(names, ["outer", "inner"]);

    let own = "[[mutant]]\nname = 'one'\nbug = 'It errs.'\nsuite = 'kernel'\n".to_owned()
        + &["g(a)", "g(a) && a"].map(|text| {
            format!("[[mutant.edit]]\nfile = 'ebpf/src/x.rs'\ntext = '{text}'\nreplacement = 'true'\n")
        }).concat();
    assert!(finding(&own).contains("one and one overlap"));
    let setup = format!(
        "{}[[setup]]\nfile = 'ebpf/src/x.rs'\ntext = 'let x = g(a)'\nreplacement = 'let x = g'\n",
        entry("a_bug", "g(a)", "true")
    );
    assert!(finding(&setup).contains("the setup and a_bug overlap"));
}
