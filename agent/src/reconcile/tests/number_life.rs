//! Numbers are written down before use, freed when nothing holds them, and table numbers never given
//! twice.

use std::{collections::HashSet, fs};

use ringfence_common::{
    ids::{IdentityId, NamespaceSlot, RuleSlot},
    maps,
};

use ringfence_common::SECOND;

use super::*;
use crate::{
    model::{Labels, Namespace, NamespaceName, ServiceAccountName, Workload, WorkloadId},
    policy::{Allocation, Space},
};

/// Frees what nothing holds, as the event loop does.
fn free_now(subject: &mut Reconciler<Fake>, in_history: &[u32]) {
    let history = in_history.iter().map(|id| IdentityId(*id)).collect();
    if let Some(walk) = subject.start_freeing().unwrap() {
        let held = (walk.run)().unwrap();
        subject
            .finish_freeing(walk.started, &held, &history)
            .unwrap();
    }
}

/// The same, before and after the quarantine.
fn free(subject: &mut Reconciler<Fake>, in_history: &[u32]) {
    free_now(subject, in_history);
    subject.datapath().0.borrow_mut().elapsed += QUARANTINE;
    free_now(subject, in_history);
}

fn tables(kernel: &Fake) -> BTreeSet<TableId> {
    let kernel = kernel.0.borrow();
    kernel.state.endpoints.values().map(|e| e.table).collect()
}

fn open_on(port: u16) -> String {
    OPEN.replace("tcp/80", &format!("tcp/{port}"))
}

/// Conntrack holds the numbers of all tables that ever decided.
#[test]
fn a_table_number_is_not_given_again_whatever_was_retired_freed_or_restarted() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut given = BTreeSet::new();
    for life in 0..4 {
        let mut subject = reconciler(&kernel, dir.path());
        for change in 0..3 {
            world.set_policies(&open_on(1000 + 10 * life + change));
            publish_and_retire(&mut subject, &world);
            for table in tables(&kernel) {
                assert!(given.insert(table), "{table:?} was given before");
            }
            free(&mut subject, &[]);
        }
    }
}

#[test]
fn a_restart_with_agreeing_marks_keeps_stored_verdicts() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let world = World::new(OPEN);
    publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
    kernel.0.borrow_mut().calls.clear();
    publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
    let kernel = kernel.0.borrow();
    let writes = kernel.calls.iter();
    let writes: Vec<_> = writes
        .filter(|call| !matches!(call, Call::Attach(_)))
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
}

/// What may happen to the marks between two runs.
const LOSSES: [fn(&Fake, &Path); 5] = [
    |kernel, _| kernel.0.borrow_mut().table_mark = None,
    |kernel, _| kernel.0.borrow_mut().table_mark = Some(5),
    |_, dir| fs::remove_file(dir.join("numbers")).unwrap(),
    |_, dir| fs::write(dir.join("numbers"), "").unwrap(),
    // Every line loses its end.
    |_, dir| {
        let text = fs::read_to_string(dir.join("numbers")).unwrap();
        let torn = text
            .lines()
            .map(|line| line.strip_suffix(char::is_alphanumeric).unwrap_or_default());
        fs::write(dir.join("numbers"), torn.collect::<Vec<_>>().join("\n")).unwrap();
    },
];

#[test]
fn without_agreeing_marks_every_stored_verdict_is_stale_before_anything_is_published() {
    for (case, lose) in LOSSES.into_iter().enumerate() {
        let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let mut world = World::new(OPEN);
        publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
        let before = tables(&kernel);
        lose(&kernel, dir.path());
        kernel.0.borrow_mut().calls.clear();
        world.set_policies(CLOSED);
        publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
        assert!(tables(&kernel).is_disjoint(&before), "case {case}");
        let calls = kernel.0.borrow().calls.clone();
        let first = |wanted: &dyn Fn(&Call) -> bool| calls.iter().position(wanted).unwrap();
        let bump = first(&|call| *call == Call::Write(Action::BumpAllEpochs));
        let mark = first(&|call| matches!(call, Call::Mark(_)));
        let write = first(&|call| matches!(call, Call::Write(action) if !action.bumps_epochs()));
        assert!(bump < mark && mark < write, "case {case}: {calls:?}");
        // The control: the marks agree again.
        kernel.0.borrow_mut().calls.clear();
        publish_and_retire(&mut reconciler(&kernel, dir.path()), &world);
        let calls = kernel.0.borrow().calls.clone();
        assert!(
            !calls.contains(&Call::Write(Action::BumpAllEpochs)),
            "{case}"
        );
    }
}

