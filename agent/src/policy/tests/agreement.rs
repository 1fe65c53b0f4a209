//! The compiled rows, and the evaluator, say what the oracle says.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::prelude::*;
use ringfence_common::{
    ids::RuleSlot,
    mode::{Direction, Verdict},
    policy::{Decision, FOREVER},
};

use super::{
    cases,
    kernel::{self, Rows},
    worlds::{BOOT, NOW, World, world},
};
use crate::{
    model::{PortMatch, Protocol, TestEnd, WallTime},
    policy::{
        Compiled, Compiler, Evaluator, Query, QueryError, Side,
        oracle::{Oracle, Said},
    },
};

pub(super) const PROTOCOLS: [u8; 7] = [6, 17, 132, 1, 58, 47, 0];

pub(super) fn name(compiled: &Compiled, slot: RuleSlot) -> String {
    match compiled.rules.get(&slot) {
        Some(info) => format!("{} {}", info.policy.id(), info.name()),
        None => slot.reserved_name().unwrap_or("?").to_owned(),
    }
}

fn agrees(compiled: &Compiled, decision: Option<Decision>, said: &Said) -> Result<(), String> {
    let Some(decision) = decision else {
        return Err("no row".into());
    };
    let allow = decision.verdict == Verdict::Allow;
    let rule = name(compiled, decision.rule);
    if allow != said.allow || !said.deciders.contains(&rule) {
        return Err(format!("rows say {allow} by {rule}, the oracle {said:?}"));
    }
    Ok(())
}

/// Compares every endpoint × peer × direction × protocol × port; returns how many there were.
pub(super) fn compare(world: &World, compiled: &Compiled, at: i64) -> Result<u64, String> {
    let now = WallTime(NOW.0 + at);
    let oracle = Oracle {
        inventory: &world.inventory,
        policies: &world.policies,
        now,
    };
    let rows = Rows::of(&compiled.state);
    let (addresses, ports) = (world.addresses(), world.ports());
    let mut probes = 0;
    for endpoint in compiled.endpoints.values() {
        for (address, direction) in pairs(&addresses) {
            let class = kernel::class(&compiled.state, address);
            let pair = oracle.pair(&endpoint.workload, address, direction);
            for protocol in PROTOCOLS {
                let ported = matches!(protocol, 6 | 17 | 132);
                for port in ports.iter().copied().filter(|port| ported || *port < 2) {
                    let boot = BOOT.saturating_add_signed(at);
                    let decision =
                        rows.decide(endpoint.table, class, direction, (protocol, port), boot);
                    agrees(compiled, decision, &pair.say(protocol, port)).map_err(|why| {
                        let who = &endpoint.workload.id;
                        format!("{who} {direction:?} {address} {protocol}/{port} +{at}: {why}")
                    })?;
                    probes += 1;
                }
            }
        }
    }
    Ok(probes)
}

pub(super) fn pairs(addresses: &[IpAddr]) -> impl Iterator<Item = (IpAddr, Direction)> {
    addresses.iter().flat_map(|address| {
        [Direction::Ingress, Direction::Egress].map(|direction| (*address, direction))
    })
}

#[test]
fn compiled_rows_say_what_the_oracle_says() {
    let (sets, probes) = (AtomicU64::new(0), AtomicU64::new(0));
    proptest!(cases(2000), |(world in world())| {
        let compiled = world.compile(&mut Compiler::default());
        let compared = compare(&world, &compiled, 0).map_err(TestCaseError::fail)?;
        sets.fetch_add(1, Ordering::Relaxed);
        probes.fetch_add(compared, Ordering::Relaxed);
    });
    println!("{sets:?} policy sets, {probes:?} probes");
}

#[test]
fn rows_keep_time_until_the_next_change_is_due() {
    proptest!(cases(100), |(world in world())| {
        let compiled = world.compile(&mut Compiler::default());
        let due = compiled.next_change.unwrap_or(FOREVER);
        prop_assert!(due > BOOT);
        // Every row holds one change, so that all is right until the second one anywhere; the
        // first one is when the agent writes again.
        for at in [0, 1, 999_999_999, 1_000_000_000] {
            if BOOT.saturating_add_signed(at) <= due {
                compare(&world, &compiled, at).map_err(TestCaseError::fail)?;
            }
        }
    });
}

fn side_agrees(side: &Side, said: &Said) -> bool {
    let rule = match &side.policy {
        Some(policy) => format!("{policy} {}", side.rule),
        None => side.rule.clone(),
    };
    (side.verdict == Verdict::Allow) == said.allow && said.deciders.contains(&rule)
}

fn questions(to: IpAddr, ports: impl Iterator<Item = u16>) -> Vec<(PortMatch, (u8, u16))> {
    let icmp = if to.is_ipv6() { 58 } else { 1 };
    let mut all = vec![
        (PortMatch::Protocol(Protocol::Icmp), (icmp, 0)),
        (PortMatch::Protocol(Protocol::Number(47)), (47, 0)),
    ];
    for port in ports.filter(|port| *port != 0) {
        for (protocol, number) in [
            (Protocol::Tcp, 6),
            (Protocol::Udp, 17),
            (Protocol::Sctp, 132),
        ] {
            let one = PortMatch::Range {
                protocol,
                first: port,
                last: port,
            };
            all.push((one, (number, port)));
        }
    }
    all
}

#[test]
fn the_evaluator_says_what_the_oracle_says() {
    proptest!(cases(60), |(world in world())| {
        let evaluator = Evaluator::new(world.inventory.clone(), &world.policies, NOW).unwrap();
        let oracle = Oracle { inventory: &world.inventory, policies: &world.policies, now: NOW };
        let addresses = world.addresses();
        for from in &addresses {
            for to in &addresses {
                let ports = world.ports().into_iter().step_by(3);
                for (port, flow) in questions(*to, ports) {
                    let (start, end) = (TestEnd::Address(*from), TestEnd::Address(*to));
                    let query = Query { from: start, to: end, port, family: None };
                    let answer = evaluator.ask(&query);
                    if from.is_ipv4() != to.is_ipv4() {
                        let refused = matches!(answer, Err(QueryError::NoCommonFamily { .. }));
                        prop_assert!(refused);
                        continue;
                    }
                    let answer = answer.unwrap();
                    let egress = oracle.side(*from, *to, Direction::Egress, flow);
                    let ingress = oracle.side(*to, *from, Direction::Ingress, flow);
                    let agreed = side_agrees(&answer.egress, &egress)
                        && side_agrees(&answer.ingress, &ingress)
                        && (answer.verdict == Verdict::Allow) == (egress.allow && ingress.allow);
                    prop_assert!(agreed, "{query:?}: {answer:?}, oracle {egress:?} {ingress:?}");
                }
            }
        }
    });
}
