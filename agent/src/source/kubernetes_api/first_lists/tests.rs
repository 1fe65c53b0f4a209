//! What is said before all kinds are whole.

use serde_json::json;

use super::*;
use crate::model::NodeName;
use crate::source::kubernetes_api::object::convert;

fn namespace(name: &str, env: &str) -> Update {
    let labels = json!({"env": env});
    let mut object = json!({"metadata": {"name": name, "labels": labels}});
    let node = NodeName::new("n1").unwrap();
    Update::Is(Box::new(
        convert(Kind::Namespaces, &node, &mut object).unwrap(),
    ))
}

fn key(name: &str) -> Key {
    match namespace(name, "") {
        Update::Is(converted) => converted.key,
        other => panic!("{other:?}"),
    }
}

fn of(updates: impl IntoIterator<Item = Update>) -> FirstLists {
    let mut first = FirstLists::default();
    for update in updates {
        assert_eq!(first.take(update), None);
    }
    first
}

fn namespaces(first: FirstLists) -> Vec<Update> {
    let of_kind = |update: &Update| match update {
        Update::Begins(kind) | Update::IsWhole(kind) => *kind == Kind::Namespaces,
        _ => true,
    };
    first.into_updates().filter(of_kind).collect()
}

const BEGINS: Update = Update::Begins(Kind::Namespaces);
const WHOLE: Update = Update::IsWhole(Kind::Namespaces);

#[test]
fn every_kind_must_be_whole() {
    let mut first = FirstLists::default();
    for kind in Kind::ALL {
        first.take(Update::Begins(kind));
        assert!(!first.are_whole(), "{kind:?}");
    }
    for kind in Kind::ALL {
        assert!(!first.are_whole(), "{kind:?}");
        first.take(Update::IsWhole(kind));
    }
    assert!(first.are_whole());
}

#[test]
fn a_list_has_what_is_there_when_it_is_taken() {
    let first = of([
        BEGINS,
        namespace("a", "1"),
        namespace("b", "1"),
        WHOLE,
        namespace("a", "2"),
        namespace("c", "1"),
        Update::IsGone(key("b")),
    ]);
    let expected = [BEGINS, namespace("a", "2"), namespace("c", "1"), WHOLE];
    assert_eq!(namespaces(first), expected);
}

#[test]
fn a_list_that_broke_off_counts_for_nothing_and_one_that_begins_again_takes_nothing_away() {
    let first = of([
        BEGINS,
        namespace("a", "1"),
        BEGINS,
        namespace("b", "1"),
        WHOLE,
    ]);
    assert_eq!(namespaces(first), [BEGINS, namespace("b", "1"), WHOLE]);
    let first = of([
        BEGINS,
        namespace("a", "1"),
        WHOLE,
        BEGINS,
        namespace("b", "1"),
    ]);
    let (a, b) = (namespace("a", "1"), namespace("b", "1"));
    let expected = [BEGINS, a, b.clone(), WHOLE, BEGINS, b];
    assert_eq!(namespaces(first), expected);
}

#[test]
fn an_object_that_cannot_be_read_any_more_is_there_as_it_was() {
    let unreadable = Update::IsUnreadable(key("a"), "x".into());
    let first = of([BEGINS, namespace("a", "1"), unreadable.clone(), WHOLE]);
    let expected = [BEGINS, namespace("a", "1"), unreadable.clone(), WHOLE];
    assert_eq!(namespaces(first), expected);
    let first = of([BEGINS, unreadable, namespace("a", "1"), WHOLE]);
    assert_eq!(namespaces(first), [BEGINS, namespace("a", "1"), WHOLE]);
}

#[test]
fn failures_are_passed_on() {
    let mut first = FirstLists::default();
    let fails = Update::Fails(Kind::Pods, "x".into());
    assert_eq!(first.take(fails.clone()), Some(fails));
}