#[test]
fn numbers_that_only_conntrack_knows_are_not_given_out() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let (rules, identities) = (16..40, 16..30);
    {
        let held = &mut kernel.0.borrow_mut().held;
        held.rules = rules.clone().step_by(2).map(RuleSlot).collect();
        held.denying = rules.clone().map(RuleSlot).collect();
        held.identities = identities.clone().map(IdentityId).collect();
    }
    let world = World::new(OPEN);
    let published = reconciler(&kernel, dir.path())
        .publish(&world.desired())
        .unwrap();
    let mut slots = published.compiled.rules.keys();
    assert!(slots.all(|slot| !rules.contains(&slot.0)));
    let mut ids = published.compiled.state.addresses.values();
    assert!(ids.all(|id| !identities.contains(&id.0)));
}

#[test]
fn the_mark_is_written_before_a_table_beyond_it_is_used() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    for change in 0..1200 {
        world.set_policies(&open_on(1000 + change));
        subject.publish(&world.desired()).unwrap();
    }
    let mut marks = Vec::new();
    let mut highest = 0;
    for call in &kernel.0.borrow().calls {
        match call {
            Call::Mark(mark) => marks.push(*mark),
            Call::Write(Action::PutRow(row)) => {
                highest = highest.max(row.key.table.0);
                assert!(row.key.table.0 < marks[marks.len() - 1]);
            }
            _ => {}
        }
    }
    assert!(
        (2..10).contains(&marks.len()),
        "{marks:?}, {highest} tables"
    );
    let recorded = Ledger::in_dir(dir.path()).load().unwrap();
    assert_eq!(recorded.tables_below, marks.last().copied());
}

/// The fields that all workloads of these tests share.
fn workload(namespace: &str, name: &str, app: &str, address: u32) -> Workload {
    Workload {
        id: WorkloadId::new(namespace, name).unwrap(),
        labels: Labels::from_pairs([("app", app)]).unwrap(),
        service_account: ServiceAccountName::new("default").unwrap(),
        addresses: vec![IpAddr::from(address.to_be_bytes())],
        ports: Vec::new(),
        interface: None,
        recency: None,
    }
}

fn with(world: &mut World, more: impl Iterator<Item = Workload>, namespaces: &[String]) {
    let mut inventory = Inventory::clone(&World::new(CLOSED).inventory);
    for workload in more {
        inventory
            .workloads
            .insert(workload.id.clone(), Arc::new(workload));
    }
    for name in namespaces {
        let name = NamespaceName::new(name).unwrap();
        let namespace = Namespace::new(name.clone(), Labels::default()).unwrap();
        inventory.namespaces.insert(name, namespace);
    }
    world.inventory = Arc::new(inventory);
}

#[test]
fn more_identities_come_and_go_than_there_are_numbers() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    let each = 16_000;
    let mut total = 0;
    for reload in 0..6_u32 {
        let jobs = (0..each).map(|job| {
            let name = format!("job-{reload}-{job}");
            workload("shop", &name, &name, 0x0a20_0000 + job)
        });
        with(&mut world, jobs, &[]);
        publish_and_retire(&mut subject, &world);
        total += each;
        free(&mut subject, &[]);
    }
    assert!(total > maps::IDENTITIES);
    with(&mut world, std::iter::empty(), &[]);
    publish_and_retire(&mut subject, &world);
    free(&mut subject, &[]);
    let left = subject.compiler.numbers.count();
    assert!(left < 30, "{left} numbers are left");
}

