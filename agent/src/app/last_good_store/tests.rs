//! Records survive, damage is noticed wherever it is, and a full disk is not taken for success.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::source::last_good::Past;

fn key(name: &str) -> FileKey {
    (Kind::Policies, PathBuf::from(format!("/etc/p/{name}")))
}

fn good(text: &str) -> Option<Record> {
    Some(Record::Good(text.as_bytes().to_vec()))
}

fn written(changes: &[(&str, Option<Record>)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    write_all(dir.path(), changes);
    dir
}

fn write_all(dir: &Path, changes: &[(&str, Option<Record>)]) {
    let changes = changes
        .iter()
        .map(|(name, record)| (key(name), record.clone()));
    let (failed, error) = write(dir, changes.collect());
    assert!(failed.is_empty() && error.is_none(), "{error:?}");
}

fn file(dir: &TempDir, name: &str) -> PathBuf {
    let (kind, path) = key(name);
    dir.path().join(record_name(kind, &path))
}

#[test]
fn records_are_read_as_they_were_written() {
    let dir = written(&[
        ("a", good("one\ntwo")),
        ("b", Some(Record::NeverGood)),
        ("c", Some(Record::LockedDown)),
        ("d", good("")),
    ]);
    write_all(
        dir.path(),
        &[("d", None), ("a", good("three")), ("e", None)],
    );
    let found = read(dir.path());
    let records = [
        (key("a"), Record::Good(b"three".to_vec())),
        (key("b"), Record::NeverGood),
        (key("c"), Record::LockedDown),
    ];
    let stored = Stored {
        is_complete: true,
        records: records.into(),
        lost: [].into(),
    };
    assert_eq!(found.stored, stored);
    assert!(found.unusable.is_empty());
    assert!(remove(dir.path()).unwrap() && !remove(dir.path()).unwrap());
    assert_eq!(read(dir.path()).stored, Stored::default());
}

#[test]
fn a_damaged_record_is_lost_and_not_absent() {
    let dir = written(&[("a", good("text")), ("b", good("other"))]);
    let path = file(&dir, "a");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        for bytes in [&changed[..], &whole[..at]] {
            fs::write(&path, bytes).unwrap();
            let found = read(dir.path());
            assert_eq!(found.stored.records.len(), 1, "byte {at}");
            assert_eq!(found.stored.lost.len(), 1);
            assert_eq!(found.unusable[0].0, path);
        }
    }
    let aside = set_aside(&path).unwrap();
    assert!(aside.exists());
    let found = read(dir.path());
    assert!(found.unusable.is_empty() && found.stored.lost.is_empty());
    // If the agent is killed now, its file is not one that never was good.
    assert!(!found.stored.is_complete);
    let past = |name| found.stored.past(Kind::Policies, &key(name).1);
    assert_eq!([past("a"), past("new")], [Past::Unknown; 2]);
}

#[test]
fn a_record_of_a_newer_format_is_named() {
    let dir = written(&[("a", good("text"))]);
    let path = file(&dir, "a");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen(" 1 ", " 2 ", 1)).unwrap();
    let found = read(dir.path());
    assert_eq!(found.unusable, [(path, Unusable::Newer(2))]);
    assert_eq!(found.stored.lost.len(), 1);
}

#[test]
fn a_record_of_another_file_is_not_used() {
    let dir = written(&[("a", good("text"))]);
    fs::rename(file(&dir, "a"), file(&dir, "b")).unwrap();
    let found = read(dir.path());
    assert!(found.stored.records.is_empty());
    assert_eq!(found.unusable[0].1, Unusable::Damaged);
}

#[test]
fn what_could_not_be_written_is_said_and_the_store_is_not_complete() {
    let dir = written(&[("a", good("before"))]);
    symlink("/dev/full", file(&dir, "a").with_extension("new")).unwrap();
    let changes = vec![(key("a"), good("after")), (key("b"), good("b"))];
    let (failed, error) = write(dir.path(), changes);
    assert_eq!(failed, [(key("a"), good("after"))]);
    assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
    let found = read(dir.path());
    assert!(!found.stored.is_complete);
    // What it was before is not the last good content: it may allow what was revoked since.
    assert_eq!(found.stored.records.get(&key("a")), None);
    // There is room again.
    let (failed, error) = write(dir.path(), failed);
    assert!(failed.is_empty() && error.is_none());
    let found = read(dir.path());
    assert!(found.stored.is_complete);
    assert_eq!(
        found.stored.records[&key("a")],
        Record::Good(b"after".to_vec())
    );
}

#[test]
fn records_are_bounded() {
    let dir = TempDir::new().unwrap();
    let large = "x".repeat(usize::try_from(MAX_RECORD).unwrap());
    let (failed, error) = write(dir.path(), vec![(key("a"), good(&large))]);
    assert_eq!(
        (failed.len(), error.unwrap().kind()),
        (1, io::ErrorKind::FileTooLarge)
    );
    // Nor is it read.
    fs::write(file(&dir, "a"), large + "x").unwrap();
    assert_eq!(read(dir.path()).unusable[0].1, Unusable::TooMuch);
}

#[test]
fn all_records_together_are_bounded() {
    let dir = written(&[("a", good("text"))]);
    let one = fs::metadata(file(&dir, "a")).unwrap().len();
    let (records, total) = (10, one * 5 / 2);
    let put = |names: &[&str], limits| {
        let changes = names.iter().map(|name| (key(name), good("next")));
        let (failed, _) = write_within(dir.path(), changes.collect(), limits);
        failed.len()
    };
    assert_eq!(put(&["b", "a", "c"], Limits { records, total }), 1);
    assert!(!read(dir.path()).stored.is_complete);
    let total = 100 * one;
    assert_eq!(put(&["c"], Limits { records: 2, total }), 1);
    assert_eq!(put(&["b"], Limits { records: 2, total }), 0);
    assert!(read(dir.path()).stored.is_complete);
}
