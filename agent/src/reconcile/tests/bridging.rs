//! Which fences are attached at once.

use super::*;

/// The interfaces attached at once, and all in the order in which they were attached.
fn attached(world: &World, interfaces: &[(&str, &str)]) -> (Vec<u32>, Vec<u32>) {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut subject = reconciler(&kernel, dir.path());
    let mut seen = Links::ethernet(interfaces.iter().map(|(name, _)| ((*name).to_owned(), 77)));
    for (name, kind) in interfaces {
        seen.set_kind(name, kind);
    }
    let before = Desired {
        interfaces: &seen,
        ..world.desired()
    };
    subject.publish(&before).unwrap();
    subject.publish(&world.desired()).unwrap();
    let kernel = kernel.0.borrow();
    let all = kernel.calls.iter().filter_map(|call| match call {
        Call::Attach(ifindex) => Some(*ifindex),
        _ => None,
    });
    (kernel.at_once.clone(), all.collect())
}

#[test]
fn only_fences_that_drop_are_attached_at_once_and_before_others() {
    let mut world = World::new(OPEN);
    assert_eq!(attached(&world, &[]), (vec![7, 9], vec![7, 9]));
    world.modes.default = Mode::Observe;
    assert_eq!(attached(&world, &[]), (vec![], vec![7, 9]));
    world.set_inventory(&format!(
        "{INVENTORY}[[namespace]]\nname = \"bank\"\n[[workload]]\nname = \"c\"\n\
         namespace = \"bank\"\naddresses = [\"10.1.0.3\"]\ninterface = \"eth0\"\n\
         [[workload]]\nname = \"d\"\nnamespace = \"bank\"\naddresses = [\"10.1.0.4\"]\n\
         interface = \"rf-d\"\n"
    ));
    let links = [("rf-a", 7), ("rf-b", 9), ("eth0", 2), ("rf-d", 11)];
    world.interfaces = Links::ethernet(links.map(|(name, index)| (name.to_owned(), index)));
    let bank = "bank".parse().unwrap();
    world.modes.namespaces.insert(bank, Mode::Lockdown);
    assert_eq!(attached(&world, &[]), (vec![2, 11], vec![2, 11, 7, 9]));
}

#[test]
fn none_is_attached_at_once_after_a_device_of_the_plugin_bandwidth_was_seen() {
    let world = World::new(OPEN);
    let seen = |name, kind| attached(&world, &[(name, kind)]).0.len();
    assert_eq!(seen("bwp0a1b2c3d4e5f", "ifb"), 0);
    assert_eq!(seen("bwp0a1b2c3d4e5f", "veth"), 2, "the control");
    assert_eq!(seen("ifb0", "ifb"), 2, "the control");
}
