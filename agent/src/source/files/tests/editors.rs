//! Editors that move, delete or empty a file before they write it: nothing that the file says is lost
//! meanwhile, and what it says afterwards is in force at once.

use std::time::Duration;

use super::*;

fn setup() -> Setup {
    Setup::new(&[
        ("i/a.toml", SHOP),
        ("i/b.toml", &workload("b", "10.0.0.1")),
        ("p/a.toml", &policy("a", "")),
    ])
}

impl Setup {
    fn reload_at(&mut self, now: Instant) -> Reload {
        self.set.reload(now, BTreeSet::new)
    }

    /// A reload while a process is writing this file.
    fn reload_while_written(&mut self, name: &str, now: Instant) -> Reload {
        let metadata = fs::metadata(self.path(name)).unwrap();
        self.set.reload(now, || [FileId::of(&metadata)].into())
    }
}

/// The steps of an editor until the new content is there: each leaves no or less content.
const STEPS: [fn(&Setup, &str); 4] = [
    |setup, name| fs::rename(setup.path(name), setup.path("backup")).unwrap(),
    |setup, name| fs::remove_file(setup.path(name)).unwrap(),
    |setup, name| fs::write(setup.path(name), "").unwrap(),
    |setup, name| fs::write(setup.path(name), "# header\n").unwrap(),
];

#[test]
fn a_file_that_is_gone_or_empty_loses_its_content_only_after_a_moment() {
    for step in STEPS {
        let (mut setup, start) = (setup(), Instant::now());
        for name in ["p/a.toml", "i/b.toml"] {
            step(&setup, name);
        }
        let before = setup.reload_at(start);
        assert_eq!((before.errors, before.changed), (vec![], false));
        assert_eq!(before.next_change, Some(start + SETTLE));
        // Looking again does not delay it.
        let due = SETTLE - Duration::from_millis(1);
        assert!(!setup.reload_at(start + due).changed);
        assert_eq!(
            (setup.names(), setup.workloads()),
            (vec!["shop/a".to_owned()], vec!["shop/b".to_owned()])
        );
        let after = setup.reload_at(start + SETTLE);
        assert_eq!((after.errors, after.changed), (vec![], true));
        assert_eq!(after.next_change, None);
        assert!(setup.names().is_empty() && setup.workloads().is_empty());
    }
}

#[test]
fn a_replacement_is_in_force_at_once() {
    for step in STEPS {
        let (mut setup, start) = (setup(), Instant::now());
        step(&setup, "p/a.toml");
        setup.reload_at(start);
        fs::write(setup.path("p/a.toml"), policy("b", "")).unwrap();
        let reload = setup.reload_at(start);
        assert_eq!((reload.errors, reload.changed), (vec![], true));
        assert_eq!(reload.next_change, None);
        assert_eq!(setup.names(), ["shop/b"]);
        // The next deletion has its own time.
        fs::remove_file(setup.path("p/a.toml")).unwrap();
        let later = start + 2 * SETTLE;
        assert_eq!(setup.reload_at(later).next_change, Some(later + SETTLE));
        assert_eq!(setup.names(), ["shop/b"]);
    }
}

#[test]
fn the_same_content_again_changes_nothing() {
    let (mut setup, start) = (setup(), Instant::now());
    fs::remove_file(setup.path("p/a.toml")).unwrap();
    setup.reload_at(start);
    fs::write(setup.path("p/a.toml"), policy("a", "")).unwrap();
    let reload = setup.reload_at(start);
    assert!(!reload.changed && reload.next_change.is_none());
    assert!(!setup.reload_at(start + 2 * SETTLE).changed);
    assert_eq!(setup.names(), ["shop/a"]);
}