#[test]
fn more_namespaces_come_and_go_than_there_are_slots_and_modes_come_first() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    let mut used = BTreeSet::new();
    for reload in 0..4 {
        let names: Vec<_> = (0..3000).map(|n| format!("ns-{reload}-{n}")).collect();
        let local = Workload {
            interface: Some("rf-c".into()),
            ..workload(&names[0], "c", "a", 0x0a01_0009)
        };
        world.interfaces.insert("rf-c".into(), 11);
        with(&mut world, [local].into_iter(), &names);
        kernel.0.borrow_mut().calls.clear();
        if reload > 0 {
            // The new ones fit only after the old ones are gone.
            let failed = subject.publish(&world.desired()).unwrap_err();
            assert!(failed.to_string().contains("namespace"), "{failed}");
            free(&mut subject, &[]);
        }
        publish_and_retire(&mut subject, &world);
        let slot = kernel.0.borrow().state.endpoints[&11].namespace();
        let calls = kernel.0.borrow().calls.clone();
        let mode = calls
            .iter()
            .position(|call| matches!(call, Call::Write(Action::SetMode(at, _)) if *at == slot));
        let endpoint = calls
            .iter()
            .position(|call| matches!(call, Call::Write(Action::PutEndpoint(11, _))));
        assert!(mode.is_some() && mode < endpoint, "{mode:?} {endpoint:?}");
        used.insert(slot);
        free(&mut subject, &[]);
    }
    assert!(used.iter().all(|slot| *slot != NamespaceSlot::NODE_DEFAULT));
}

#[test]
fn namespaces_leave_their_slots_with_every_pass() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    let mut total = 0;
    for reload in 0..8 {
        let names: Vec<_> = (0..1000).map(|n| format!("ns-{reload}-{n}")).collect();
        with(&mut world, std::iter::empty(), &names);
        // No pass lacks slots, after which all of them are counted again.
        publish_and_retire(&mut subject, &world);
        free(&mut subject, &[]);
        total += 1000;
    }
    assert!(total > maps::NAMESPACES);
}

#[test]
fn more_rules_come_and_go_than_there_are_slots() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    let each = 6_000;
    for edit in 0..3 {
        // A policy without subjects: its rules have slots and no rows.
        let rule = "[[policy.ingress]]\nfrom = [{ pods = \"app=a\" }]\nports = [\"tcp/80\"]\n";
        let policy = |place: u32| {
            let rules = rule.repeat(1_000);
            format!(
                "[[policy]]\nname = \"e{edit}-{place}\"\nnamespace = \"shop\"\n\
                 subject = \"app=unused\"\n{rules}"
            )
        };
        world.set_policies(&(0..each / 1_000).map(policy).collect::<String>());
        publish_and_retire(&mut subject, &world);
        free(&mut subject, &[]);
    }
    assert!(3 * each > maps::RULES);
}

#[test]
fn a_number_is_free_only_when_neither_conntrack_nor_the_history_holds_it() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    let published = subject.publish(&world.desired()).unwrap();
    let rule = *published.compiled.rules.keys().next().unwrap();
    let peer = *published
        .compiled
        .state
        .addresses
        .get(&"10.1.0.1".parse().unwrap())
        .unwrap();
    world.set_policies(CLOSED);
    world.set_inventory(&INVENTORY.replace("app = \"a\"", "app = \"x\""));
    publish_and_retire(&mut subject, &world);
    {
        let held = &mut kernel.0.borrow_mut().held;
        held.rules.insert(rule);
        held.denying.insert(rule);
        held.identities.insert(peer);
    }
    let taken = |subject: &Reconciler<Fake>| {
        let mut numbers = subject.compiler.numbers.all();
        let of: Vec<_> = numbers.by_ref().map(|a| (a.space, a.number)).collect();
        [
            of.contains(&(Space::Rule, rule.0)),
            of.contains(&(Space::Identity, peer.0)),
        ]
    };
    free(&mut subject, &[]);
    assert_eq!(taken(&subject), [true, true], "conntrack holds them");
    let cleared = Call::ClearRule(rule);
    assert!(!kernel.0.borrow().calls.contains(&cleared));
    kernel.0.borrow_mut().held.identities.clear();
    kernel.0.borrow_mut().elapsed += 60 * SECOND;
    free(&mut subject, &[peer.0]);
    assert_eq!(
        taken(&subject),
        [true, true],
        "conntrack and the history hold them"
    );
    kernel.0.borrow_mut().held.rules.clear();
    kernel.0.borrow_mut().elapsed += 60 * SECOND;
    free(&mut subject, &[]);
    assert_eq!(taken(&subject), [false, false]);
    assert!(
        kernel.0.borrow().calls.contains(&cleared),
        "its aggregates and hits"
    );
    assert!(!subject.compiler.numbers.has_retired());
}

