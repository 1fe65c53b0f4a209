//! Addresses, and how steps change the cluster.

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

fn ip4(cluster: &Cluster, end: &str) -> String {
    let address = cluster.address(&end.parse().unwrap(), Family::V4);
    address.map_or("none".to_owned(), |it| it.to_string())
}

fn add(workload: &str, delta: WorkloadDelta) -> Verb {
    Verb::Add(BTreeMap::from([(name(workload), delta)]))
}

#[test]
fn every_end_has_unique_addresses() {
    let cluster = Cluster::new(&case(&[]), HostAddresses::PLACEHOLDER).unwrap();
    let mut seen = HashSet::new();
    for end in cluster.all_ends() {
        for family in Family::ALL {
            assert!(seen.insert(cluster.address(&end, family).unwrap()), "{end}");
        }
    }
    assert_eq!(seen.len(), 22);
}

#[test]
fn a_workload_keeps_its_address_before_and_after_it_exists() {
    let adding = add("y/d", WorkloadDelta::default());
    let removing = Verb::Remove(vec![name("y/d")]);
    let mut cluster = Cluster::new(&case(&[&adding]), HostAddresses::PLACEHOLDER).unwrap();
    let before = ip4(&cluster, "y/d");
    assert_ne!(before, "none");
    assert!(!cluster.workloads.contains_key(&name("y/d")));
    for verb in [&adding, &removing, &adding] {
        cluster.apply(verb).unwrap();
        assert_eq!(ip4(&cluster, "y/d"), before);
    }
    assert!(cluster.apply(&adding).is_err(), "y/d already exists");
}

#[test]
fn a_moved_address_belongs_to_its_new_owner() {
    let mut cluster = Cluster::new(&case(&[]), HostAddresses::PLACEHOLDER).unwrap();
    let (a, b) = (ip4(&cluster, "x/a"), ip4(&cluster, "y/b"));
    cluster
        .apply(&Verb::MoveAddress(name("x/a"), name("y/b")))
        .unwrap();
    assert_eq!(ip4(&cluster, "y/b"), a);
    assert!(!cluster.workloads.contains_key(&name("x/a")));
    assert_eq!(cluster.workloads[&name("y/b")].labels["pod"], "b");
    // When added again, it must not get an address that now belongs to another workload.
    cluster
        .apply(&add("x/a", WorkloadDelta::default()))
        .unwrap();
    assert!(ip4(&cluster, "x/a") != a && ip4(&cluster, "x/a") != b);
}

#[test]
fn an_address_has_one_owner() {
    let mut cluster = Cluster::new(&case(&[]), HostAddresses::PLACEHOLDER).unwrap();
    let fixed = WorkloadDelta {
        ip4: Some(Ipv4Addr::new(198, 18, 0, 1)),
        ..WorkloadDelta::default()
    };
    cluster.apply(&add("x/d", fixed.clone())).unwrap();
    assert!(cluster.apply(&add("x/e", fixed)).is_err());
}

#[test]
fn labels_and_modes_change() {
    let mut cluster = Cluster::new(&case(&[]), HostAddresses::PLACEHOLDER).unwrap();
    let start = cluster.clone();
    let labels = Changes::from([
        ("pod".to_owned(), None),
        ("app".to_owned(), Some("web".to_owned())),
    ]);
    let change = Verb::LabelWorkload(name("x/a"), labels.clone());
    cluster.apply(&change).unwrap();
    let expected = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    assert_eq!(cluster.workloads[&name("x/a")].labels, expected);
    let change = Verb::LabelNamespace("x".to_owned(), labels);
    cluster.apply(&change).unwrap();
    assert_eq!(cluster.namespaces["x"].labels["app"], "web");
    let modes = BTreeMap::from([("y".to_owned(), Mode::Observe)]);
    cluster.apply(&Verb::Mode(modes)).unwrap();
    assert_eq!(cluster.mode_of(&name("y/a")), Mode::Observe);
    assert_eq!(cluster.mode_of(&name("x/a")), Mode::Enforce);
    assert_eq!(cluster.enforcing().mode_of(&name("y/a")), Mode::Enforce);
    assert_ne!(cluster, start);
}