#[test]
fn a_file_under_another_name_replaces_the_one_that_is_gone_at_once() {
    let mut setup = setup();
    fs::rename(setup.path("p/a.toml"), setup.path("p/b.toml")).unwrap();
    fs::rename(setup.path("i/b.toml"), setup.path("i/c.toml")).unwrap();
    let reload = setup.set.reload_now();
    assert_eq!((reload.errors, reload.next_change), (vec![], None));
    assert_eq!(
        (setup.names(), setup.workloads()),
        (vec!["shop/a".to_owned()], vec!["shop/b".to_owned()])
    );
    let origin = setup.set.policies().iter().next().unwrap().origin.clone();
    assert!(origin.file.ends_with("p/b.toml"), "{origin}");
}

/// Half of a file may be valid, and say less.
#[test]
fn half_of_a_file_is_not_taken_while_it_is_being_written() {
    let (mut setup, start) = (setup(), Instant::now());
    let whole = format!("{}{}", policy("z", ""), policy("a", "ingress = []\n"));
    fs::write(setup.path("p/a.toml"), policy("z", "")).unwrap();
    let part = setup.reload_while_written("p/a.toml", start);
    assert_eq!((part.errors, part.changed), (vec![], false));
    assert_eq!(part.next_change, Some(start + SETTLE));
    fs::write(setup.path("p/a.toml"), "[[policy]]\nname = ").unwrap();
    let part = setup.reload_while_written("p/a.toml", start + SETTLE / 2);
    assert_eq!(
        (part.errors, part.changed),
        (vec![], false),
        "no error either"
    );
    fs::write(setup.path("p/a.toml"), &whole).unwrap();
    let reload = setup.reload_at(start + SETTLE / 2);
    assert_eq!((reload.errors, reload.changed), (vec![], true));
    assert_eq!(setup.names(), ["shop/a", "shop/z"]);
}

#[test]
fn a_writer_that_never_closes_its_file_does_not_hold_it_back_for_ever() {
    let (mut setup, start) = (setup(), Instant::now());
    fs::write(setup.path("p/a.toml"), policy("b", "")).unwrap();
    setup.reload_while_written("p/a.toml", start);
    assert!(
        setup
            .reload_while_written("p/a.toml", start + SETTLE)
            .changed
    );
    assert_eq!(setup.names(), ["shop/b"]);
}

/// The old file is gone, and the new one is there, but not written yet.
#[test]
fn a_file_that_is_being_written_is_not_removed() {
    let (mut setup, start) = (setup(), Instant::now());
    fs::remove_file(setup.path("p/a.toml")).unwrap();
    setup.reload_at(start);
    for part in 0..5_u32 {
        let text = "# header\n".repeat(part as usize);
        fs::write(setup.path("p/a.toml"), text).unwrap();
        setup.reload_while_written("p/a.toml", start + SETTLE * 9 / 10 * (part + 1));
        assert_eq!(setup.names(), ["shop/a"], "{part}");
    }
}

#[test]
fn a_new_file_is_taken_when_it_is_written() {
    let (mut setup, start) = (setup(), Instant::now());
    fs::write(setup.path("p/b.toml"), policy("b", "")).unwrap();
    let part = setup.reload_while_written("p/b.toml", start);
    assert!(!part.changed && part.locked.is_empty());
    assert!(setup.reload_at(start).changed);
    assert_eq!(setup.names(), ["shop/a", "shop/b"]);
}

/// For an agent, a disputed address is no conflict of files.
#[test]
fn an_address_of_a_file_that_is_gone_is_free_at_once() {
    let setup = setup();
    let paths = |kind: &str| vec![setup.path(kind)];
    let (mut set, _) =
        Files::load_lenient(paths("i"), paths("p"), DEFAULT_BUDGET, &Stored::default()).unwrap();
    fs::remove_file(setup.path("i/b.toml")).unwrap();
    fs::write(setup.path("i/c.toml"), workload("c", "10.0.0.1")).unwrap();
    let reload = set.reload_now();
    assert_eq!((reload.errors, reload.next_change), (vec![], None));
    let workloads = reload.inventory.workloads.keys().map(ToString::to_string);
    assert_eq!(workloads.collect::<Vec<_>>(), ["shop/c"]);
}
