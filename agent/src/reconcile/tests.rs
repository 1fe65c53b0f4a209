//! Reconcile with an in-memory kernel that fails on demand.

mod bridging;
mod disk_full;
mod fake;
mod no_room;
mod number_life;
mod partial_failure;
mod restored;
mod verify;

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use fake::{Call, Fake};

use ringfence_common::SECOND;

use super::*;
use crate::{
    plan::Capacities,
    source::{inventory_toml, policy_toml},
};
use ringfence_common::mode::Mode;

const INVENTORY: &str = r#"
    [[namespace]]
    name = "shop"
    [[workload]]
    name = "a"
    namespace = "shop"
    labels = { app = "a" }
    addresses = ["10.1.0.1"]
    interface = "rf-a"
    [[workload]]
    name = "b"
    namespace = "shop"
    labels = { app = "b" }
    addresses = ["10.1.0.2", "fd00::2"]
    interface = "rf-b"
"#;

const CLOSED: &str =
    "[[policy]]\nname = \"p\"\nnamespace = \"shop\"\nsubject = \"\"\ningress = []\n";
const OPEN: &str = "[[policy]]\nname = \"p\"\nnamespace = \"shop\"\nsubject = \"\"\n\
                    [[policy.ingress]]\nfrom = [{ pods = \"app=a\" }]\nports = [\"tcp/80\"]\n";

struct World {
    inventory: Arc<Inventory>,
    policies: Arc<PolicySet>,
    interfaces: Links,
    modes: Modes,
}

fn plain<T>(declared: Vec<inventory_toml::Declared<T>>) -> Vec<T> {
    declared.into_iter().map(|declared| declared.item).collect()
}

impl World {
    fn new(policies: &str) -> Self {
        let mut world = Self {
            inventory: Arc::default(),
            policies: Arc::default(),
            interfaces: Links::ethernet([
                ("rf-a".into(), 7),
                ("rf-b".into(), 9),
                ("eth0".into(), 2),
            ]),
            modes: Modes {
                default: Mode::Enforce,
                namespaces: BTreeMap::new(),
            },
        };
        world.set_inventory(INVENTORY);
        world.set_policies(policies);
        world
    }

    fn set_inventory(&mut self, inventory: &str) {
        let fragment = inventory_toml::parse("inventory.toml", inventory).unwrap();
        let inventory = Inventory::build(
            plain(fragment.namespaces),
            plain(fragment.workloads),
            plain(fragment.nodes),
        );
        self.inventory = Arc::new(inventory.unwrap());
    }

    fn set_policies(&mut self, policies: &str) {
        let fragment = policy_toml::parse("policies.toml", policies).unwrap();
        self.policies = Arc::new(PolicySet::build(fragment.policies).unwrap());
    }

    fn desired(&self) -> Desired<'_> {
        Desired {
            inventory: &self.inventory,
            policies: &self.policies,
            interfaces: &self.interfaces,
            modes: &self.modes,
            locked: &[],
            is_complete: true,
            now: WallTime(0),
        }
    }
}

fn reconciler(kernel: &Fake, dir: &Path) -> Reconciler<Fake> {
    Reconciler::adopt(kernel.clone(), Ledger::in_dir(dir)).unwrap()
}

/// Makes passes until nothing is left to retire, as the event loop does.
fn publish_and_retire(reconciler: &mut Reconciler<Fake>, world: &World) {
    for _ in 0..5 {
        let published = reconciler.publish(&world.desired()).unwrap();
        if published.retire_due.is_none() {
            return;
        }
        reconciler.datapath().0.borrow_mut().elapsed += GRACE;
        reconciler.retire().unwrap();
    }
    panic!("rows are left to retire after 5 passes");
}

/// What a plan brings about: neither the owners, which a kernel does not hold, nor the windows.
fn planned(state: &State) -> State {
    State {
        owners: State::default().owners,
        pickups: BTreeMap::new(),
        ..state.clone()
    }
}

