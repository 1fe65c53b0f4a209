//! Objects that come, change and go one by one: what is written then is what a start would write.
//!
//! The state is compared with that of a new compiler, for an inventory that is built as a whole, with the
//! numbers of the old one, as a start takes them from the ledger: every entry of every map must be equal.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    model::{Inventory, InventoryChanges, InventoryStore, NodeEntry, PolicySet},
    oracle::{World, cases, world},
    policy::Compiler,
};

/// An event: the object of a world, and whether it comes or goes.
#[derive(Debug, Clone)]
struct Event {
    world: Index,
    kind: u8,
    object: Index,
    is_gone: bool,
}

fn event() -> impl Strategy<Value = Event> {
    let parts = (
        any::<Index>(),
        0..10_u8,
        any::<Index>(),
        prop::bool::weighted(0.3),
    );
    parts.prop_map(|(world, kind, object, is_gone)| Event {
        world,
        kind,
        object,
        is_gone,
    })
}

/// Applies an event; what contradicts other objects is refused.
fn apply(event: &Event, worlds: &[World], store: &mut InventoryStore, policies: &mut PolicySet) {
    let World {
        inventory,
        policies: drawn,
    } = event.world.get(worlds);
    fn pick<'a, K, V>(
        all: impl Iterator<Item = (&'a K, &'a V)>,
        at: Index,
    ) -> Option<(&'a K, &'a V)>
    where
        K: 'a,
        V: 'a,
    {
        let all: Vec<_> = all.collect();
        (!all.is_empty()).then(|| *at.get(&all))
    }
    let mut changes = InventoryChanges::default();
    match event.kind {
        0 | 1 => {
            let namespace = pick(inventory.namespaces.iter(), event.object);
            changes.namespaces.extend(
                namespace.map(|(name, it)| (name.clone(), (!event.is_gone).then(|| it.clone()))),
            );
        }
        2 => {
            let node = pick(inventory.nodes.iter(), event.object);
            let node = node.map(|(name, it)| (name.clone(), (!event.is_gone).then(|| it.clone())));
            changes.nodes.extend(node);
        }
        3 | 4 => {
            let Some((id, policy)) = pick(drawn.policies.iter(), event.object) else {
                return;
            };
            if event.is_gone {
                policies.policies.remove(id);
            } else {
                policies.policies.insert(id.clone(), Arc::clone(policy));
            }
        }
        _ => {
            let workload = pick(inventory.workloads.iter(), event.object);
            changes.workloads.extend(
                workload.map(|(id, it)| (id.clone(), (!event.is_gone).then(|| Arc::clone(it)))),
            );
        }
    }
    _ = store.apply(changes);
}

/// The same objects, built as a whole.
fn rebuilt(store: &InventoryStore) -> Inventory {
    let held = store.inventory();
    let declared = held.namespaces.iter();
    let declared = declared.filter(|(name, _)| store.declares(name));
    let nodes = held.nodes.values().map(|node| NodeEntry::clone(node));
    let workloads = held.workloads.values().cloned().collect();
    let namespaces = declared.map(|(_, it)| it.clone()).collect();
    let built = Inventory::build_contested(namespaces, workloads, nodes.collect());
    built.unwrap().0
}

#[test]
fn maps_after_any_events_have_what_a_start_would_write() {
    let (states, disputed) = (AtomicU64::new(0), AtomicU64::new(0));
    let drawn = (vec(world(), 2..4), vec(vec(event(), 1..6), 1..8));
    proptest!(cases(150), |((worlds, steps) in drawn)| {
        let mut compiler = Compiler::default();
        let mut store = InventoryStore::default();
        let mut policies = PolicySet::default();
        for events in &steps {
            for event in events {
                apply(event, &worlds, &mut store, &mut policies);
            }
            let present = World {
                inventory: Arc::clone(store.inventory()),
                policies: Arc::new(policies.clone()),
            };
            present.compile(&mut compiler);
            let settled = present.compile(&mut compiler);
            let start = World { inventory: Arc::new(rebuilt(&store)), ..present };
            let mut fresh = Compiler::default();
            fresh.numbers.restore(compiler.numbers.all());
            let whole = start.compile(&mut fresh);
            prop_assert_eq!(settled.state, whole.state);
            states.fetch_add(1, Ordering::Relaxed);
            let is_disputed = !start.inventory.disputed.is_empty();
            disputed.fetch_add(u64::from(is_disputed), Ordering::Relaxed);
        }
    });
    println!("{states:?} states, {disputed:?} with disputed addresses");
}
