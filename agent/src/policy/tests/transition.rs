//! From one world to the next: incremental equals fresh, and no packet sees a mixture in between.
//!
//! While a change is published, an endpoint uses its old table with classes and addresses that are
//! partly new. After every single write, the old policy must still decide.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use proptest::prelude::*;
use ringfence_common::ids::TableId;

use super::{
    agreement::{compare, pairs},
    kernel::{self, Rows},
};
use crate::{
    model::{Inventory, NodeNetwork, PortMatch, Ports},
    oracle::{BOOT, NOW, Oracle, PROTOCOLS, World, cases, history, name, world},
    plan::{Action, State, plan},
    policy::{Compiled, Compiler, EndpointInfo},
};

#[test]
fn a_compiler_with_a_past_says_what_a_fresh_one_says() {
    proptest!(cases(80), |(worlds in history(5))| {
        let mut compiler = Compiler::default();
        for world in &worlds {
            let compiled = world.compile(&mut compiler);
            compare(world, &compiled, 0).map_err(TestCaseError::fail)?;
        }
    });
}

/// A lapsed rule is not laid out, and the agent is not woken for a past edge.
#[test]
fn a_compiler_that_time_passes_lays_out_what_lies_ahead() {
    proptest!(cases(80), |(world in world())| {
        let mut compiler = Compiler::default();
        for passed in [0, 1, 1_000_000_000, 2_000_000_000] {
            let compiled = world.compile_later(&mut compiler, passed);
            compare(&world, &compiled, i64::from(passed)).map_err(TestCaseError::fail)?;
            let now = BOOT + u64::from(passed);
            prop_assert!(compiled.next_change.is_none_or(|due| due > now), "woken for the past");
        }
    });
}

/// The condition for conntrack entries and cached decisions: different content has a different
/// number.
#[test]
fn the_rows_of_a_table_for_a_class_never_change() {
    proptest!(cases(1000), |(worlds in history(5))| {
        let mut compiler = Compiler::default();
        let mut known = HashMap::new();
        for world in &worlds {
            for passed in [0, 1_000_000_000, 3_000_000_000] {
                let compiled = world.compile_later(&mut compiler, passed);
                let mut rows: HashMap<_, BTreeMap<_, _>> = HashMap::new();
                for ((bits, key), row) in compiled.state.tables.values().flat_map(|rows| rows.iter()) {
                    let place = (*bits, key.direction, key.protocol, key.port.number());
                    rows.entry((key.table, key.class)).or_default().insert(place, *row);
                }
                for (of, rows) in rows {
                    let before = known.insert(of, rows.clone());
                    prop_assert!(before.as_ref().is_none_or(|before| *before == rows), "{of:?}");
                }
            }
        }
    });
}

type Answers = Vec<(bool, String)>;

/// All verdicts of a table for all peers, by name, so that tables can be compared across worlds.
fn answers(
    state: &State,
    rows: &Rows,
    table: TableId,
    addresses: &[IpAddr],
    ports: &[u16],
    names: &Compiled,
) -> Answers {
    let mut answers = Answers::new();
    for (address, direction) in pairs(addresses) {
        let class = kernel::class(state, address);
        for protocol in PROTOCOLS {
            for port in ports {
                let flow = (protocol, *port);
                let decision = rows.decide(table, class, direction, flow, BOOT).unwrap();
                let allow = decision.verdict == ringfence_common::mode::Verdict::Allow;
                answers.push((allow, name(names, decision.rule)));
            }
        }
    }
    answers
}

/// Only policies change: after every single write, every endpoint keeps its old verdicts until its
/// own write, and has the new ones from then on.
#[test]
fn a_change_of_policies_is_neutral_until_the_endpoint_flips() {
    proptest!(cases(30), |(worlds in history(3))| {
        let mut worlds = worlds;
        let inventory = worlds[0].inventory.clone();
        worlds.iter_mut().for_each(|world| world.inventory = inventory.clone());
        let mut compiler = Compiler::default();
        let mut before = worlds[0].compile(&mut compiler);
        // The last change comes before the one before it has settled.
        for (step, world) in worlds.iter().enumerate() {
            let after = world.compile(&mut compiler);
            neutral(world, &before, &after).map_err(|why| {
                TestCaseError::fail(format!("step {step}: {why}"))
            })?;
            before = after;
        }
        let settled = worlds[worlds.len() - 1].compile(&mut compiler);
        neutral(&worlds[worlds.len() - 1], &before, &settled).map_err(TestCaseError::fail)?;
    });
}

