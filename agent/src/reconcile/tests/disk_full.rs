//! A full disk: no number is used that is not in the ledger, and lockdown works.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::*;
use crate::model::NamespaceName;

/// Makes every write of the ledger fail.
fn fill(dir: &Path) -> [PathBuf; 2] {
    let paths = ["numbers", "numbers.new"].map(|name| dir.join(name));
    for path in &paths {
        let _absent = fs::remove_file(path);
        symlink("/dev/full", path).unwrap();
    }
    paths
}

fn free(paths: &[PathBuf]) {
    for path in paths {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_failed_append_is_not_taken_for_written() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut subject = reconciler(&kernel, dir.path());
    let mut world = World::new(CLOSED);
    subject.publish(&world.desired()).unwrap();
    let before = kernel.0.borrow().state.clone();
    // A new process, because this one has the ledger open.
    let kept = fs::read(dir.path().join("numbers")).unwrap();
    let mut subject = reconciler(&kernel, dir.path());
    let full = fill(dir.path());
    world.set_policies(OPEN);
    for _ in 0..3 {
        let error = subject.publish(&world.desired()).unwrap_err();
        assert!(matches!(error, ReconcileError::Ledger(_)), "{error}");
        assert_eq!(kernel.0.borrow().state, before, "nothing is published");
    }
    free(&full);
    fs::write(dir.path().join("numbers"), kept).unwrap();
    subject.publish(&world.desired()).unwrap();
    // Every number in the maps is in the ledger: another life gives none of them to another content.
    let state = kernel.0.borrow().state.clone();
    let recorded = Ledger::in_dir(dir.path()).load().unwrap().allocations;
    let has = |space, number| {
        let mut of_space = recorded.iter().filter(|of| of.space == space);
        of_space.any(|of| of.number == number)
    };
    for endpoint in state.endpoints.values() {
        assert!(has(crate::policy::Space::Table, endpoint.table.0));
        assert!(has(crate::policy::Space::Identity, endpoint.identity.0));
    }
    let rows = state.tables.values().flat_map(|rows| rows.iter());
    let ruled: Vec<_> = rows.map(|(_, row)| row.rule.0).collect();
    assert!(
        ruled
            .iter()
            .any(|rule| has(crate::policy::Space::Rule, *rule))
    );
}

#[test]
fn lockdown_works_while_new_numbers_cannot_be_written_down() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    reconciler(&kernel, dir.path())
        .publish(&world.desired())
        .unwrap();
    let mut subject = reconciler(&kernel, dir.path());
    fill(dir.path());
    world.set_policies(OPEN);
    let shop = NamespaceName::new("shop").unwrap();
    assert!(subject.publish(&world.desired()).is_err());
    assert!(!subject.is_locked_down(&shop), "the control");
    world.modes.namespaces.insert(shop.clone(), Mode::Lockdown);
    assert!(subject.publish(&world.desired()).is_err());
    assert!(subject.is_locked_down(&shop));
    let kernel = kernel.0.borrow();
    let state = &kernel.state;
    for endpoint in state.endpoints.values() {
        assert_eq!(
            state.modes.get(&endpoint.namespace()),
            Some(&Mode::Lockdown)
        );
    }
}

#[test]
fn lockdown_uses_no_slot_that_is_not_written_down() {
    let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(CLOSED);
    let mut subject = reconciler(&kernel, dir.path());
    subject.publish(&world.desired()).unwrap();
    let before = kernel.0.borrow().state.modes.clone();
    let mut subject = reconciler(&kernel, dir.path());
    fill(dir.path());
    world.set_inventory(&format!("{INVENTORY}\n[[namespace]]\nname = \"lab\"\n"));
    let lab = NamespaceName::new("lab").unwrap();
    world.modes.namespaces.insert(lab.clone(), Mode::Lockdown);
    assert!(subject.publish(&world.desired()).is_err());
    assert!(!subject.is_locked_down(&lab));
    let after = kernel.0.borrow().state.modes.clone();
    assert!(before.iter().eq(after.iter()));
}
