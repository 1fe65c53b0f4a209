//! One interface or endpoint that the kernel refuses: the others are fenced all the same.

use super::*;
use crate::model::NamespaceName;

#[test]
fn an_interface_that_cannot_be_attached_does_not_leave_others_open() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let world = World::new(CLOSED);
    kernel.0.borrow_mut().unattachable = Some(7);
    let mut subject = reconciler(&kernel, dir.path());
    // Nor does it hold the policy back.
    let published = subject.publish(&world.desired()).unwrap();
    assert_eq!(published.fenced, BTreeSet::from([9]));
    assert_eq!(kernel.0.borrow().attached, BTreeSet::from([9]));
    let presences = subject.presences(&world.interfaces);
    let why: Vec<_> = presences.values().map(Presence::why_unfenced).collect();
    let refused = "the fence is not attached: map links: cannot attach: injected";
    assert_eq!(why, [Some(refused.to_owned()), None]);
    assert!(!subject.retry_failed(&world.interfaces));
    kernel.0.borrow_mut().unattachable = None;
    assert!(subject.retry_failed(&world.interfaces));
    assert_eq!(kernel.0.borrow().attached, BTreeSet::from([7, 9]));
    let presences = subject.presences(&world.interfaces);
    assert!(presences.values().all(Presence::is_in_order));
}

#[test]
fn an_endpoint_that_cannot_be_written_does_not_leave_others_open() {
    for (mode, attached) in [(Mode::Enforce, vec![7, 9]), (Mode::Observe, vec![9])] {
        let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let mut world = World::new(CLOSED);
        let shop = NamespaceName::new("shop").unwrap();
        world.modes.namespaces.insert(shop, mode);
        kernel.0.borrow_mut().unwritable = Some(7);
        let mut subject = reconciler(&kernel, dir.path());
        for _ in 0..2 {
            assert!(subject.publish(&world.desired()).is_err());
            let kernel = kernel.0.borrow();
            assert_eq!(
                kernel.state.endpoints.keys().collect::<Vec<_>>(),
                [&9],
                "the control: one without a record"
            );
            let fenced = Vec::from_iter(kernel.attached.iter().copied());
            assert_eq!(fenced, attached, "{mode:?}: the node's default drops");
        }
        kernel.0.borrow_mut().unwritable = None;
        subject.publish(&world.desired()).unwrap();
        assert_eq!(kernel.0.borrow().attached, BTreeSet::from([7, 9]));
        assert_eq!(kernel.0.borrow().state.endpoints.len(), 2);
    }
}

#[test]
fn an_interface_that_went_away_in_the_meantime_is_no_failure() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let world = World::new(CLOSED);
    kernel.0.borrow_mut().gone = Some(7);
    let mut subject = reconciler(&kernel, dir.path());
    let published = subject.publish(&world.desired()).unwrap();
    assert_eq!(published.fenced, BTreeSet::from([9]));
    let presences = subject.presences(&world.interfaces);
    let unfenced: Vec<_> = presences.values().map(|it| it.unfenced).collect();
    assert_eq!(unfenced, [Some(Unfenced::NotAttached), None]);
    assert!(presences.values().all(|it| it.error.is_none()));
}

#[test]
fn an_interface_that_becomes_unsuitable_loses_its_fence() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    subject.publish(&world.desired()).unwrap();
    assert_eq!(
        kernel.0.borrow().attached,
        BTreeSet::from([7, 9]),
        "the control"
    );
    world.interfaces.set_kind("rf-a", "bridge");
    subject.publish(&world.desired()).unwrap();
    assert_eq!(kernel.0.borrow().attached, BTreeSet::from([9]));
}

#[test]
fn a_renamed_interface_keeps_its_fence() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    subject.publish(&world.desired()).unwrap();
    world.interfaces.remove("rf-a");
    world.interfaces.insert("other".into(), 7);
    subject.publish(&world.desired()).unwrap();
    assert_eq!(kernel.0.borrow().attached, BTreeSet::from([7, 9]));
    assert!(!kernel.0.borrow().calls.contains(&Call::Detach(7)));
    // After a restart, it is known by its record.
    let mut restarted = reconciler(&kernel, dir.path());
    restarted.publish(&world.desired()).unwrap();
    assert_eq!(kernel.0.borrow().attached, BTreeSet::from([7, 9]));
    assert!(!kernel.0.borrow().calls.contains(&Call::Detach(7)));
}