#[test]
fn a_number_is_not_free_before_the_quarantine_has_passed() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    publish_and_retire(&mut subject, &world);
    free(&mut subject, &[]);
    world.set_policies(CLOSED);
    publish_and_retire(&mut subject, &world);
    let mut counts = Vec::new();
    for step in [0, QUARANTINE - 1, 1] {
        kernel.0.borrow_mut().elapsed += step;
        free_now(&mut subject, &[]);
        counts.push(subject.compiler.numbers.count());
    }
    assert_eq!(counts[0], counts[1]);
    assert!(counts[1] > counts[2], "{counts:?}");
}

/// An event or a conntrack entry of the time in between may hold it.
#[test]
fn a_number_that_was_used_during_the_walk_is_not_free_after_it() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    let rules = subject.publish(&world.desired()).unwrap().compiled.rules;
    let slot = rules.keys().next().unwrap().0;
    world.set_policies(CLOSED);
    publish_and_retire(&mut subject, &world);
    free_now(&mut subject, &[]);
    kernel.0.borrow_mut().elapsed += QUARANTINE;
    let walk = subject.start_freeing().unwrap().unwrap();
    let held = (walk.run)().unwrap();
    for policies in [OPEN, CLOSED] {
        world.set_policies(policies);
        publish_and_retire(&mut subject, &world);
    }
    let again = subject.start_freeing().unwrap();
    assert!(again.is_none(), "retired only now");
    let freed = subject.finish_freeing(walk.started, &held, &HashSet::new());
    let mut all = subject.compiler.numbers.all();
    assert!(
        all.any(|of| of.space == Space::Rule && of.number == slot),
        "{freed:?}"
    );
}

#[test]
fn the_kernels_maps_are_walked_only_if_something_is_due() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(OPEN);
    let mut subject = reconciler(&kernel, dir.path());
    publish_and_retire(&mut subject, &world);
    let walks = |kernel: &Fake| {
        let calls = std::mem::take(&mut kernel.0.borrow_mut().calls);
        calls.iter().filter(|call| **call == Call::Walk).count()
    };
    walks(&kernel);
    free(&mut subject, &[]);
    assert_eq!(walks(&kernel), 0, "nothing changed");
    let rule = *subject
        .publish(&world.desired())
        .unwrap()
        .compiled
        .rules
        .keys()
        .next()
        .unwrap();
    world.set_policies(CLOSED);
    publish_and_retire(&mut subject, &world);
    kernel.0.borrow_mut().held.rules.insert(rule);
    free(&mut subject, &[]);
    assert_eq!(walks(&kernel), 1);
    free(&mut subject, &[]);
    assert_eq!(walks(&kernel), 0, "the one that is held waits for a while");
    kernel.0.borrow_mut().elapsed += 60 * SECOND;
    free(&mut subject, &[]);
    assert!(walks(&kernel) >= 1);
}

#[test]
fn allocations_that_could_not_be_written_down_are_written_by_the_next_pass() {
    let (kernel, parent) = (Fake::default(), tempfile::tempdir().unwrap());
    let dir = parent.path().join("state");
    let mut world = World::new(OPEN);
    let mut first = reconciler(&kernel, &dir);
    let no_directory = first.publish(&world.desired());
    assert!(no_directory.is_err());
    assert!(kernel.0.borrow().state.tables.is_empty());
    fs::create_dir(&dir).unwrap();
    publish_and_retire(&mut first, &world);

    // Tables stay, so only the new identity has to be written down.
    world.set_inventory(&INVENTORY.replace("app = \"b\"", "app = \"c\""));
    let mut second = reconciler(&kernel, &dir);
    fs::remove_dir_all(&dir).unwrap();
    let before = kernel.0.borrow().state.clone();
    assert!(second.publish(&world.desired()).is_err());
    assert_eq!(kernel.0.borrow().state, before);
    fs::create_dir(&dir).unwrap();
    let wanted = second.publish(&world.desired()).unwrap().compiled.state;
    let moved = *wanted.addresses.get(&"10.1.0.2".parse().unwrap()).unwrap();
    let recorded = Ledger::in_dir(&dir).load().unwrap().allocations;
    let is_moved = |of: &Allocation| of.space == Space::Identity && of.number == moved.0;
    assert!(recorded.iter().any(is_moved), "{recorded:?}");
}
