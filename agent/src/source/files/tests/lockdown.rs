//! Files of which no content was ever in force: which workloads they lock down, and until when.

use super::*;

/// A directory of policies and the result of its first load.
struct Start {
    directory: TempDir,
    set: Files,
    first: Reload,
}

impl Start {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let (set, first) = Files::load_lenient(
            vec![],
            vec![directory.path().to_owned()],
            DEFAULT_BUDGET,
            &Stored::default(),
        )
        .unwrap();
        Self {
            directory,
            set,
            first,
        }
    }

    fn shown(&self, reload: &Reload) -> (Vec<String>, Vec<String>) {
        let prefix = format!("{}/", self.directory.path().display());
        let plain = |text: String| text.replace(&prefix, "");
        (
            reload.locked.iter().map(|l| plain(l.to_string())).collect(),
            reload.errors.iter().map(|e| plain(e.to_string())).collect(),
        )
    }

    fn write(&mut self, name: &str, text: &str) -> Reload {
        fs::write(self.directory.path().join(name), text).unwrap();
        self.set.reload_now()
    }
}

const NONE: Vec<String> = Vec::new();

#[test]
fn a_bad_file_locks_down_its_subjects_until_it_is_fixed() {
    let bad = policy("a", "colour = 1\n");
    let mut start = Start::new(&[("a.toml", &bad), ("b.toml", &policy("b", ""))]);
    let (locked, errors) = start.shown(&start.first);
    assert_eq!(
        locked,
        ["locked down: a.toml:1 is refused and has no earlier content"]
    );
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(
        errors[0],
        "a.toml: refused, and it has no earlier content: its subjects are locked down where the \
         namespace is in enforce mode"
    );
    assert!(
        errors[1].starts_with("a.toml:5:1: policy shop/a: unknown field `colour`"),
        "{errors:?}"
    );
    assert_eq!(start.set.policies().len(), 1, "the other file is in force");
    // Another reload changes nothing.
    let again = start.set.reload_now();
    assert!(!again.changed);
    assert_eq!(start.shown(&again).0.len(), 1);
    // Fixed.
    let fixed = start.write("a.toml", &policy("a", ""));
    assert!(fixed.changed);
    assert_eq!(start.shown(&fixed), (NONE, NONE));
    // Broken again, with earlier content: that stays in force and no workload is locked down.
    let broken = start.write("a.toml", &bad);
    assert_eq!(start.shown(&broken).0, NONE);
    assert_eq!(broken.errors.len(), 1);
    assert_eq!(start.set.policies().len(), 2);
}

#[test]
fn a_removed_file_locks_down_no_workload() {
    let mut start = Start::new(&[("a.toml", &policy("a", "colour = 1\n"))]);
    assert_eq!(start.first.locked.len(), 1);
    fs::remove_file(start.directory.path().join("a.toml")).unwrap();
    let after = start.set.reload_now();
    assert!(after.changed);
    assert_eq!(start.shown(&after), (NONE, NONE));
}

#[test]
fn a_file_whose_subjects_cannot_be_read_locks_down_no_workload() {
    let start = Start::new(&[("a.toml", "]]"), ("b.yaml", "[")]);
    let (locked, errors) = start.shown(&start.first);
    assert_eq!(locked, NONE);
    for name in ["a.toml", "b.yaml"] {
        let expected = format!(
            "{name}: refused, and it has no earlier content: its subjects cannot be read, so no \
             workload is locked down"
        );
        assert!(errors.contains(&expected), "{errors:?}");
    }
}

#[test]
fn files_that_conflict_at_the_start_lock_down_the_subjects_of_both() {
    let start = Start::new(&[("a.toml", &policy("a", "")), ("b.toml", &policy("a", ""))]);
    let (locked, errors) = start.shown(&start.first);
    assert_eq!(locked.len(), 2, "{locked:?}");
    assert!(
        errors.iter().any(|e| e.contains("is already declared at")),
        "{errors:?}"
    );
}

#[test]
fn a_bad_inventory_or_a_missing_path_fails_the_first_load() {
    let directory = TempDir::new().unwrap();
    let (inventory, missing) = (directory.path().join("i.toml"), directory.path().join("m"));
    fs::write(&inventory, "x").unwrap();
    assert!(
        Files::load_lenient(
            vec![inventory.clone()],
            vec![],
            DEFAULT_BUDGET,
            &Stored::default()
        )
        .is_err()
    );
    fs::write(&inventory, SHOP).unwrap();
    assert!(
        Files::load_lenient(
            vec![inventory.clone()],
            vec![],
            DEFAULT_BUDGET,
            &Stored::default()
        )
        .is_ok()
    );
    assert!(
        Files::load_lenient(
            vec![inventory],
            vec![missing],
            DEFAULT_BUDGET,
            &Stored::default()
        )
        .is_err()
    );
}
