//! Who is attached where, for each way in which an interface can be missing or unsuitable.

use super::*;
use crate::source::{interfaces::Link, inventory_toml};

fn inventory(workloads: &[(&str, &str)]) -> Inventory {
    let mut text = "[[namespace]]\nname = \"shop\"\n".to_owned();
    for (number, (name, interface)) in workloads.iter().enumerate() {
        text.push_str(&format!(
            "[[workload]]\nname = \"{name}\"\nnamespace = \"shop\"\n\
             addresses = [\"10.1.0.{}\"]\ninterface = \"{interface}\"\n",
            number + 1
        ));
    }
    let fragment = inventory_toml::parse("inventory.toml", &text).unwrap();
    let plain = |declared: Vec<inventory_toml::Declared<_>>| {
        declared.into_iter().map(|it| it.item).collect()
    };
    let workloads = fragment.workloads.into_iter().map(|it| it.item).collect();
    Inventory::build(plain(fragment.namespaces), workloads, Vec::new()).unwrap()
}

fn links(names: &[(&str, u32)]) -> Links {
    Links::ethernet(
        names
            .iter()
            .map(|(name, index)| ((*name).to_owned(), *index)),
    )
}

struct World {
    attachments: Attachments,
    inventory: Inventory,
    links: Links,
    records: BTreeMap<u32, Endpoint>,
    degraded: BTreeMap<u32, Degraded>,
    failures: BTreeMap<u32, String>,
}

