//! What a change may affect, and what must stay the same.

use std::{cell::Cell, net::IpAddr, sync::Arc};

use proptest::prelude::*;

use crate::{
    model::{Inventory, Workload},
    oracle::{World, cases, history, world},
    plan::{Action, plan},
    policy::{Compiled, Compiler},
};

#[test]
fn the_same_inputs_settle_and_then_share_everything() {
    proptest!(cases(80), |(worlds in history(4))| {
        let mut compiler = Compiler::default();
        for world in &worlds {
            world.compile(&mut compiler);
        }
        let last = &worlds[worlds.len() - 1];
        let settled = last.compile(&mut compiler);
        let again = last.compile(&mut compiler);
        prop_assert!(shares_everything(&settled, &again));
        prop_assert!(plan(&settled.state, &again.state).is_empty());

        let asked: std::collections::BTreeSet<_> =
            settled.endpoints.values().map(|endpoint| endpoint.table).collect();
        prop_assert!(settled.state.tables.keys().eq(&asked), "a table is left over");
        // No state of the past remains: a fresh compiler needs as many of everything.
        let fresh = last.compile(&mut Compiler::default());
        prop_assert_eq!(sizes(&settled), sizes(&fresh));
    });
}

fn shares_everything(one: &Compiled, other: &Compiled) -> bool {
    one.state.addresses.is_same(&other.state.addresses)
        && one.state.classes.is_same(&other.state.classes)
        && one.state.prefixes.is_same(&other.state.prefixes)
        && one.identities.is_same(&other.identities)
        && one.rules.is_same(&other.rules)
        && one.state.tables.len() == other.state.tables.len()
        && one.state.tables.iter().all(|(table, rows)| {
            other
                .state
                .tables
                .get(table)
                .is_some_and(|same| Arc::ptr_eq(rows, same))
        })
}

fn sizes(compiled: &Compiled) -> [usize; 6] {
    let state = &compiled.state;
    [
        state.rows(),
        state.tables.len(),
        state.classes.len(),
        state.prefixes.len(),
        compiled.identities.len(),
        compiled.classes,
    ]
}

/// Adds a copy of the first workload with another name and address.
fn with_twin(world: &World, name: &str, addresses: Vec<IpAddr>) -> World {
    let inventory = &world.inventory;
    let first = inventory.workloads.values().next().unwrap();
    let mut twin = Workload::clone(first);
    twin.id = crate::model::WorkloadId::new(twin.id.namespace.as_str(), name).unwrap();
    twin.addresses = addresses;
    let workloads = inventory
        .workloads
        .values()
        .cloned()
        .chain([Arc::new(twin)]);
    let namespaces = inventory.namespaces.values().cloned().collect();
    let nodes = inventory.nodes.values();
    let nodes = nodes
        .map(|node| crate::model::NodeEntry::clone(node))
        .collect();
    let mut inventory = Inventory::build(namespaces, workloads.collect(), nodes).unwrap();
    inventory.network = Arc::clone(&world.inventory.network);
    World {
        inventory: Arc::new(inventory),
        policies: world.policies.clone(),
    }
}

/// An address in the same policy prefixes as the first workload's.
fn neighbour(compiled: &Compiled, world: &World) -> Option<IpAddr> {
    let first = world
        .inventory
        .workloads
        .values()
        .next()?
        .addresses
        .first()?;
    let around = |address: &IpAddr| -> Vec<_> {
        compiled
            .state
            .prefixes
            .keys()
            .filter(|net| net.contains(address))
            .collect()
    };
    let candidates = ["10.0.0.100", "10.0.1.100", "fd00::64", "fd00:0:0:1::64"];
    let mut candidates = candidates.iter().map(|text| text.parse().unwrap());
    candidates.find(|address| around(address) == around(first))
}

#[test]
fn a_new_workload_with_known_labels_is_one_write() {
    let met = Cell::new(0);
    proptest!(cases(300), |(world in world())| {
        let mut compiler = Compiler::default();
        world.compile(&mut compiler);
        let before = world.compile(&mut compiler);
        let Some(address) = neighbour(&before, &world) else { return Ok(()) };
        let grown = with_twin(&world, "zz-twin", vec![address]);
        // The copy runs on another node: the endpoints of this node are unchanged.
        let after = grown.attempt(&mut compiler, &world.endpoints());
        let publish = plan(&before.state, &after.state).publish;
        prop_assert!(
            matches!(publish.as_slice(), [Action::PutAddress(..), Action::NewOwner(_), Action::BumpEpoch(_)]),
            "{publish:?}"
        );
        for (table, rows) in &before.state.tables {
            prop_assert!(Arc::ptr_eq(rows, &after.state.tables[table]));
        }
        met.set(met.get() + 1);
    });
    assert!(met.get() > 0, "only {met:?} worlds had room for a twin");
}

#[test]
fn the_number_of_rows_does_not_follow_the_number_of_workloads() {
    proptest!(cases(100), |(world in world())| {
        let compiled = world.compile(&mut Compiler::default());
        let Some(address) = neighbour(&compiled, &world) else { return Ok(()) };
        let mut grown = with_twin(&world, "zz-0", vec![address]);
        for twin in 1..20 {
            grown = with_twin(&grown, &format!("zz-{twin}"), Vec::new());
        }
        let more = grown.compile(&mut Compiler::default());
        prop_assert_eq!(sizes(&more), sizes(&compiled));
    });
}
