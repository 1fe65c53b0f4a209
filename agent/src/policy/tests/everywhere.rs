//! All ports at once: port verdicts, differences and reach against one lookup at a time.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::prelude::*;
use ringfence_common::mode::{Direction, Verdict};

use super::agreement::questions;
use crate::{
    model::{PortMatch, Protocol, TestEnd, WorkloadId},
    oracle::{NOW, World, cases, world},
    policy::{
        Evaluator, Query,
        difference::{GroupKind, GroupName, Version, difference},
        port_verdicts::overlay,
        reach::{Question, reach},
    },
};

fn query(from: IpAddr, to: IpAddr, port: PortMatch) -> Query {
    Query {
        from: TestEnd::Address(from),
        to: TestEnd::Address(to),
        port,
        family: None,
    }
}

#[test]
fn spans_say_at_every_port_what_the_evaluator_says() {
    let probes = AtomicU64::new(0);
    proptest!(cases(60), |(world in world())| {
        let evaluator = Evaluator::new(&world.inventory, &world.policies, NOW).unwrap();
        let mut reader = evaluator.spans();
        for workload in world.inventory.workloads.values() {
            let table = evaluator.table(&workload.id).unwrap();
            let own = workload.addresses.first().copied();
            let others = world.addresses();
            let others = others.iter().filter(|other| !workload.addresses.contains(other));
            for other in others {
                let Some(own) = own.filter(|own| own.is_ipv4() == other.is_ipv4()) else {
                    continue;
                };
                let spans = reader.spans(table, evaluator.class_of(*other), Direction::Egress);
                let stretches = overlay([&*spans]);
                for (port, (number, at)) in questions(*other, world.ports().into_iter()) {
                    let answer = evaluator.ask(&query(own, *other, port)).unwrap();
                    let named = stretches.iter().any(|s| s.protocol == Some(number));
                    let wanted = named.then_some(number);
                    let found: Vec<_> = stretches
                        .iter()
                        .filter(|s| s.protocol == wanted && (s.first..=s.last).contains(&at))
                        .collect();
                    prop_assert_eq!(found.len(), 1);
                    let [decided] = found[0].decided;
                    let title = evaluator.title(decided.by);
                    let said = match &answer.egress.policy {
                        Some(policy) => format!("{} of {policy}", answer.egress.rule),
                        None => answer.egress.rule.clone(),
                    };
                    prop_assert_eq!((decided.verdict, title), (answer.egress.verdict, said));
                    probes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    println!("{probes:?} probes");
}

/// The verdicts between two workloads, for every pair of addresses and every relevant port.
fn verdicts(
    world: &World,
    ports: &BTreeSet<u16>,
    evaluator: &Evaluator,
    (from, to): (&WorkloadId, &WorkloadId),
) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for from in &world.inventory.workload(from).unwrap().addresses {
        for to in &world.inventory.workload(to).unwrap().addresses {
            if from.is_ipv4() != to.is_ipv4() {
                continue;
            }
            let raw = [0, 99].map(|number| PortMatch::Protocol(Protocol::Number(number)));
            let ported = questions(*to, ports.iter().copied());
            for port in ported.into_iter().map(|(port, _)| port).chain(raw) {
                verdicts.push(evaluator.ask(&query(*from, *to, port)).unwrap().verdict);
            }
        }
    }
    verdicts
}

fn version(world: &World) -> Version<'_> {
    let World {
        inventory,
        policies,
    } = world;
    Version {
        inventory,
        policies,
    }
}

/// Whether a group contains a workload; `None` if its list is truncated.
fn has(group: &GroupName, workload: &WorkloadId) -> Option<bool> {
    let listed = group.members.contains(&workload.to_string());
    let complete = group.kind != GroupKind::Workloads || group.count == group.members.len();
    (listed || complete).then_some(listed)
}

fn any_has<'a>(
    groups: impl IntoIterator<Item = &'a GroupName>,
    workload: &WorkloadId,
) -> Option<bool> {
    let all: Option<Vec<bool>> = groups
        .into_iter()
        .map(|group| has(group, workload))
        .collect();
    Some(all?.into_iter().any(|has| has))
}

#[test]
fn a_difference_names_the_pairs_whose_verdicts_differ() {
    let (same, other) = (AtomicU64::new(0), AtomicU64::new(0));
    proptest!(cases(60), |(old in world(), new in world())| {
        // Two sets of policies over one inventory.
        let new = World { inventory: old.inventory.clone(), policies: new.policies };
        let policies = new.policies.iter().filter(|policy| {
            policy.id().namespace.is_none_or(|n| old.inventory.namespaces.contains_key(&n))
        });
        let policies = std::sync::Arc::new(crate::model::PolicySet::build(policies.cloned()).unwrap());
        let new = World { policies, ..new };
        let found = difference(version(&old), version(&new), NOW).unwrap();
        let ports: BTreeSet<u16> = old.ports().union(&new.ports()).copied().collect();
        let evaluate_all = |world: &World| {
            Evaluator::new(&world.inventory, &world.policies, NOW).unwrap()
        };
        let (before, after) = (evaluate_all(&old), evaluate_all(&new));
        let ids: Vec<&WorkloadId> = old.inventory.workloads.keys().collect();
        for from in &ids {
            for to in ids.iter().filter(|to| *to != from) {
                let ends = (*from, *to);
                let real = verdicts(&old, &ports, &before, ends)
                    != verdicts(&new, &ports, &after, ends);
                let named: Option<Vec<bool>> = found
                    .changes
                    .iter()
                    .map(|change| {
                        let from = any_has(change.from.iter().map(|place| &found.groups[*place]), from)?;
                        let to = any_has(change.to.iter().map(|place| &found.groups[*place]), to)?;
                        Some(from && to)
                    })
                    .collect();
                let Some(named) = named else { continue };
                let said = named.contains(&true);
                prop_assert_eq!(said, real, "{} to {}: {:?}", from, to, found.changes);
                let count = if said { &other } else { &same };
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    println!("{same:?} pairs are alike, {other:?} differ");
}

#[test]
fn what_is_reached_at_once_is_what_some_port_is_allowed_to() {
    let (reached, not) = (AtomicU64::new(0), AtomicU64::new(0));
    proptest!(cases(60), |(world in world())| {
        let evaluator = Evaluator::new(&world.inventory, &world.policies, NOW).unwrap();
        let ids: Vec<&WorkloadId> = world.inventory.workloads.keys().collect();
        for from in &ids {
            let question = Question { from: (*from).clone(), transitive: false, port: None };
            let found = reach(&world.inventory, &world.policies, NOW, &question).unwrap();
            let mut all = 0;
            for to in ids.iter().filter(|to| *to != from) {
                let ports = world.ports();
                let real = verdicts(&world, &ports, &evaluator, (from, to))
                    .contains(&Verdict::Allow);
                all += usize::from(real);
                let named: Vec<GroupName> = found.reached.iter().map(|r| r.to.clone()).collect();
                if let Some(said) = any_has(&named, to) {
                    prop_assert_eq!(said, real, "{} to {}: {:?}", from, to, found);
                }
                let count = if real { &reached } else { &not };
                count.fetch_add(1, Ordering::Relaxed);
            }
            prop_assert_eq!((found.workloads, found.direct), (all, all), "{:?}", found);
        }
    });
    println!("{reached:?} pairs in reach, {not:?} not");
}
