//! What labels say, while namespaces come, change and go.

use super::*;
use crate::model::Labels;

fn name(text: &str) -> NamespaceName {
    NamespaceName::new(text).unwrap()
}

fn namespaces(all: &[(&str, &[(&str, &str)])]) -> Map<NamespaceName, Namespace> {
    let mut map = Map::new();
    for (text, labels) in all {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        map.insert(name(text), Namespace::new(name(text), labels).unwrap());
    }
    map
}

fn subject(dir: &Path) -> LabelModes {
    let floors = [
        ("enforce", "shop", None),
        ("lockdown", "none", Some("team=pay")),
    ];
    let floors = floors.map(|(mode, namespace, selector)| ModeFloor {
        mode: mode.parse().unwrap(),
        namespaces: [name(namespace)].into(),
        selector: selector.map(|it: &str| it.parse().unwrap()),
    });
    let kubernetes = Kubernetes {
        pod_ranges: crate::source::kubernetes_api::PodRanges::Off,
        kubeconfig: None,
        node_name: None,
        mode_labels: ModeLabels::Raise,
        mode_floors: floors.into(),
    };
    LabelModes::load(&Config {
        state_dir: dir.to_owned(),
        kubernetes: Some(kubernetes),
        ..Config::default()
    })
}

const NONE: OfLabels = OfLabels {
    label: None,
    floor: None,
};

fn label(mode: ModeName) -> OfLabels {
    OfLabels {
        label: Some(mode),
        ..NONE
    }
}

#[test]
fn a_bad_value_leaves_the_last_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut modes = subject(dir.path());
    let none = Map::new();
    let mut follow = |value: &str| {
        let with = namespaces(&[("web", &[(MODE_LABEL, value)])]);
        let errors = modes.follow(&with, &none, true);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        (modes.of(&name("web")), errors)
    };
    let (said, errors) = follow("strict");
    assert_eq!(said, NONE);
    let error = "kubernetes: namespace web: label ringfence.dev/mode: unknown mode \"strict\": expected \
                 observe, enforce or lockdown; it says nothing, and had no good value before";
    assert_eq!(errors, [error]);
    assert_eq!(follow("lockdown"), (label(ModeName::Lockdown), vec![]));
    let (said, errors) = follow("");
    assert_eq!(said, label(ModeName::Lockdown));
    assert!(
        errors[0].ends_with("its last good value lockdown holds"),
        "{errors:?}"
    );
    assert_eq!(follow("enforce"), (label(ModeName::Enforce), vec![]));
    let without = namespaces(&[("web", &[])]);
    assert!(modes.follow(&without, &none, true).is_empty());
    assert_eq!(modes.of(&name("web")), NONE);
}

#[test]
fn a_namespace_without_an_object_keeps_its_labels_modes_until_it_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut modes = subject(dir.path());
    let none = Map::new();
    let with = namespaces(&[("pay", &[(MODE_LABEL, "enforce"), ("team", "pay")])]);
    modes.follow(&with, &none, true);
    let both = OfLabels {
        floor: Some(ModeName::Lockdown),
        ..label(ModeName::Enforce)
    };
    assert_eq!(modes.of(&name("pay")), both);
    // Its object is gone, and a pod is left.
    let mut undeclared = Map::new();
    undeclared.insert(name("pay"), ());
    let bare = namespaces(&[("pay", &[])]);
    modes.follow(&bare, &undeclared, true);
    assert_eq!(modes.of(&name("pay")), both);
    // Not all namespaces are known.
    modes.follow(&Map::new(), &none, false);
    assert_eq!(modes.of(&name("pay")), both);
    modes.follow(&Map::new(), &none, true);
    assert_eq!(modes.of(&name("pay")), NONE, "it is gone");
    modes.follow(&bare, &none, true);
    assert_eq!(modes.of(&name("pay")), NONE, "another one of its name");
}

#[test]
fn a_floor_by_name_needs_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let mut modes = subject(dir.path());
    let floor = OfLabels {
        floor: Some(ModeName::Enforce),
        ..NONE
    };
    assert_eq!(modes.of(&name("shop")), floor);
    let bare = namespaces(&[("shop", &[])]);
    modes.follow(&bare, &Map::new(), true);
    assert_eq!(modes.of(&name("shop")), floor);
    assert!(modes.namespaces().any(|it| *it == name("shop")));
}

#[test]
fn the_next_start_knows_what_labels_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut modes = subject(dir.path());
    let with = namespaces(&[
        ("web", &[(MODE_LABEL, "lockdown")]),
        ("pay", &[("team", "pay")]),
    ]);
    modes.follow(&with, &Map::new(), true);
    modes.store().unwrap();
    let mut next = subject(dir.path());
    assert_eq!(next.of(&name("web")), label(ModeName::Lockdown));
    assert_eq!(next.of(&name("pay")).floor, Some(ModeName::Lockdown));
    // A value that is bad by then does not open anything.
    let bad = namespaces(&[("web", &[(MODE_LABEL, "open")])]);
    assert_eq!(next.follow(&bad, &Map::new(), true).len(), 1);
    assert_eq!(next.of(&name("web")), label(ModeName::Lockdown));
}

#[test]
fn a_damaged_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("label-modes.json");
    for text in ["{", "{\"web\": {\"label\": \"open\"}}", "{\"B A D\": {}}"] {
        fs::write(&path, text).unwrap();
        assert_eq!(subject(dir.path()).of(&name("web")), NONE);
        assert!(!path.exists());
        let aside = path.with_extension("set-aside");
        assert_eq!(fs::read_to_string(&aside).unwrap(), text);
    }
}

#[test]
fn labels_say_nothing_without_a_cluster_or_if_they_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let with = namespaces(&[
        ("web", &[(MODE_LABEL, "lockdown")]),
        ("bad", &[(MODE_LABEL, "x")]),
    ]);
    let mut off = subject(dir.path());
    off.meaning = ModeLabels::Off;
    let mut without = LabelModes::load(&Config::default());
    for modes in [&mut off, &mut without] {
        assert!(modes.follow(&with, &Map::new(), true).is_empty());
        assert_eq!(modes.of(&name("web")), NONE);
    }
    // The control.
    let mut on = subject(dir.path());
    assert_eq!(on.follow(&with, &Map::new(), true).len(), 1);
    assert_eq!(on.of(&name("web")), label(ModeName::Lockdown));
}
