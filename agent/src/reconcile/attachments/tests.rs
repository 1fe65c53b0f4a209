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
}

impl World {
    fn new(workloads: &[(&str, &str)], names: &[(&str, u32)]) -> Self {
        let mut world = Self {
            attachments: Attachments::default(),
            inventory: inventory(workloads),
            links: Links::default(),
        };
        world.set(links(names));
        world
    }

    fn set(&mut self, links: Links) {
        self.attachments.bind(&self.inventory, &links);
        self.links = links;
    }

    fn presence(&self, name: &str, fenced: &[u32]) -> Presence {
        let fenced = fenced.iter().copied().collect();
        let presences = self.attachments.presences(&self.links, &fenced);
        let named = |(id, _): &(&WorkloadId, &Presence)| id.to_string() == format!("shop/{name}");
        presences.iter().find(named).unwrap().1.clone()
    }

    /// The interfaces that get a fence, with the names of their workloads.
    fn suitable(&self) -> Vec<(u32, String)> {
        let suitable = self.attachments.suitable(&self.links);
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
