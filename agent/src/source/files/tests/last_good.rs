//! A start with what earlier runs knew of the files.

use super::*;
use crate::source::last_good::{FileKey, Kind, Record, record_name};

/// Files, and what is remembered of them from run to run.
struct Runs {
    directory: TempDir,
    stored: Stored,
    budget: Needs,
}

impl Runs {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        for kind in ["i", "p"] {
            fs::create_dir(directory.path().join(kind)).unwrap();
        }
        let runs = Self {
            directory,
            stored: Stored::default(),
            budget: DEFAULT_BUDGET,
        };
        for (name, text) in files {
            runs.write(name, text);
        }
        runs
    }

    fn key(&self, name: &str) -> FileKey {
        let kind = if name.starts_with('i') {
            Kind::Inventory
        } else {
            Kind::Policies
        };
        (kind, self.directory.path().join(name))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.directory.path().join(name)).unwrap();
    }

    fn load(&self) -> Result<(Files, Reload), Vec<SourceError>> {
        let paths = |kind: &str| vec![self.directory.path().join(kind)];
        Files::load_lenient(paths("i"), paths("p"), self.budget, &self.stored)
    }

    /// Starts, and remembers what a run says.
    fn start(&mut self) -> (Files, Reload) {
        let (set, reload) = self.load().unwrap();
        self.remember(&reload);
        (set, reload)
    }

    fn remember(&mut self, reload: &Reload) {
        for (key, record) in reload.changes.clone() {
            match record {
                Some(record) => self.stored.records.insert(key, record),
                None => self.stored.records.remove(&key),
            };
        }
        self.stored.is_complete = true;
    }
}

fn names(reload: &Reload) -> Vec<String> {
    reload
        .policies
        .policies
        .keys()
        .map(ToString::to_string)
        .collect()
}

const BAD: &str = "colour = 1\n";

fn counts(last_good: u64, no_effect: u64, locked_down: u64) -> Refused {
    Refused {
        last_good,
        no_effect,
        locked_down,
    }
}

#[test]
fn a_bad_file_at_a_start_falls_back_to_its_last_good_content() {
    let web = workload("web", "10.0.0.1");
    let mut runs = Runs::new(&[
        ("i/a.toml", SHOP),
        ("i/b.toml", &web),
        ("p/a.toml", &policy("a", "")),
        ("p/b.toml", &policy("b", "")),
    ]);
    let (_, first) = runs.start();
    assert_eq!(
        (first.changes.len(), first.refused),
        (4, Refused::default())
    );
    for _ in 0..2 {
        runs.write("i/b.toml", "x");
        runs.write("p/a.toml", &policy("a", BAD));
        let (_, reload) = runs.start();
        assert_eq!(names(&reload), ["shop/a", "shop/b"]);
        assert_eq!(reload.inventory.workloads.len(), 1);
        assert_eq!(reload.errors.len(), 2, "{:?}", reload.errors);
        assert!(reload.locked.is_empty() && reload.changes.is_empty());
        assert_eq!(reload.refused, counts(2, 0, 0));
    }
    // Fixed while no agent runs.
    runs.write("i/b.toml", &web);
    runs.write("p/a.toml", &policy("c", ""));
    let (_, reload) = runs.start();
    assert_eq!(
        (names(&reload), reload.errors.len()),
        (vec!["shop/b".into(), "shop/c".into()], 0)
    );
    assert_eq!(reload.changes.len(), 1);
}

#[test]
fn a_file_that_never_was_good_changes_nothing_at_run_time_and_at_a_start() {
    let mut runs = Runs::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    let (mut set, _) = runs.start();
    runs.write("p/b.toml", &policy("b", BAD));
    runs.write("i/b.toml", "x");
    let monday = set.reload_now();
    runs.remember(&monday);
    let (_, thursday) = runs.start();
    for reload in [monday, thursday] {
        assert!(reload.locked.is_empty());
        assert_eq!(
            (names(&reload), reload.refused),
            (vec!["shop/a".to_owned()], counts(0, 2, 0))
        );
        let shouted = |error: &&SourceError| error.message.contains("never was good");
        assert_eq!(reload.errors.iter().filter(shouted).count(), 2);
    }
    // The same for one that appears while no agent runs.
    runs.write("p/c.toml", &policy("c", BAD));
    let (_, reload) = runs.start();
    assert!(reload.locked.is_empty());
    assert_eq!(reload.refused, counts(0, 3, 0));
}

#[test]
fn a_lockdown_of_the_first_start_lasts_until_the_file_is_fixed() {
    let mut runs = Runs::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", BAD))]);
    for _ in 0..3 {
        let (mut set, reload) = runs.start();
        assert_eq!((reload.locked.len(), reload.refused), (1, counts(0, 0, 1)));
        assert_eq!(set.reload_now().locked.len(), 1);
    }
    runs.write("p/a.toml", &policy("a", ""));
    let (_, fixed) = runs.start();
    assert!(fixed.locked.is_empty());
    runs.write("p/a.toml", &policy("a", BAD));
    let (_, reload) = runs.start();
    assert_eq!(
        (names(&reload), reload.locked.len()),
        (vec!["shop/a".to_owned()], 0)
    );
}

