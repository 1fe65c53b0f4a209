//! Egress isolated without access to DNS: the most common cause of an outage after a first egress
//! policy.
//!
//! Invariant: reported only for policies that allow something (the others isolate on purpose), and
//! only if no policy that certainly selects the same workloads allows udp/53. With an inventory,
//! "the same workloads" are those that exist.

use ringfence_common::mode::Direction;

use super::code::LintCode;
use super::finding::{Finding, places_in};
use super::implication::{covers_port, includes_subjects};
use super::population::{Group, Population};
use crate::model::{Policy, PortMatch, Ports, Protocol, Rule, RuleAction, Scope, Tier, WallTime};

const DNS: PortMatch = PortMatch::Range {
    protocol: Protocol::Udp,
    first: 53,
    last: 53,
};

pub(super) fn lint(
    policies: &[&Policy],
    population: Option<&Population<'_>>,
    now: WallTime,
) -> Vec<Finding> {
    let helpful: Vec<&Policy> = policies
        .iter()
        .copied()
        .filter(|policy| lets_names_be_asked(policy, population, now))
        .collect();
    let forgetful = policies.iter().filter(|policy| {
        fences_egress_of_something(policy, now) && !is_helped(policy, &helpful, population)
    });
    let found = forgetful.map(|policy| {
        let what = "isolates egress, and no policy allows its workloads to use DNS (udp/53)";
        Finding::about(policy, LintCode::DnsForgotten, what)
    });
    found.collect()
}

fn allows(rule: &Rule, now: WallTime) -> bool {
    rule.action == RuleAction::Allow && rule.window.holds(now)
}

fn fences_egress_of_something(policy: &Policy, now: WallTime) -> bool {
    matches!(policy.scope, Scope::Namespace(_))
        && places_in(policy, Direction::Egress).any(|place| allows(place.rule, now))
}

/// The baseline tier is not evaluated where egress is isolated.
fn lets_names_be_asked(
    policy: &Policy,
    population: Option<&Population<'_>>,
    now: WallTime,
) -> bool {
    let is_asked = !matches!(
        policy.scope,
        Scope::Cluster {
            tier: Tier::Baseline,
            ..
        }
    );
    is_asked
        && places_in(policy, Direction::Egress)
            .any(|place| allows(place.rule, now) && is_dns(&place.rule.ports, population))
}

fn is_dns(ports: &Ports, population: Option<&Population<'_>>) -> bool {
    let Ports::Of(ports) = ports else {
        return true;
    };
    covers_port(ports, &DNS) || ports.iter().any(|port| is_dns_name(port, population))
}

/// A named port is taken for DNS by its name; the numbers behind names are resolved in `compile`.
fn is_dns_name(port: &PortMatch, population: Option<&Population<'_>>) -> bool {
    let PortMatch::Named { protocol, name } = port else {
        return false;
    };
    let sounds_right = ["dns", "domain"]
        .iter()
        .any(|word| name.as_str().contains(word));
    sounds_right
        && protocol.is_none_or(|protocol| protocol == Protocol::Udp)
        && population.is_none_or(|all| all.declares(Some(Protocol::Udp), name))
}

fn is_helped(policy: &Policy, helpful: &[&Policy], population: Option<&Population<'_>>) -> bool {
    let surely = |helper: &&Policy| includes_subjects(helper, policy, None);
    if helpful.iter().any(surely) {
        return true;
    }
    let Some(population) = population else {
        return false;
    };
    let mut subjects = population.subjects(policy).peekable();
    subjects.peek().is_some()
        && subjects.all(|group| helpful.iter().any(|helper| selects(helper, group)))
}

fn selects(policy: &Policy, group: &Group<'_>) -> bool {
    let namespace = group.namespace;
    policy.selects(namespace.name(), namespace.labels(), group.labels)
}
