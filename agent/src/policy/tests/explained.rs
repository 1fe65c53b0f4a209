//! Explanations agree with the compiled rows; rules reported as matching match and others do not;
//! advice yields the verdict it states.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::prelude::*;
use ringfence_common::mode::{Direction, Verdict};

use super::agreement::questions;
use crate::{
    model::{
        LabelSelector, Policy, PolicyKind, PolicySet, Rule, RuleAction, Scope, TestEnd, Workload,
    },
    oracle::{NOW, Oracle, World, cases, world},
    policy::{
        Evaluator, Query,
        explain::{Alternative, Explanation, RuleStanding, Side, Standing, explain},
    },
    source::policy_toml,
};

/// Every pair of addresses of one family, with ports around every bound.
fn flows(world: &World, thin: usize) -> Vec<(IpAddr, IpAddr, Query, (u8, u16))> {
    let addresses = world.addresses();
    let mut flows = Vec::new();
    for from in &addresses {
        for to in addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            let ports = world.ports().into_iter().step_by(3);
            for (port, flow) in questions(*to, ports) {
                let (start, end) = (TestEnd::Address(*from), TestEnd::Address(*to));
                let family = None;
                let query = Query {
                    from: start,
                    to: end,
                    port,
                    family,
                };
                flows.push((*from, *to, query, flow));
            }
        }
    }
    flows.into_iter().step_by(thin).collect()
}

fn asked(world: &World, query: &Query) -> Explanation {
    explain(&world.inventory, &world.policies, NOW, query, true).unwrap()
}

#[test]
fn an_explanation_says_what_the_evaluator_says() {
    let evaluated = AtomicU64::new(0);
    proptest!(cases(60), |(world in world())| {
        let evaluator = Evaluator::new(&world.inventory, &world.policies, NOW).unwrap();
        for (_, _, query, _) in flows(&world, 3) {
            let (answer, why) = (evaluator.ask(&query).unwrap(), asked(&world, &query));
            let same = |side: &Side, said: &crate::policy::Side| {
                (side.verdict, &side.rule, &side.policy) == (said.verdict, &said.rule, &said.policy)
            };
            let agreed = same(&why.egress, &answer.egress) && same(&why.ingress, &answer.ingress);
            prop_assert!(agreed && why.verdict == answer.verdict, "{query:?}: {answer:?}, {why:?}");
            evaluated.fetch_add(1, Ordering::Relaxed);
        }
    });
    println!("{evaluated:?} flows");
}

fn rule_of<'a>(world: &'a World, direction: Direction, tried: &RuleStanding) -> &'a Rule {
    let policies = &mut world.policies.iter();
    let policy = policies.find(|policy| policy.id().to_string() == tried.policy);
    let index = tried.rule.trim_end_matches(']').rsplit('[').next().unwrap();
    &policy.unwrap().rules(direction).unwrap()[index.parse::<usize>().unwrap()]
}

/// Whether the oracle finds that a rule matches when it is the only rule.
fn matches(
    world: &World,
    (own, other): (IpAddr, IpAddr),
    direction: Direction,
    flow: (u8, u16),
    rule: &Rule,
) -> bool {
    let mut oracle = Oracle {
        inventory: &world.inventory,
        policies: &world.policies,
        now: NOW,
    };
    let subject: &Workload = oracle.owner(own).unwrap();
    let rules = |here| {
        let mut rule = rule.clone();
        if rule.action == RuleAction::Pass {
            // It matches what an allow rule matches.
            rule.action = RuleAction::Allow;
        }
        (here == direction).then(|| vec![rule])
    };
    let alone = Policy {
        kind: PolicyKind::Ringfence,
        name: crate::model::PolicyName::new("alone").unwrap(),
        scope: Scope::Namespace(subject.id.namespace.clone()),
        subject: LabelSelector::everything(),
        about: Default::default(),
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
        tests: Vec::new(),
        origin: crate::model::Origin {
            file: Arc::from("alone"),
            line: 1,
        },
    };
    let set = PolicySet::build([Arc::new(alone)]).unwrap();
    oracle.policies = &set;
    let said = oracle.side(own, other, direction, flow);
    !said.deciders.contains(&"default-deny".to_owned())
}