#[test]
fn an_endpoint_is_fenced_after_its_policy_is_written() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let world = World::new(CLOSED);
    let published = reconciler(&kernel, dir.path())
        .publish(&world.desired())
        .unwrap();
    assert_eq!(
        published.fenced,
        BTreeSet::from([7, 9]),
        "no workload has eth0"
    );
    let kernel = kernel.0.borrow();
    let last = |test: fn(&Call) -> bool| kernel.calls.iter().rposition(test).unwrap();
    let last_write = last(|call| matches!(call, Call::Write(_)));
    let first_attach = kernel
        .calls
        .iter()
        .position(|s| matches!(s, Call::Attach(_)))
        .unwrap();
    assert!(last_write < first_attach);
    assert_eq!(planned(&kernel.state), planned(&published.compiled.state));
}

#[test]
fn an_interface_has_a_pickup_window_once_and_only_from_before_the_first_start() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let without = world.interfaces.remove("rf-b");
    let until = |kernel: &Fake, ifindex: u32| {
        let state = &kernel.0.borrow().state;
        state.endpoints.get(&ifindex).map(|it| it.pickup_until)
    };
    let mut subject = reconciler(&kernel, dir.path());
    subject.publish(&world.desired()).unwrap();
    let window = until(&kernel, 7).unwrap();
    assert!(window > 1_000, "it stood before the first start");
    // A new pod.
    world.interfaces.insert("rf-b".into(), 90);
    subject.publish(&world.desired()).unwrap();
    assert_eq!(until(&kernel, 90), Some(0));
    // Its endpoint goes and comes back, over a restart.
    let gone = world.interfaces.remove("rf-a").unwrap();
    subject.publish(&world.desired()).unwrap();
    assert_eq!(until(&kernel, gone), None);
    drop(subject);
    kernel.0.borrow_mut().elapsed += 5_000 * SECOND;
    let mut subject = reconciler(&kernel, dir.path());
    world.interfaces.insert("rf-a".into(), gone);
    world.interfaces.insert("rf-b".into(), without.unwrap());
    subject.publish(&world.desired()).unwrap();
    assert_eq!(until(&kernel, gone), Some(window), "once");
}

#[test]
fn a_later_pass_does_not_extend_the_pickup_window() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    let pickup_until = |kernel: &Fake| kernel.0.borrow().state.endpoints[&9].pickup_until;
    subject.publish(&world.desired()).unwrap();
    let first = pickup_until(&kernel);
    kernel.0.borrow_mut().elapsed += 1_000 * SECOND;
    world.set_policies(OPEN);
    subject.publish(&world.desired()).unwrap();
    assert_eq!(pickup_until(&kernel), first);
}

#[test]
fn the_next_pass_completes_a_pass_that_failed_at_any_write() {
    let mut points = 0;
    loop {
        let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let mut world = World::new(CLOSED);
        let mut subject = reconciler(&kernel, dir.path());
        publish_and_retire(&mut subject, &world);
        world.set_policies(OPEN);
        kernel.0.borrow_mut().writes_left = Some(points);
        let failed = subject.publish(&world.desired()).is_err();
        kernel.0.borrow_mut().writes_left = None;
        publish_and_retire(&mut subject, &world);
        let fresh = Fake::default();
        let elsewhere = tempfile::tempdir().unwrap();
        let mut other = reconciler(&fresh, elsewhere.path());
        // Another kernel has other numbers, so only the number of rows is compared; this kernel
        // must hold exactly what its own reconciler compiles.
        publish_and_retire(&mut other, &world);
        let wanted = subject.publish(&world.desired()).unwrap();
        assert_eq!(wanted.writes, 0, "after a failure at write {points}");
        let mut held = kernel.0.borrow().state.clone();
        // An array keeps the classes of former identities.
        let classes = held.classes.iter().map(|(id, class)| (*id, *class));
        let used = classes.filter(|(id, _)| wanted.compiled.identities.contains_key(id));
        held.classes = used.collect();
        assert_eq!(planned(&held), planned(&wanted.compiled.state));
        assert_eq!(
            kernel.0.borrow().state.rows(),
            fresh.0.borrow().state.rows()
        );
        if !failed {
            break;
        }
        points += 1;
    }
    assert!(points > 5, "only {points} failures were tried");
}

