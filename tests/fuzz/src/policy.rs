//! Policy files: accepted ones compile, and evaluation and explanation agree; refused ones give a
//! reason.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ringfence::model::{Inventory, Policy, PolicySet, PortMatch, WallTime, check_namespaces};
use ringfence::policy::{End, Evaluator, LintInput, Query, explain, lint};
use ringfence::source::{PolicyFragment, SourceError, kubernetes, policy_toml as toml, value};

use crate::example::INVENTORY;
use crate::message;

/// A time at which most examples are valid.
pub(crate) const NOW: WallTime = WallTime(1_790_000_000_000_000_000);
/// The queries about accepted policies: these ports, between all pairs of this many workloads and
/// this address.
const PORTS: [&str; 4] = ["tcp/8080", "tcp/443", "udp/53", "icmp"];
const OUTSIDE: &str = "203.0.113.7";
const WORKLOADS: usize = 3;

/// A TOML policy file.
pub fn policy_toml(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check_file(text, toml::parse);
    }
}

/// A file of Kubernetes objects.
pub fn policy_yaml(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check_file(text, kubernetes::parse);
    }
}

type Parser = fn(&str, &str) -> Result<PolicyFragment, Vec<SourceError>>;

fn check_file(text: &str, parse: Parser) {
    let outcome = parse("f", text);
    match outcome {
        Ok(fragment) => {
            assert_eq!(
                parse("f", text).as_ref(),
                Ok(&fragment),
                "parsing twice gives different results"
            );
            message::check_all(&fragment.warnings);
            check_accepted(fragment.policies);
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            message::check_all(&errors);
        }
    }
}

fn check_accepted(policies: Vec<Arc<Policy>>) {
    let policies = match PolicySet::build(policies) {
        Ok(policies) => Arc::new(policies),
        Err(duplicates) => return duplicates.iter().for_each(message::check),
    };
    let findings = lint(&LintInput {
        policies: &policies,
        inventory: Some(&INVENTORY),
        namespaces: &BTreeMap::new(),
        now: NOW,
    });
    for finding in findings {
        message::check(finding.message);
    }
    match check_namespaces(&policies, &INVENTORY) {
        Ok(()) => check_compiled(&INVENTORY, &policies),
        Err(unknown) => unknown.iter().for_each(message::check),
    }
}

/// Compiles the policies for every workload; the policy rows and the explanation must agree for
/// every query.
pub(crate) fn check_compiled(inventory: &Arc<Inventory>, policies: &Arc<PolicySet>) {
    let evaluator = match Evaluator::new(inventory, policies, NOW) {
        Ok(evaluator) => evaluator,
        Err(exhausted) => return message::check(exhausted),
    };
    let named = inventory.workloads.keys().take(WORKLOADS);
    let mut ends: Vec<End> = named.cloned().map(End::Workload).collect();
    let outside: IpAddr = OUTSIDE.parse().expect("it is an address");
    ends.push(End::Address(outside));
    for (from, to) in ends
        .iter()
        .flat_map(|from| ends.iter().map(move |to| (from, to)))
    {
        for port in PORTS {
            let query = Query {
                from: from.clone(),
                to: to.clone(),
                port: port_of(port),
                family: None,
            };
            check_agreement(&evaluator, inventory, policies, &query);
        }
    }
}

fn check_agreement(
    evaluator: &Evaluator,
    inventory: &Arc<Inventory>,
    policies: &Arc<PolicySet>,
    query: &Query,
) {
    let rows = evaluator.ask(query);
    match (rows, explain(inventory, policies, NOW, query, false)) {
        (Ok(rows), Ok(explained)) => assert_eq!(
            (rows.egress.verdict, rows.ingress.verdict),
            (explained.egress.verdict, explained.ingress.verdict),
            "rows and explanation differ for {query:?}"
        ),
        (Err(rows), Err(explained)) => {
            assert_eq!(rows, explained, "different errors for {query:?}");
            message::check(rows);
        }
        (rows, explained) => panic!("evaluation gives {rows:?}, but explanation {explained:?}"),
    }
}

fn port_of(text: &str) -> PortMatch {
    value::test_port(text).expect("it is one port")
}
