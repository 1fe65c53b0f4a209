//! Rules that can never decide, because another rule always decides before or instead of them.
//!
//! Invariants: sound, not complete (see `implication`). Which of two matching rules decides follows
//! evaluation order: in a cluster tier the first, in the namespace tier the stronger action, and an
//! admin rule before both other tiers unless a pass may precede it. Expired rules have their own
//! lint; the rules of a copied policy are reported with the copy.

use std::collections::BTreeMap;

use ringfence_common::mode::Direction;

use super::LintInput;
use super::code::LintCode;
use super::duplicate::Copies;
use super::finding::{DIRECTIONS, Finding, Place, places_in};
use super::implication::{covers, covers_tunnels, includes_subjects};
use crate::model::{NamespaceName, Peers, Policy, Priority, RuleAction, Scope, Tier};

pub(super) fn lint(
    policies: &[&Policy],
    copies: &Copies<'_>,
    input: &LintInput<'_>,
) -> Vec<Finding> {
    let tiers = Tiers::of(policies, copies);
    let mut findings = Vec::new();
    for direction in DIRECTIONS {
        for policy in policies.iter().filter(|policy| !copies.has(policy)) {
            let rivals = tiers.rivals(policy, direction, input);
            for place in places_in(policy, direction) {
                findings.extend(shadowed(&place, &rivals, input));
            }
        }
    }
    findings
}

/// The policies by scope in which they compete.
struct Tiers<'a> {
    admin: Vec<(Priority, &'a Policy)>,
    baseline: Vec<(Priority, &'a Policy)>,
    namespaces: BTreeMap<&'a NamespaceName, Vec<&'a Policy>>,
}

/// Another policy whose rules may prevent a policy's rules from deciding.
struct Rival<'a> {
    policy: &'a Policy,
    standing: Standing,
    /// True if both select exactly the same workloads.
    same_subjects: bool,
}

/// How a matching rule of another policy relates to the rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is evaluated first: any match decides the tier.
    Before,
    /// Evaluated together: the strongest of all matching rules decides.
    Together,
    /// Evaluated together: the stronger of both first matches decides.
    Tied,
    /// The same cluster policy: its earlier rules are evaluated first.
    Itself,
}

impl Standing {
    const fn comes_first(self) -> bool {
        matches!(self, Self::Before | Self::Itself)
    }
}

impl<'a> Tiers<'a> {
    fn of(policies: &[&'a Policy], copies: &Copies<'_>) -> Self {
        let mut tiers = Self {
            admin: Vec::new(),
            baseline: Vec::new(),
            namespaces: BTreeMap::new(),
        };
        for policy in policies
            .iter()
            .copied()
            .filter(|policy| !copies.has(policy))
        {
            match &policy.scope {
                Scope::Namespace(namespace) => {
                    let neighbours = tiers.namespaces.entry(namespace).or_default();
                    neighbours.push(policy);
                }
                Scope::Cluster { tier, priority, .. } => match tier {
                    Tier::Admin => tiers.admin.push((*priority, policy)),
                    Tier::Baseline => tiers.baseline.push((*priority, policy)),
                },
            }
        }
        tiers
    }

    fn rivals(
        &self,
        policy: &'a Policy,
        direction: Direction,
        input: &LintInput<'_>,
    ) -> Vec<Rival<'a>> {
        let mut candidates = Vec::new();
        match &policy.scope {
            Scope::Namespace(namespace) => {
                let neighbours = self.namespaces.get(namespace).into_iter().flatten();
                candidates.extend(neighbours.map(|other| (*other, Standing::Together)));
                candidates.extend(self.final_admins(direction));
            }
            Scope::Cluster {
                tier: Tier::Admin,
                priority,
                ..
            } => candidates.extend(in_tier(&self.admin, policy, *priority)),
            Scope::Cluster {
                tier: Tier::Baseline,
                priority,
                ..
            } => {
                candidates.extend(in_tier(&self.baseline, policy, *priority));
                candidates.extend(self.final_admins(direction));
            }
        }
        let inventory = input.inventory;
        candidates
            .into_iter()
            .filter(|(other, _)| other.rules(direction).is_some())
            .filter(|(other, _)| includes_subjects(other, policy, inventory))
            .map(|(other, standing)| Rival {
                policy: other,
                standing,
                same_subjects: includes_subjects(policy, other, inventory),
            })
            .collect()
    }

