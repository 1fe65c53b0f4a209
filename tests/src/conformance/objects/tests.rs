//! Documents stay as they were written.

use super::*;

fn object(name: &str, rest: &str) -> String {
    format!("kind: NetworkPolicy\nmetadata: {{ name: {name}, namespace: x }}\n{rest}")
}

fn names(text: &str) -> Vec<String> {
    let documents = split(text);
    let key = |it: &Document| it.key.as_ref().map_or("?".to_owned(), ToString::to_string);
    documents.iter().map(key).collect()
}

#[test]
fn separators_split_and_nothing_else() {
    let text = format!(
        "# only a comment\n---\n{}---\n\n--- # empty\n---\n{}...\n",
        object("a", "spec: |\n  --- not a separator\n   ---\n"),
        object("b", "---no: separator either\n"),
    );
    assert_eq!(names(&text), ["networkpolicy/x/a", "networkpolicy/x/b"]);
    assert_eq!(names(""), Vec::<String>::new());
    assert_eq!(names("{ unreadable"), ["?"]);
    assert_eq!(
        names("--- {kind: ClusterNetworkPolicy, metadata: {name: c, namespace: ignored}}"),
        ["clusternetworkpolicy/c"]
    );
    assert_eq!(
        names("kind: NetworkPolicy\nmetadata: { name: d }"),
        ["networkpolicy/default/d"]
    );
}

#[test]
fn what_is_rendered_is_what_was_written() {
    let odd = "%YAML 1.2\n---\n\tkind: tab\n# comment\n---  \"tail\"\nx: &a [*a]\n";
    let mut objects = Objects::default();
    objects.apply(split(odd));
    assert_eq!(objects.render(false), odd);
    assert_eq!(
        objects.render(true),
        "---  \"tail\"\nx: &a [*a]\n...\n%YAML 1.2\n---\n\tkind: tab\n# comment\n"
    );
}

#[test]
fn apply_replaces_in_place_and_delete_removes() {
    let mut objects = Objects::default();
    objects.apply(split(&format!(
        "{}---\n{}",
        object("a", ""),
        object("b", "")
    )));
    objects.apply(split(&object("a", "spec: new\n")));
    let expected = format!(
        "---\n{}---\n{}",
        object("a", "spec: new\n"),
        object("b", "")
    );
    assert_eq!(objects.render(false), expected);
    let b: ObjectKey = "networkpolicy/x/b".parse().unwrap();
    objects.delete(&b).unwrap();
    assert!(objects.delete(&b).is_err(), "gone already");
    assert_eq!(
        objects.render(false),
        format!("---\n{}", object("a", "spec: new\n"))
    );
}

#[test]
fn a_candidate_is_written_whole() {
    let mut objects = Objects::default();
    objects.apply(split(&format!(
        "{}---\n{}",
        object("a", ""),
        object("b", "")
    )));
    let twice = format!(
        "{}---\n{}",
        object("a", "one: 1\n"),
        object("a", "two: 2\n")
    );
    let candidate = objects.with(split(&twice));
    let expected = format!(
        "---\n{}---\n{}---\n{}",
        object("b", ""),
        object("a", "one: 1\n"),
        object("a", "two: 2\n")
    );
    assert_eq!(candidate.render(false), expected);
}

#[test]
fn keys_have_two_or_three_parts() {
    let key: ObjectKey = "NetworkPolicy/x/p".parse().unwrap();
    assert_eq!(key.to_string(), "networkpolicy/x/p");
    for bad in ["p", "a/b/c/d"] {
        assert!(bad.parse::<ObjectKey>().is_err(), "{bad}");
    }
}
