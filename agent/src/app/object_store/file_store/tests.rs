//! What is on disk, and when.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::app::object_store::file;
use crate::source::kubernetes_api::{Kind, convert};

fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn objects(name: &str) -> Objects {
    let mut value = json!({"metadata": {"name": name}});
    let converted = convert(Kind::Namespaces, &node(), &mut value).unwrap();
    let kept = Kept::of(&converted).unwrap();
    [(converted.key, kept)].into()
}

fn open(dir: &Path, delay: Duration) -> (FileStore, Unstored) {
    let unstored = Unstored::default();
    let store = FileStore::start_with(file(dir), node(), unstored.clone(), delay);
    (store.unwrap(), unstored)
}

fn loaded(dir: &Path) -> Vec<String> {
    let (mut store, _) = open(dir, Duration::from_secs(9));
    let stored = store.load().unwrap().unwrap();
    stored.objects.iter().map(|it| it.key.to_string()).collect()
}

fn poll(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

#[test]
fn a_burst_is_one_write_and_what_is_pending_is_written_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path(), Duration::from_hours(1));
    assert!(store.load().unwrap().is_none());
    for name in ["one", "two", "three"] {
        store.keep(objects(name));
    }
    // It waits.
    assert!(!file(dir.path()).exists());
    drop(store);
    assert_eq!(loaded(dir.path()), ["namespace three"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_written_without_a_change() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), Duration::ZERO).0);
    assert!(!file(dir.path()).exists());
    let (mut store, _) = open(dir.path(), Duration::ZERO);
    store.keep(objects("one"));
    poll(|| file(dir.path()).exists());
    fs::remove_file(file(dir.path())).unwrap();
    drop(store);
    assert!(!file(dir.path()).exists(), "it was stored already");
}

#[test]
fn what_cannot_be_stored_is_said_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(file(dir.path())).unwrap();
    let (mut store, unstored) = open(dir.path(), Duration::from_millis(1));
    store.keep(objects("one"));
    poll(|| unstored.text().is_some());
    fs::remove_dir(file(dir.path())).unwrap();
    poll(|| unstored.text().is_none());
    assert_eq!(loaded(dir.path()), ["namespace one"]);
}

#[test]
fn what_cannot_be_used_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(file(dir.path()), "garbage\u{1b}\n").unwrap();
    let (mut store, _) = open(dir.path(), Duration::ZERO);
    let error = store.load().unwrap_err();
    assert!(error.contains("it is damaged; set aside as"), "{error}");
    assert!(!error.contains('\u{1b}'));
    let aside = file(dir.path()).with_extension("set-aside");
    assert!(aside.exists() && !file(dir.path()).exists());
    assert!(store.load().unwrap().is_none());
}