impl World {
    fn new(workloads: &[(&str, &str)], names: &[(&str, u32)]) -> Self {
        let mut world = Self {
            attachments: Attachments::default(),
            inventory: inventory(workloads),
            links: Links::default(),
            records: BTreeMap::new(),
            degraded: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        world.set(links(names));
        world
    }

    fn set(&mut self, links: Links) {
        self.attachments
            .bind(&self.inventory, &links, &self.records);
        self.links = links;
    }

    fn presence(&self, name: &str, fenced: &[u32]) -> Presence {
        let attached = fenced.iter().copied().collect();
        let fences = Fences {
            attached: &attached,
            degraded: &self.degraded,
            failures: &self.failures,
        };
        let presences = self.attachments.presences(&self.links, &fences);
        let named = |(id, _): &(&WorkloadId, &Presence)| id.to_string() == format!("shop/{name}");
        presences.iter().find(named).unwrap().1.clone()
    }

    /// The interfaces that get a fence, with the names of their workloads.
    fn suitable(&self) -> Vec<(u32, String)> {
        let suitable = self.attachments.suitable(&self.links, &self.records);
        suitable
            .map(|(index, id)| (index, id.name.to_string()))
            .collect()
    }
}

#[test]
fn every_workload_with_an_interface_is_accounted_for() {
    let world = World::new(
        &[("a", "rf-a"), ("b", "rf-b"), ("c", "rf-c")],
        &[("rf-a", 7), ("rf-b", 8)],
    );
    assert_eq!(world.presence("a", &[7]).unfenced, None);
    assert_eq!(
        world.presence("b", &[7]).unfenced,
        Some(Unfenced::NotAttached)
    );
    assert_eq!(world.presence("c", &[7]).unfenced, Some(Unfenced::Missing));
    assert_eq!(world.presence("c", &[7]).interface, "rf-c");
    assert_eq!(world.suitable(), [(7, "a".to_owned()), (8, "b".to_owned())]);
}

#[test]
fn a_presence_says_why_a_fence_is_not_attached_or_degraded() {
    let mut world = World::new(&[("a", "rf-a"), ("b", "rf-b")], &[("rf-a", 7), ("rf-b", 8)]);
    let unverified = Degraded::Unverified("EPERM".to_owned());
    world.degraded.insert(7, unverified.clone());
    world.failures.insert(8, "EEXIST".to_owned());
    let (a, b) = (world.presence("a", &[7]), world.presence("b", &[7]));
    assert_eq!((a.why_unfenced(), a.degraded), (None, Some(unverified)));
    let why = "the fence is not attached: EEXIST".to_owned();
    assert_eq!((b.why_unfenced(), b.degraded.clone()), (Some(why), None));
    assert!(!b.is_in_order() && world.presence("b", &[8]).is_in_order());
    assert!(!world.presence("a", &[7]).is_in_order());
}

#[test]
fn an_unsuitable_interface_gets_no_fence() {
    let mut world = World::new(&[("a", "rf-a"), ("b", "rf-b")], &[("rf-a", 7), ("rf-b", 8)]);
    assert_eq!(world.suitable().len(), 2, "the control");
    let bridge = Link {
        name: "rf-a".into(),
        hardware: 1,
        kind: "bridge".into(),
        ..Link::default()
    };
    let veth = Link {
        name: "rf-b".into(),
        hardware: 1,
        ..Link::default()
    };
    world.set(Links::new([(7, bridge), (8, veth)].into()));
    assert_eq!(world.suitable(), [(8, "b".to_owned())]);
    let refused = Some(Unfenced::Unsuitable(Unsuitable::Bridge));
    assert_eq!(world.presence("a", &[8]).unfenced, refused);
    assert_eq!(world.presence("b", &[8]).unfenced, None);
}

#[test]
fn a_default_route_takes_no_fence_off() {
    let mut world = World::new(&[("a", "rf-a"), ("b", "rf-b")], &[("rf-a", 7), ("rf-b", 8)]);
    let mut links = world.links.clone();
    links.lead_out("rf-a");
    links.lead_out("rf-b");
    world.records = [(7, Endpoint::default())].into();
    world.set(links);
    assert_eq!(world.suitable(), [(7, "a".to_owned())], "it has a fence");
    assert_eq!(world.presence("a", &[7]).unfenced, None);
    let refused = Some(Unfenced::Unsuitable(Unsuitable::Uplink));
    assert_eq!(world.presence("b", &[7]).unfenced, refused, "a new one");
    // What a workload cannot cause does take it off.
    let mut links = world.links.clone();
    links.set_kind("rf-a", "bridge");
    world.set(links);
    assert_eq!(world.suitable(), []);
}

#[test]
fn a_renamed_interface_stays_with_its_workload() {
    let mut world = World::new(&[("a", "rf-a"), ("b", "rf-b")], &[("rf-a", 7), ("rf-b", 8)]);
    world.set(links(&[("other", 7), ("rf-b", 8)]));
    assert_eq!(world.suitable(), [(7, "a".to_owned()), (8, "b".to_owned())]);
    assert_eq!(world.presence("a", &[7, 8]).unfenced, None);
    // A new one of the old name belongs to the workload as well.
    world.set(links(&[("other", 7), ("rf-b", 8), ("rf-a", 9)]));
    let both = [
        (7, "a".to_owned()),
        (8, "b".to_owned()),
        (9, "a".to_owned()),
    ];
    assert_eq!(world.suitable(), both);
    assert_eq!(
        world.presence("a", &[7]).unfenced,
        Some(Unfenced::NotAttached)
    );
    assert_eq!(
        world.presence("a", &[9]).unfenced,
        Some(Unfenced::NotAttached)
    );
    assert_eq!(world.presence("a", &[7, 9]).unfenced, None);
    // A name that another workload has is that workload's.
    world.set(links(&[("rf-b", 7)]));
    assert_eq!(world.suitable(), [(7, "b".to_owned())]);
    // An inventory that names another interface, or no longer has the workload, ends it.
    world.set(links(&[("other", 7)]));
    assert_eq!(world.suitable().len(), 1, "the control");
    world.inventory = inventory(&[("b", "rf-c")]);
    world.set(links(&[("other", 7)]));
    assert_eq!(world.suitable(), []);
}

#[test]
fn an_alternative_name_is_a_name() {
    let mut world = World::new(&[("a", "rf-a")], &[("veth1", 7)]);
    assert_eq!(world.suitable(), [], "the control");
    let link = Link {
        name: "veth1".into(),
        altnames: vec!["rf-a".into()],
        hardware: 1,
        ..Link::default()
    };
    world.set(Links::new([(7, link)].into()));
    assert_eq!(world.suitable(), [(7, "a".to_owned())]);
}

#[test]
fn an_interface_that_left_is_told_from_one_that_is_missing() {
    let mut world = World::new(&[("a", "rf-a"), ("b", "rf-b")], &[("rf-a", 7), ("rf-b", 8)]);
    let mut links = world.links.clone();
    links.leave("rf-a");
    links.remove("rf-b");
    world.set(links.clone());
    assert_eq!(world.suitable(), []);
    assert_eq!(world.presence("a", &[]).unfenced, Some(Unfenced::Left));
    assert_eq!(world.presence("b", &[]).unfenced, Some(Unfenced::Missing));
    world.set(links.clone());
    assert_eq!(
        world.presence("a", &[]).unfenced,
        Some(Unfenced::Left),
        "it lasts"
    );
    links.insert("rf-a".into(), 9);
    world.set(links.clone());
    assert_eq!(world.presence("a", &[9]).unfenced, None);
    links.remove("rf-a");
    world.set(links);
    assert_eq!(world.presence("a", &[]).unfenced, Some(Unfenced::Missing));
}

#[test]
fn a_list_may_lack_an_interface_before_the_notice_that_it_left() {
    let mut world = World::new(&[("a", "rf-a")], &[("rf-a", 7)]);
    let mut missing = world.links.clone();
    missing.remove("rf-a");
    let mut left = world.links.clone();
    left.leave("rf-a");
    world.set(missing.clone());
    assert_eq!(world.presence("a", &[]).unfenced, Some(Unfenced::Missing));
    world.set(left);
    assert_eq!(world.presence("a", &[]).unfenced, Some(Unfenced::Left));
    world.set(missing);
    assert_eq!(
        world.presence("a", &[]).unfenced,
        Some(Unfenced::Left),
        "only so many notices are remembered"
    );
}

#[test]
fn an_interface_renamed_before_the_start_is_known_by_its_record() {
    let record = |workload: &str| {
        let all = inventory(&[("a", "rf-a"), ("b", "rf-b")]);
        let mut workloads = all.workloads.values();
        let (ip4, ip6) = own_addresses(
            &all,
            workloads
                .find(|it| it.id.name.as_str() == workload)
                .unwrap(),
        );
        Endpoint {
            ip4,
            ip6,
            ..Endpoint::default()
        }
    };
    let start = |names: &[(&str, u32)], records: &[(u32, Endpoint)]| {
        let mut world = World::new(&[("a", "rf-a"), ("b", "rf-b")], &[]);
        world.attachments = Attachments::default();
        world.records = records.iter().copied().collect();
        world.set(links(names));
        world
    };
    let mut world = start(
        &[("other", 7), ("rf-b", 8)],
        &[(7, record("a")), (8, record("b"))],
    );
    assert_eq!(world.suitable(), [(7, "a".to_owned()), (8, "b".to_owned())]);
    // It was a guess: what has the name is the workload's.
    world.set(links(&[("other", 7), ("rf-b", 8), ("rf-a", 9)]));
    assert_eq!(world.suitable(), [(8, "b".to_owned()), (9, "a".to_owned())]);

    let unknown = start(&[("other", 7)], &[(7, Endpoint::default())]);
    assert_eq!(unknown.suitable(), [], "no workload has these addresses");
    let named = start(&[("stale", 7), ("rf-a", 9)], &[(7, record("a"))]);
    assert_eq!(
        named.suitable(),
        [(9, "a".to_owned())],
        "its interface is there"
    );
    let gone = start(&[], &[(7, record("a"))]);
    assert_eq!(gone.suitable(), []);
    let mut late = start(&[], &[]);
    late.records = [(7, record("a"))].into();
    late.set(links(&[("other", 7)]));
    assert_eq!(late.suitable(), [], "records of the start only");
}