fn neutral(world: &World, before: &Compiled, after: &Compiled) -> Result<(), String> {
    let addresses = world.addresses();
    let ports: Vec<u16> = world.ports().into_iter().step_by(4).collect();
    let mut state = before.state.clone();
    let actions = plan(&before.state, &after.state);
    let old_rows = Rows::of(&state);
    let old: Vec<Answers> = before
        .endpoints
        .values()
        .map(|e| answers(&state, &old_rows, e.table, &addresses, &ports, before))
        .collect();
    for (place, action) in actions.publish.iter().enumerate() {
        state.record(action);
        // Rows are written first and are many, so checking after the last of them is enough.
        let next = actions.publish.get(place + 1);
        if matches!((action, next), (Action::PutRow(_), Some(Action::PutRow(_)))) {
            continue;
        }
        let rows = Rows::of(&state);
        for (info, old) in before.endpoints.values().zip(&old) {
            if state.endpoints[&info.attachments[0].ifindex].table != info.table {
                continue;
            }
            let now = answers(&state, &rows, info.table, &addresses, &ports, before);
            if let Some(place) = (0..old.len()).find(|at| now[*at] != old[*at]) {
                let who = &info.workload.id;
                return Err(format!(
                    "{who} after {action:?}: {:?} → {:?}",
                    old[place], now[place]
                ));
            }
        }
    }
    let rows = Rows::of(&state);
    let new_rows = Rows::of(&after.state);
    for info in after.endpoints.values() {
        let got = answers(&state, &rows, info.table, &addresses, &ports, after);
        let wanted = answers(
            &after.state,
            &new_rows,
            info.table,
            &addresses,
            &ports,
            after,
        );
        if got != wanted {
            return Err(format!("{} is not as compiled", info.workload.id));
        }
    }
    Ok(())
}

/// Publishing fails several times in a row: the tables in force stay unchanged.
#[test]
fn failed_attempts_leave_what_is_in_force() {
    proptest!(cases(30), |(worlds in history(5))| {
        let mut worlds = worlds;
        let inventory = worlds[0].inventory.clone();
        worlds.iter_mut().for_each(|world| world.inventory = inventory.clone());
        let mut compiler = Compiler::default();
        let before = worlds[0].compile(&mut compiler);
        for world in &worlds[1..] {
            let after = world.attempt(&mut compiler, &world.endpoints());
            neutral(world, &before, &after).map_err(TestCaseError::fail)?;
        }
    });
}

/// The inventory changes as well: carried tables evaluate the new peers by the old policies.
#[test]
fn carried_tables_evaluate_new_peers_by_the_old_policies() {
    proptest!(cases(100), |(worlds in history(4))| {
        let worlds = with_one_set_of_tunnels(worlds);
        let mut compiler = Compiler::default();
        let mut before: Option<(&World, Compiled)> = None;
        for world in &worlds {
            let after = world.compile(&mut compiler);
            if let Some((old, compiled)) = &before
                && !names_ports_on_the_way_out(old)
            {
                for info in compiled.endpoints.values() {
                    carried(old, world, info, compiled, &after).map_err(TestCaseError::fail)?;
                }
            }
            before = Some((world, after));
        }
    });
}

/// A number newly declared for a port name is unknown to tables laid out before.
fn names_ports_on_the_way_out(world: &World) -> bool {
    let rules = world
        .policies
        .iter()
        .flat_map(|policy| policy.egress.iter().flatten());
    let mut ports = rules.map(|rule| &rule.ports);
    ports.any(|ports| {
        let Ports::Of(matches) = ports else {
            return false;
        };
        matches
            .iter()
            .any(|entry| matches!(entry, PortMatch::Named { .. }))
    })
}

/// The worlds with the tunnel ports of the first: to tables laid out before, a port that newly leads into
/// tunnels is an ordinary one.
fn with_one_set_of_tunnels(mut worlds: Vec<World>) -> Vec<World> {
    let ports = worlds[0].inventory.network.tunnel_ports.clone();
    let mut last: Option<(Arc<Inventory>, Arc<Inventory>)> = None;
    for world in &mut worlds {
        let drawn = Arc::clone(&world.inventory);
        // An inventory that did not change stays the same.
        let known = last.filter(|(of, _)| Arc::ptr_eq(of, &drawn));
        let inventory = known.map_or_else(
            || {
                let network = NodeNetwork {
                    tunnel_ports: ports.clone(),
                    ..NodeNetwork::clone(&drawn.network)
                };
                Arc::new(Inventory {
                    network: Arc::new(network),
                    ..Inventory::clone(&drawn)
                })
            },
            |(_, known)| known,
        );
        world.inventory = Arc::clone(&inventory);
        last = Some((drawn, inventory));
    }
    worlds
}

fn carried(
    old: &World,
    new: &World,
    info: &EndpointInfo,
    before: &Compiled,
    after: &Compiled,
) -> Result<(), String> {
    let oracle = Oracle {
        inventory: &new.inventory,
        policies: &old.policies,
        now: NOW,
    };
    let rows = Rows::of(&after.state);
    // The table was laid out for the namespace before the change.
    let namespace = &info.workload.id.namespace;
    if old.inventory.namespaces.get(namespace) != new.inventory.namespaces.get(namespace) {
        return Ok(());
    }
    for (address, direction) in pairs(&new.addresses()) {
        let class = kernel::class(&after.state, address);
        let pair = oracle.pair(&info.workload, address, direction);
        for protocol in PROTOCOLS {
            for port in [0, 53, 80, 1024] {
                let decision = rows.decide(info.table, class, direction, (protocol, port), BOOT);
                let decision = decision.ok_or("a carried table without rows")?;
                let (said, rule) = (pair.say(protocol, port), name(before, decision.rule));
                if !said.deciders.contains(&rule) {
                    let who = &info.workload.id;
                    return Err(format!(
                        "{who} {direction:?} {address} {protocol}/{port}: {rule}, {said:?}"
                    ));
                }
            }
        }
    }
    Ok(())
}
