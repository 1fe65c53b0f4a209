//! States that do not fit the kernel's maps, or only in part.

use super::*;

#[test]
fn a_state_that_does_not_fit_changes_nothing_and_new_endpoints_are_closed() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    world.interfaces.remove("rf-b");
    let mut subject = reconciler(&kernel, dir.path());
    publish_and_retire(&mut subject, &world);
    let before = kernel.0.borrow().state.clone();
    kernel.0.borrow_mut().capacities = Some(Capacities {
        policy: 3,
        ..Capacities::default()
    });
    world.set_policies(OPEN);
    world.interfaces.insert("rf-b".into(), 9);
    let error = subject.publish(&world.desired()).unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    let kernel = kernel.0.borrow();
    assert_eq!(kernel.state.tables, before.tables);
    assert_eq!(kernel.state.endpoints.get(&7), before.endpoints.get(&7));
    assert_eq!(
        kernel.state.endpoints[&9].table,
        TableId::NONE,
        "no rows: nothing passes"
    );
    assert!(kernel.attached.contains(&9));
}

#[test]
fn a_state_that_did_not_fit_takes_no_room_from_the_next() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    publish_and_retire(&mut subject, &world);
    let rows = kernel.0.borrow().state.rows();
    kernel.0.borrow_mut().capacities = Some(Capacities {
        policy: rows,
        ..Capacities::default()
    });
    world.set_inventory(&INVENTORY.replace("app = \"a\"", "app = \"c\""));
    world.set_policies(OPEN);
    let published = subject.publish(&world.desired()).unwrap();
    assert_eq!(published.without_room.len(), 1, "the control");
    world.set_policies(CLOSED);
    let published = subject.publish(&world.desired()).unwrap();
    assert_eq!(published.without_room, []);
}

#[test]
fn policies_without_room_keep_no_others_from_being_in_force() {
    const OTHER: &str = "[[namespace]]\nname = \"lab\"\n[[workload]]\nname = \"c\"\n\
                         namespace = \"lab\"\nlabels = { app = \"c\" }\n\
                         addresses = [\"10.1.0.3\"]\ninterface = \"eth0\"\n";
    let greedy: Vec<String> = (1..200)
        .step_by(2)
        .map(|port| format!("\"tcp/{port}\""))
        .collect();
    let greedy = format!(
        "[[policy]]\nname = \"greedy\"\nnamespace = \"lab\"\nsubject = \"\"\n\
         [[policy.ingress]]\nports = [{}]\n",
        greedy.join(", ")
    );
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    kernel.0.borrow_mut().capacities = Some(Capacities {
        policy: 75,
        ..Capacities::default()
    });
    let mut world = World::new(CLOSED);
    world.set_inventory(&format!("{INVENTORY}{OTHER}"));
    world.set_policies(&format!("{CLOSED}{greedy}"));
    let mut subject = reconciler(&kernel, dir.path());
    let published = subject.publish(&world.desired()).unwrap();
    let shown = |published: &Published| -> Vec<(String, bool)> {
        let it = published.without_room.iter();
        it.map(|it| (it.policy.id().to_string(), it.has_earlier))
            .collect()
    };
    assert_eq!(shown(&published), [("lab/greedy".to_owned(), false)]);
    let override_of = |ifindex| kernel.0.borrow().state.endpoints[&ifindex].mode_override;
    assert_eq!(
        [override_of(2), override_of(7)],
        [Mode::Lockdown as u8, 0],
        "only its own subjects are locked down"
    );
    // The policies of others change meanwhile.
    world.set_policies(&format!("{OPEN}{greedy}"));
    let published = subject.publish(&world.desired()).unwrap();
    assert!(published.writes > 0, "the new policy of shop is in force");
    assert_eq!(shown(&published).len(), 1);
    kernel.0.borrow_mut().capacities = None;
    let published = subject.publish(&world.desired()).unwrap();
    assert_eq!(shown(&published), []);
    assert_eq!(override_of(2), 0);
}

/// A Service for `a` at each of these ports.
fn with_service(world: &mut World, ports: u16) {
    use crate::model::{Backend, Service, ServiceId, ServiceName, ServicePort};
    let id = ServiceId {
        namespace: "lab".parse().unwrap(),
        name: ServiceName::new("many").unwrap(),
    };
    let backend = Backend {
        address: "10.1.0.1".parse().unwrap(),
        port: 80,
    };
    // Every other one, so that no two share a row.
    let ports = (0..ports).map(|port| {
        let port = ServicePort {
            protocol: 6,
            port: 1000 + 2 * port,
        };
        (port, [backend].into())
    });
    let service = Service {
        id: id.clone(),
        addresses: vec!["10.96.0.1".parse().unwrap()],
        ports: ports.collect(),
    };
    let mut inventory = Inventory::clone(&world.inventory);
    inventory.services.insert(id, Arc::new(service));
    world.inventory = Arc::new(inventory);
}

#[test]
fn services_without_room_keep_no_policy_from_being_in_force() {
    const EGRESS: &str = "[[policy]]\nname = \"out\"\nnamespace = \"shop\"\nsubject = \"\"\n\
                          [[policy.egress]]\nto = [{ pods = \"app=a\" }]\n";
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(EGRESS);
    let mut subject = reconciler(&kernel, dir.path());
    publish_and_retire(&mut subject, &world);
    let without = kernel.0.borrow().state.rows();
    with_service(&mut world, 60);
    let published = subject.publish(&world.desired()).unwrap();
    assert!(published.services_without_room.is_empty(), "the control");
    let with = kernel.0.borrow().state.rows();
    assert!(
        with >= without + 60,
        "{with} rows, {without} without the Service"
    );

    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    kernel.0.borrow_mut().capacities = Some(Capacities {
        policy: without + 40,
        ..Capacities::default()
    });
    let mut subject = reconciler(&kernel, dir.path());
    let published = subject.publish(&world.desired()).unwrap();
    let left_out: Vec<&str> = published
        .services_without_room
        .iter()
        .map(NamespaceName::as_str)
        .collect();
    assert_eq!(left_out, ["lab"]);
    assert!(published.without_room.is_empty() && published.writes > 0);
    let address: IpAddr = "10.96.0.1".parse().unwrap();
    let state = &kernel.0.borrow().state;
    let identity = *state.addresses.get(&address).unwrap();
    assert_ne!(identity, ringfence_common::ids::IdentityId::WORLD);
    let service = published.compiled.identities.get(&identity);
    assert!(service.is_some_and(|it| {
        it.service()
            .is_some_and(std::collections::BTreeMap::is_empty)
    }));
}