#[test]
fn lost_knowledge_of_a_bad_file_is_a_lockdown() {
    let mut runs = Runs::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    runs.start();
    runs.write("p/a.toml", &policy("a", BAD));
    let (kind, path) = runs.key("p/a.toml");
    let whole = runs.stored.clone();
    // The record cannot be used.
    runs.stored.records.remove(&(kind, path.clone()));
    runs.stored.lost.insert(record_name(kind, &path));
    assert_eq!(runs.load().unwrap().1.locked.len(), 1);
    // It is there, and this agent does not understand its content.
    runs.stored = whole.clone();
    let unread = Record::Good(b"]]".to_vec());
    runs.stored.records.insert((kind, path.clone()), unread);
    assert_eq!(runs.load().unwrap().1.locked.len(), 1);
    // It could not be written.
    runs.stored = whole;
    runs.stored.records.remove(&(kind, path));
    runs.stored.is_complete = false;
    assert_eq!(runs.load().unwrap().1.locked.len(), 1);
    // The control: then it never was good.
    runs.stored.is_complete = true;
    assert!(runs.load().unwrap().1.locked.is_empty());
}

#[test]
fn a_bad_inventory_without_last_good_content_ends_a_start_only_if_it_may_have_been_good() {
    let mut runs = Runs::new(&[("i/a.toml", SHOP), ("i/b.toml", "x")]);
    assert!(runs.load().is_err());
    runs.stored.is_complete = true;
    let (_, reload) = runs.load().unwrap();
    assert_eq!(
        (reload.inventory.namespaces.len(), reload.refused),
        (1, counts(0, 1, 0))
    );
}

#[test]
fn a_configured_path_that_is_missing_at_a_start_has_its_last_good_content() {
    let mut runs = Runs::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    runs.start();
    fs::rename(
        runs.directory.path().join("p"),
        runs.directory.path().join("q"),
    )
    .unwrap();
    let (_, reload) = runs.start();
    assert_eq!(
        (names(&reload), reload.errors.len()),
        (vec!["shop/a".to_owned()], 1)
    );
    assert!(reload.changes.is_empty());
    runs.stored = Stored::default();
    assert!(runs.load().is_err(), "the control");
}

#[test]
fn a_file_that_was_deleted_while_no_agent_ran_is_forgotten() {
    let mut runs = Runs::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    runs.start();
    runs.remove("p/a.toml");
    let (mut set, reload) = runs.start();
    assert_eq!(names(&reload), ["shop/a"], "as at run time, after a moment");
    let reload = set.reload_later();
    assert!(names(&reload).is_empty());
    assert_eq!(reload.changes, [(runs.key("p/a.toml"), None)]);
    runs.remember(&reload);
    // Another file of that name never was good.
    runs.write("p/a.toml", &policy("a", BAD));
    assert!(set.reload_now().locked.is_empty());
    assert!(runs.start().1.locked.is_empty());
}

/// A policy moved from one file to another, and only one of the records was written.
#[test]
fn records_that_contradict_each_other_do_no_harm() {
    let mut runs = Runs::new(&[
        ("i/a.toml", SHOP),
        ("p/a.toml", &policy("a", "")),
        ("p/b.toml", &policy("b", "")),
    ]);
    runs.start();
    let key = runs.key("p/b.toml");
    let record = Record::Good(policy("a", "").into_bytes());
    runs.stored.records.insert(key, record);
    let (_, reload) = runs.start();
    assert_eq!(
        (names(&reload), reload.errors.len()),
        (vec!["shop/a".into(), "shop/b".into()], 0)
    );
}

#[test]
fn what_the_budget_leaves_in_force_is_the_same_after_a_restart() {
    let rules = |name: &str, count: usize| policy(name, &"[[policy.ingress]]\n".repeat(count));
    let in_force = |reload: &Reload| -> Vec<(String, u64)> {
        let policies = reload.policies.policies.iter();
        let rules = policies.map(|(id, policy)| (id.to_string(), Needs::of(policy).rules));
        rules.collect()
    };
    let both = |m: u64, a: u64| {
        let all = [("shop/a".to_owned(), a), ("shop/m".to_owned(), m)];
        all.into_iter()
            .filter(|(_, count)| *count > 0)
            .collect::<Vec<_>>()
    };
    let mut runs = Runs::new(&[("i/a.toml", SHOP), ("p/m.toml", &rules("m", 2))]);
    runs.budget.rules = 3;
    let (mut set, first) = runs.start();
    assert_eq!((in_force(&first), first.errors.len()), (both(2, 0), 0));
    // One that grows, and a new one that comes first by name.
    runs.write("p/m.toml", &rules("m", 4));
    runs.write("p/a.toml", &rules("a", 2));
    let before = set.reload_now();
    runs.remember(&before);
    for after in [before, runs.start().1, runs.start().1] {
        assert_eq!(in_force(&after), both(2, 0));
        assert_eq!((after.errors.len(), after.locked.len()), (2, 1));
        assert!(after.locked[0].origin.file.ends_with("p/a.toml"));
    }
    // Both break while no agent runs.
    for name in ["m", "a"] {
        runs.write(&format!("p/{name}.toml"), &policy(name, BAD));
    }
    let (mut set, broken) = runs.start();
    assert_eq!(
        (in_force(&broken), broken.refused),
        (both(2, 0), counts(1, 0, 1))
    );
    assert_eq!(broken.locked.len(), 1);
    // What is within the budget again is remembered.
    runs.write("p/m.toml", &rules("m", 1));
    runs.write("p/a.toml", &rules("a", 2));
    let within = set.reload_now();
    assert_eq!((in_force(&within), within.errors.len()), (both(1, 2), 0));
    runs.remember(&within);
    let good = |it: &Record| matches!(it, Record::Good(_));
    assert_eq!(
        runs.stored.records.values().filter(|it| good(it)).count(),
        3
    );
}
