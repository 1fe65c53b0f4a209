//! The compiled rows, and the evaluator, agree with the oracle.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::prelude::*;
use ringfence_common::{
    mode::{Direction, Verdict},
    policy,
};

use super::kernel::{self, Rows};
use crate::{
    model::{PortMatch, Protocol, TestEnd, WallTime},
    oracle::{BOOT, NOW, Oracle, Said, World, agrees, cases, report, world},
    policy::{Compiled, Compiler, Evaluator, Query, QueryError, Side, host_table::HostTable},
};

/// This many probes of one world are enough; further probes use another world.
const PROBES: usize = 1500;

/// Compares endpoint × peer × direction × protocol × port: all combinations in a small world (so
/// that failures shrink), evenly spread ones in a large world. Returns their number.
pub(super) fn compare(world: &World, compiled: &Compiled, at: i64) -> Result<u64, String> {
    let now = WallTime(NOW.0 + at);
    let oracle = Oracle {
        inventory: &world.inventory,
        policies: &world.policies,
        now,
    };
    let (rows, host) = (Rows::of(&compiled.state), HostTable::of(&compiled.state));
    let (addresses, flows) = (world.addresses(), world.flows());
    let all = compiled.endpoints.len() * addresses.len() * 2 * flows.len();
    let stride = all.div_ceil(PROBES).max(1);
    let boot = BOOT.saturating_add_signed(at);
    let mut probes = 0;
    let mut offset = usize::try_from(at % 7).unwrap_or(0);
    for endpoint in compiled.endpoints.values() {
        for (address, direction) in pairs(&addresses) {
            let class = kernel::class(&compiled.state, address);
            let pair = oracle.pair(&endpoint.workload, address, direction);
            offset = (offset + 7) % stride;
            for flow in flows.iter().copied().skip(offset).step_by(stride) {
                let decision = rows.decide(endpoint.table, class, direction, flow, boot);
                let query = kernel::query(endpoint.table, class, direction, flow);
                if policy::decide(&host, &query, boot).ok() != decision {
                    return Err(format!("the host's table does not find {decision:?}"));
                }
                agrees(compiled, decision, &pair.say(flow.0, flow.1)).map_err(|why| {
                    let who = &endpoint.workload.id;
                    format!("{who} {direction:?} {address} {flow:?} +{at}: {why}")
                })?;
                probes += 1;
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
    proptest!(cases(10_000), |(world in world())| {
        let compiled = world.compile(&mut Compiler::default());
        let compared = compare(&world, &compiled, 0).map_err(TestCaseError::fail)?;
        sets.fetch_add(1, Ordering::Relaxed);
        probes.fetch_add(compared, Ordering::Relaxed);
    });
    report(&format!(
        "compiled rows: {sets:?} policy sets, {probes:?} probes"
    ));
}

/// Rows are not rewritten: what was compiled once is right at every later time.
#[test]
fn rows_change_on_time_without_being_rewritten() {
    proptest!(cases(300), |(world in world())| {
        let compiled = world.compile(&mut Compiler::default());
        prop_assert!(compiled.next_change.is_none_or(|due| due > BOOT));
        let second = 1_000_000_000;
        for at in [0, 1, second - 1, second, 7 * second - 1, 7 * second, 1000 * second] {
            compare(&world, &compiled, at).map_err(TestCaseError::fail)?;
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

pub(super) fn questions(
    to: IpAddr,
    ports: impl Iterator<Item = u16>,
) -> Vec<(PortMatch, (u8, u16))> {
    let icmp = if to.is_ipv6() { 58 } else { 1 };
    let mut all = vec![(PortMatch::Protocol(Protocol::Icmp), (icmp, 0))];
    for number in [4, 41, 47] {
        all.push((PortMatch::Protocol(Protocol::Number(number)), (number, 0)));
    }
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
        let evaluator = Evaluator::new(&world.inventory, &world.policies, NOW).unwrap();
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