#[test]
fn epochs_missed_by_a_failed_pass_start_in_the_next() {
    let mut failures = 0;
    for writes_left in 0.. {
        let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let mut world = World::new(OPEN);
        let mut subject = reconciler(&kernel, dir.path());
        publish_and_retire(&mut subject, &world);
        world.set_inventory(&INVENTORY.replace("app = \"b\"", "app = \"c\""));
        kernel.0.borrow_mut().calls.clear();
        kernel.0.borrow_mut().writes_left = Some(writes_left);
        let failed = subject.publish(&world.desired()).is_err();
        kernel.0.borrow_mut().writes_left = None;
        subject.publish(&world.desired()).unwrap();
        let kernel = kernel.0.borrow();
        for moved in ["10.1.0.2", "fd00::2"] {
            let moved: IpAddr = moved.parse().unwrap();
            let written = kernel.calls.iter().rposition(
                |call| matches!(call, Call::Write(Action::PutAddress(at, _)) if *at == moved),
            );
            let bumped = kernel.calls.iter().rposition(|call| {
                matches!(call, Call::Write(Action::BumpAllEpochs))
                    || *call == Call::Write(Action::BumpEpoch(moved))
            });
            assert!(
                written.is_some() && written < bumped,
                "{moved}, {writes_left}"
            );
        }
        if !failed {
            break;
        }
        failures += 1;
    }
    assert!(failures > 4, "only {failures} failures were tried");
}

#[test]
fn a_pass_that_fails_leaves_the_fence_of_another_layout_as_it_is() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    // A fence whose endpoint is not in these maps.
    kernel.0.borrow_mut().attached.insert(7);
    kernel.0.borrow_mut().capacities = Some(Capacities {
        policy: 3,
        ..Capacities::default()
    });
    let mut subject = reconciler(&kernel, dir.path());
    assert!(subject.publish(&World::new(OPEN).desired()).is_err());
    let calls = kernel.0.borrow().calls.clone();
    let attached = |ifindex| calls.contains(&Call::Attach(ifindex));
    assert!(attached(9), "the control: a new endpoint is closed");
    assert!(!attached(7) && !calls.contains(&Call::Detach(7)));
    kernel.0.borrow_mut().capacities = None;
    subject.publish(&World::new(OPEN).desired()).unwrap();
    assert!(kernel.0.borrow().calls.contains(&Call::Attach(7)));
}

#[test]
fn a_restart_with_the_same_state_writes_nothing() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let world = World::new(OPEN);
    publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
    let before = kernel.0.borrow().state.clone();
    let published = reconciler(&kernel, dir.path())
        .publish(&world.desired())
        .unwrap();
    assert_eq!(published.writes, 0);
    assert_eq!(kernel.0.borrow().state, before);
}

#[test]
fn a_lost_ledger_leads_to_new_numbers_and_reuses_none() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let world = World::new(OPEN);
    publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
    let before = kernel.0.borrow().state.clone();
    let fresh = tempfile::tempdir().unwrap();
    let published = reconciler(&kernel, fresh.path())
        .publish(&world.desired())
        .unwrap();
    for table in published.compiled.endpoints.values().map(|e| e.table) {
        assert!(
            !before.tables.contains_key(&table),
            "{table:?} is in use already"
        );
    }
    let used: BTreeSet<_> = before.addresses.values().collect();
    for identity in published.compiled.state.addresses.values() {
        assert!(!used.contains(identity), "{identity:?} is in use already");
    }
}

