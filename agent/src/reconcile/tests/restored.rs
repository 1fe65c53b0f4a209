//! Passes before every source has named its objects.

use super::*;
use ringfence_common::ids::IdentityId;

/// Only `a` of the inventory.
fn part() -> &'static str {
    INVENTORY
        .rsplit_once("[[workload]]")
        .map(|(part, _)| part)
        .unwrap()
}

/// A kernel in which an earlier agent fenced `a` and `b`, and the world with only `a`.
fn left(dir: &Path) -> (Fake, World) {
    let kernel = Fake::default();
    let mut world = World::new(OPEN);
    publish_and_retire(&mut reconciler(&kernel, dir), &world);
    kernel.0.borrow_mut().calls.clear();
    world.set_inventory(part());
    (kernel, world)
}

#[test]
fn nothing_that_an_earlier_agent_left_is_removed_before_every_source_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, world) = left(dir.path());
    let before = kernel.0.borrow().state.clone();
    let table = before.endpoints[&9].table;
    let mut subject = reconciler(&kernel, dir.path());
    let desired = Desired {
        is_complete: false,
        ..world.desired()
    };
    for _ in 0..4 {
        subject.publish(&desired).unwrap();
        kernel.0.borrow_mut().elapsed += GRACE;
        subject.retire().unwrap();
        let now = kernel.0.borrow().state.clone();
        let kept = Endpoint {
            mode_override: Mode::Lockdown as u8,
            ..before.endpoints[&9]
        };
        assert_eq!(now.endpoints[&9], kept, "its namespace is enforced");
        assert_eq!(now.tables.get(&table), before.tables.get(&table));
        assert!(before.tables.get(&table).is_some_and(|it| !it.is_empty()));
        assert!(kernel.0.borrow().attached.contains(&9));
        for address in ["10.1.0.2", "fd00::2"] {
            let address: IpAddr = address.parse().unwrap();
            let identity = now.addresses.get(&address);
            assert_eq!(identity, Some(&IdentityId::UNKNOWN), "{address}");
        }
        let fenced = kernel.0.borrow().calls.contains(&Call::Attach(7));
        assert!(fenced, "the control: what is known gets its fence");
    }
    // The control: once every source is complete, it goes.
    publish_and_retire(&mut subject, &world);
    let kernel = kernel.0.borrow();
    assert!(kernel.calls.contains(&Call::Detach(9)));
    assert!(!kernel.state.endpoints.contains_key(&9) && !kernel.attached.contains(&9));
    let address: IpAddr = "10.1.0.2".parse().unwrap();
    assert_eq!(kernel.state.addresses.get(&address), None);
}

#[test]
fn what_has_no_interface_any_more_goes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, mut world) = left(dir.path());
    world.interfaces.remove("rf-b");
    let mut subject = reconciler(&kernel, dir.path());
    let desired = Desired {
        is_complete: false,
        ..world.desired()
    };
    subject.publish(&desired).unwrap();
    let kernel = kernel.0.borrow();
    assert!(!kernel.state.endpoints.contains_key(&9) && !kernel.attached.contains(&9));
    assert!(kernel.state.endpoints.contains_key(&7), "the control");
}
