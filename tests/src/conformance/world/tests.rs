//! Addresses, and what steps do to the world.

use std::collections::HashSet;

use super::*;
use crate::conformance::case::{Delta, Step};

fn case(verbs: &[&Verb]) -> Case {
    let step = |verb: &&Verb| Step {
        verb: (*verb).clone(),
        expect: std::sync::Arc::from([]),
    };
    Case {
        name: "c".to_owned(),
        delta: Delta::default(),
        steps: verbs.iter().map(step).collect(),
    }
}

fn name(text: &str) -> WorkloadName {
    text.parse().unwrap()
}

fn ip4(world: &World, end: &str) -> String {
    let address = world.address(&end.parse().unwrap(), Family::V4);
    address.map_or("none".to_owned(), |it| it.to_string())
}

fn add(workload: &str, delta: WorkloadDelta) -> Verb {
    Verb::Add(BTreeMap::from([(name(workload), delta)]))
}

#[test]
fn everyone_has_addresses_of_its_own() {
    let world = World::new(&case(&[]), Ends::FOR_READING).unwrap();
    let mut seen = HashSet::new();
    for end in world.all_ends() {
        for family in Family::ALL {
            assert!(seen.insert(world.address(&end, family).unwrap()), "{end}");
        }
    }
    assert_eq!(seen.len(), 22);
}

#[test]
fn addresses_are_known_before_and_after() {
    let adding = add("y/d", WorkloadDelta::default());
    let removing = Verb::Remove(vec![name("y/d")]);
    let mut world = World::new(&case(&[&adding]), Ends::FOR_READING).unwrap();
    let before = ip4(&world, "y/d");
    assert_ne!(before, "none");
    assert!(!world.workloads.contains_key(&name("y/d")));
    for verb in [&adding, &removing, &adding] {
        world.follow(verb).unwrap();
        assert_eq!(ip4(&world, "y/d"), before);
    }
    assert!(world.follow(&adding).is_err(), "it is there");
}

#[test]
fn a_moved_address_belongs_to_its_heir() {
    let mut world = World::new(&case(&[]), Ends::FOR_READING).unwrap();
    let (a, b) = (ip4(&world, "x/a"), ip4(&world, "y/b"));
    world
        .follow(&Verb::MoveAddress(name("x/a"), name("y/b")))
        .unwrap();
    assert_eq!(ip4(&world, "y/b"), a);
    assert!(!world.workloads.contains_key(&name("x/a")));
    assert_eq!(world.workloads[&name("y/b")].labels["pod"], "b");
    // Coming back it must not take what is another's now.
    world.follow(&add("x/a", WorkloadDelta::default())).unwrap();
    assert!(ip4(&world, "x/a") != a && ip4(&world, "x/a") != b);
}

#[test]
fn an_address_has_one_owner() {
    let mut world = World::new(&case(&[]), Ends::FOR_READING).unwrap();
    let fixed = WorkloadDelta {
        ip4: Some(Ipv4Addr::new(198, 18, 0, 1)),
        ..WorkloadDelta::default()
    };
    world.follow(&add("x/d", fixed.clone())).unwrap();
    assert!(world.follow(&add("x/e", fixed)).is_err());
}

#[test]
fn labels_and_modes_change() {
    let mut world = World::new(&case(&[]), Ends::FOR_READING).unwrap();
    let start = world.clone();
    let labels = Changes::from([
        ("pod".to_owned(), None),
        ("app".to_owned(), Some("web".to_owned())),
    ]);
    let change = Verb::LabelWorkload(name("x/a"), labels.clone());
    world.follow(&change).unwrap();
    let expected = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    assert_eq!(world.workloads[&name("x/a")].labels, expected);
    let change = Verb::LabelNamespace("x".to_owned(), labels);
    world.follow(&change).unwrap();
    assert_eq!(world.namespaces["x"].labels["app"], "web");
    let modes = BTreeMap::from([("y".to_owned(), Mode::Observe)]);
    world.follow(&Verb::Mode(modes)).unwrap();
    assert_eq!(world.mode_of(&name("y/a")), Mode::Observe);
    assert_eq!(world.mode_of(&name("x/a")), Mode::Enforce);
    assert_eq!(world.enforcing().mode_of(&name("y/a")), Mode::Enforce);
    assert_ne!(world, start);
}