/// Otherwise a class allocated right after a restart would have the rows of a class that ended
/// while no agent ran.
#[test]
fn a_number_that_old_rows_use_is_not_reused_after_a_restart() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let without_a = INVENTORY.replace("app = \"a\"", "app = \"x\"");
    let with_c = INVENTORY.replace("app = \"a\"", "app = \"c\"");
    let rule = |app: &str, port: u16| {
        format!(
            "[[policy.ingress]]\nfrom = [{{ pods = \"app={app}\" }}]\nports = [\"tcp/{port}\"]\n"
        )
    };
    let subject = "[[policy]]\nname = \"p\"\nnamespace = \"shop\"\nsubject = \"app=b\"\n";
    let mut world = World::new(&format!("{subject}{}{}", rule("a", 22), rule("c", 80)));
    publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
    let mut restarted = reconciler(&kernel, dir.path());
    for inventory in [without_a, with_c] {
        world.set_inventory(&inventory);
        let wanted = restarted.publish(&world.desired()).unwrap().compiled.state;
        let kernel = kernel.0.borrow();
        let live: BTreeSet<_> = wanted.classes.values().collect();
        for (table, rows) in &wanted.tables {
            let held = kernel.state.tables[table].iter();
            for (key, row) in held.filter(|((_, key), _)| live.contains(&key.class)) {
                assert_eq!(rows.get(key), Some(row), "{key:?}");
            }
        }
    }
}

#[test]
fn old_rows_remain_until_they_are_retired() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    publish_and_retire(&mut subject, &world);
    let old = kernel.0.borrow().state.endpoints[&7].table;
    world.set_policies(OPEN);
    let published = subject.publish(&world.desired()).unwrap();
    assert!(published.retire_due.is_some());
    assert_ne!(kernel.0.borrow().state.endpoints[&7].table, old);
    assert!(
        kernel.0.borrow().state.tables.contains_key(&old),
        "a packet may still be reading it"
    );
    publish_and_retire(&mut subject, &world);
    assert!(!kernel.0.borrow().state.tables.contains_key(&old));
}

#[test]
fn frequent_changes_do_not_accumulate_unretired_tables() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    let mut most = 0;
    for change in 0..200 {
        kernel.0.borrow_mut().elapsed += GRACE / 10;
        subject.retire().unwrap();
        let port = format!("tcp/{}", 9000 + change);
        world.set_policies(&OPEN.replace("tcp/80", &port));
        subject.publish(&world.desired()).unwrap();
        most = most.max(kernel.0.borrow().state.tables.len());
    }
    assert!((10..60).contains(&most), "{most} tables at a time");
}

#[test]
fn rows_that_a_failed_pass_uses_again_are_not_retired() {
    let mut switched = 0;
    for point in 0.. {
        let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let mut world = World::new(CLOSED);
        let mut subject = reconciler(&kernel, dir.path());
        publish_and_retire(&mut subject, &world);
        let closed = kernel.0.borrow().state.endpoints[&7].table;
        world.set_policies(OPEN);
        // The first pass may keep the old table for packets in flight.
        subject.publish(&world.desired()).unwrap();
        subject.publish(&world.desired()).unwrap();
        world.set_policies(CLOSED);
        kernel.0.borrow_mut().writes_left = Some(point);
        if subject.publish(&world.desired()).is_ok() {
            break;
        }
        kernel.0.borrow_mut().elapsed += 3 * GRACE;
        subject.retire().unwrap();
        let kernel = kernel.0.borrow();
        for endpoint in kernel.state.endpoints.values() {
            switched += u32::from(endpoint.table == closed);
            let rows = kernel.state.tables.get(&endpoint.table);
            assert!(rows.is_some_and(|rows| !rows.is_empty()), "{endpoint:?}");
        }
    }
    assert!(switched > 0, "no pass failed between two endpoints");
}

#[test]
fn a_fence_is_detached_before_its_endpoint_is_removed() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    publish_and_retire(&mut subject, &world);
    world.interfaces.remove("rf-b");
    kernel.0.borrow_mut().calls.clear();
    subject.publish(&world.desired()).unwrap();
    let kernel = kernel.0.borrow();
    let detached = kernel
        .calls
        .iter()
        .position(|s| *s == Call::Detach(9))
        .unwrap();
    let removed = kernel
        .calls
        .iter()
        .position(|s| *s == Call::Write(Action::DeleteEndpoint(9)))
        .unwrap();
    assert!(detached < removed);
    assert_eq!(kernel.attached, BTreeSet::from([7]));
}
