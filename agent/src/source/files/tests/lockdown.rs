//! Files of which nothing was ever in force: whom they lock down, and until when.

use super::*;

/// A directory of policies, its first load, and a way to load again.
struct Start {
    directory: TempDir,
    set: FileSet,
    first: Reload,
}

impl Start {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let (set, first) =
            FileSet::load_what_is_good(vec![], vec![directory.path().to_owned()]).unwrap();
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
        self.set.reload()
    }
}

const NONE: Vec<String> = Vec::new();

#[test]
fn a_bad_file_locks_down_whom_it_is_about_until_it_is_mended() {
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
        "a.toml: refused, and it has no earlier content: whom it is about is locked down where \
         the namespace enforces"
    );
    assert!(
        errors[1].starts_with("a.toml:5:1: policy shop/a: unknown field `colour`"),
        "{errors:?}"
    );
    assert_eq!(start.set.policies().len(), 1, "the other file is in force");
    // Again and still: nothing new.
    let again = start.set.reload();
    assert!(!again.changed);
    assert_eq!(start.shown(&again).0.len(), 1);
    // Mended.
    let mended = start.write("a.toml", &policy("a", ""));
    assert!(mended.changed);
    assert_eq!(start.shown(&mended), (NONE, NONE));
    // Broken again, it has earlier content: that stays, and nobody is locked down.
    let broken = start.write("a.toml", &bad);
    assert_eq!(start.shown(&broken).0, NONE);
    assert_eq!(broken.errors.len(), 1);
    assert_eq!(start.set.policies().len(), 2);
}

#[test]
fn a_removed_file_locks_nobody_down() {
    let mut start = Start::new(&[("a.toml", &policy("a", "colour = 1\n"))]);
    assert_eq!(start.first.locked.len(), 1);
    fs::remove_file(start.directory.path().join("a.toml")).unwrap();
    let after = start.set.reload();
    assert!(after.changed);
    assert_eq!(start.shown(&after), (NONE, NONE));
}

#[test]
fn a_file_that_says_nothing_readable_locks_nobody_down() {
    let start = Start::new(&[("a.toml", "]]"), ("b.yaml", "[")]);
    let (locked, errors) = start.shown(&start.first);
    assert_eq!(locked, NONE);
    for name in ["a.toml", "b.yaml"] {
        let expected = format!(
            "{name}: refused, and it has no earlier content: whom it is about cannot be read, so \
             nobody is locked down"
        );
        assert!(errors.contains(&expected), "{errors:?}");
    }
}

#[test]
fn files_in_conflict_at_the_start_lock_down_both_subjects() {
    let start = Start::new(&[("a.toml", &policy("a", "")), ("b.toml", &policy("a", ""))]);
    let (locked, errors) = start.shown(&start.first);
    assert_eq!(locked.len(), 2, "{locked:?}");
    assert!(
        errors.iter().any(|e| e.contains("is already declared at")),
        "{errors:?}"
    );
}

#[test]
fn a_bad_inventory_or_a_missing_path_still_ends_the_start() {
    let directory = TempDir::new().unwrap();
    let (inventory, missing) = (directory.path().join("i.toml"), directory.path().join("m"));
    fs::write(&inventory, "x").unwrap();
    assert!(FileSet::load_what_is_good(vec![inventory.clone()], vec![]).is_err());
    fs::write(&inventory, SHOP).unwrap();
    assert!(FileSet::load_what_is_good(vec![inventory.clone()], vec![]).is_ok());
    assert!(FileSet::load_what_is_good(vec![inventory], vec![missing]).is_err());
}