    /// Admin policies that no pass precedes, so that what they match never leaves the tier.
    fn final_admins(&self, direction: Direction) -> impl Iterator<Item = (&'a Policy, Standing)> {
        let passes = self.admin.iter().filter(move |(_, policy)| {
            places_in(policy, direction).any(|place| place.rule.action == RuleAction::Pass)
        });
        let first_pass = passes.map(|(priority, _)| *priority).min();
        let decided = self
            .admin
            .iter()
            .filter(move |(priority, _)| first_pass.is_none_or(|pass| *priority < pass));
        decided.map(|(_, policy)| (*policy, Standing::Before))
    }
}

fn in_tier<'a>(
    tier: &[(Priority, &'a Policy)],
    policy: &Policy,
    own: Priority,
) -> impl Iterator<Item = (&'a Policy, Standing)> {
    tier.iter().filter_map(move |(priority, other)| {
        let standing = match priority.cmp(&own) {
            std::cmp::Ordering::Less => Standing::Before,
            std::cmp::Ordering::Greater => return None,
            std::cmp::Ordering::Equal if std::ptr::eq(*other, policy) => Standing::Itself,
            std::cmp::Ordering::Equal => Standing::Tied,
        };
        Some((*other, standing))
    })
}

fn shadowed(place: &Place<'_>, rivals: &[Rival<'_>], input: &LintInput<'_>) -> Option<Finding> {
    let rule = place.rule;
    let is_over = rule.window.expires.is_some_and(|end| end <= input.now);
    if is_over || rule.peers == Peers::NoPeer {
        return None;
    }
    let mut duplicate = None;
    let mut shadow: Option<Place<'_>> = None;
    for rival in rivals {
        for other in places_in(rival.policy, place.direction) {
            if !may_overrule(place, &other, rival.standing)
                || !covers(other.rule, rule, input.now, input.inventory)
                || (place.direction == Direction::Egress && !covers_tunnels(other.rule, rule))
            {
                continue;
            }
            let says_the_same = rival.same_subjects
                && rule.action == other.rule.action
                && covers(rule, other.rule, input.now, input.inventory)
                && are_of_one_tier(place.policy, other.policy);
            if !says_the_same {
                if shadow.is_none_or(|known| known.rule.action < other.rule.action) {
                    shadow = Some(other);
                }
            } else if rival.standing.comes_first() || order(&other) < order(place) {
                duplicate.get_or_insert(other);
            }
        }
    }
    if let Some(other) = shadow {
        let action = other.rule.action;
        let what = format!(
            "never decides: {} covers it with {action}",
            other.with_origin()
        );
        return Some(place.finding(LintCode::ShadowedRule, &what));
    }
    duplicate.map(|other| {
        let what = format!("has the same content as {}", other.with_origin());
        place.finding(LintCode::DuplicateRule, &what)
    })
}

/// True if `other`, where it matches, prevents the rule from deciding.
fn may_overrule(place: &Place<'_>, other: &Place<'_>, standing: Standing) -> bool {
    match standing {
        Standing::Before => true,
        Standing::Together => {
            !std::ptr::eq(place.rule, other.rule) && other.rule.action >= place.rule.action
        }
        Standing::Tied => other.index == 0 && other.rule.action >= place.rule.action,
        Standing::Itself => other.index < place.index,
    }
}

fn are_of_one_tier(one: &Policy, other: &Policy) -> bool {
    let tier = |policy: &Policy| match &policy.scope {
        Scope::Namespace(_) => None,
        Scope::Cluster { tier, .. } => Some(*tier),
    };
    tier(one) == tier(other)
}

fn order<'a>(place: &Place<'a>) -> (&'a str, u32, usize) {
    let origin = &place.policy.origin;
    (&origin.file, place.rule.line, place.index)
}