#[test]
fn a_rule_matches_exactly_if_nothing_is_said_to_be_missing() {
    let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
    proptest!(cases(60), |(world in world())| {
        for (from, to, query, flow) in flows(&world, 11) {
            let why = asked(&world, &query);
            for (side, ends) in [(&why.egress, (from, to)), (&why.ingress, (to, from))] {
                for tried in &side.rules {
                    let rule = rule_of(&world, side.direction, tried);
                    let real = matches(&world, ends, side.direction, flow, rule);
                    let said = tried.standing != Standing::NoMatch;
                    prop_assert!(real == said && said == tried.misses.is_empty(),
                        "{query:?}: {tried:?}");
                    let count = if real { &hits } else { &misses };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    println!("{hits:?} rules match, {misses:?} do not");
}

/// The policies after the steps of an advice; `None` for steps that need a person.
fn followed(
    world: &World,
    subject: &Workload,
    side: &Side,
    way: &Alternative,
) -> Option<PolicySet> {
    let mut policies: Vec<Arc<Policy>> = world.policies.iter().cloned().collect();
    let removals: Vec<&str> = way
        .steps
        .iter()
        .filter(|step| !step.starts_with('('))
        .map(|step| step.strip_prefix("remove or narrow ").unwrap_or_default())
        .collect();
    if !way.snippet.is_empty() {
        let scope = if way.steps[0].contains("admin policy of priority") {
            "scope = \"cluster\"\ntier = \"admin\"\npriority = 0".to_owned()
        } else {
            format!("namespace = \"{}\"", subject.id.namespace)
        };
        let text = format!(
            "[[policy]]\nname = \"advice\"\n{scope}\nsubject = \"\"\n\n{}\n",
            way.snippet.join("\n")
        );
        let parsed = policy_toml::parse("advice", &text).unwrap();
        policies.extend(parsed.policies);
    } else if removals.contains(&"") {
        return None;
    } else {
        for policy in &mut policies {
            let id = policy.id();
            let policy = Arc::make_mut(policy);
            let file = policy.origin.file.clone();
            let rules = match side.direction {
                Direction::Ingress => &mut policy.ingress,
                Direction::Egress => &mut policy.egress,
            };
            let Some(rules) = rules else { continue };
            let direction = side.direction.name();
            let mut index = 0;
            rules.retain(|rule| {
                let title = format!("{direction}[{index}] of {id} ({file}:{})", rule.line);
                index += 1;
                !removals.contains(&title.as_str())
            });
        }
    }
    Some(PolicySet::build(policies).unwrap())
}

#[test]
fn advice_that_is_followed_turns_the_verdict() {
    let (followed_up, given) = (AtomicU64::new(0), AtomicU64::new(0));
    proptest!(cases(60), |(world in world())| {
        for (_, _, query, _) in flows(&world, 23) {
            let why = asked(&world, &query);
            for direction in [Direction::Egress, Direction::Ingress] {
                let (side, who) = match direction {
                    Direction::Egress => (&why.egress, &why.from),
                    Direction::Ingress => (&why.ingress, &why.to),
                };
                let mut workloads = world.inventory.workloads.values();
                let subject = workloads.find(|workload| workload.id.to_string() == who.name);
                for way in &side.advice.alternatives {
                    given.fetch_add(1, Ordering::Relaxed);
                    let policies = followed(&world, subject.unwrap(), side, way);
                    let Some(policies) = policies else { continue };
                    let then = explain(&world.inventory, &policies, NOW, &query, true).unwrap();
                    let then = if direction == Direction::Egress { then.egress } else { then.ingress };
                    prop_assert!(then.verdict != side.verdict, "{query:?}: {way:?}: {then:?}");
                    followed_up.fetch_add(1, Ordering::Relaxed);
                }
                let stuck = side.verdict == Verdict::Deny && side.advice.alternatives.is_empty()
                    && side.advice.notes.is_empty();
                prop_assert!(!stuck, "no advice: {side:?}");
            }
        }
    });
    println!("{given:?} pieces of advice, {followed_up:?} followed");
}
