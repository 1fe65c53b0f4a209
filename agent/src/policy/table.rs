//! A policy table's specification: the rules of one endpoint's policies, independent of peers.
//!
//! Invariants: two endpoints with equal specifications share one table. The rules of a fence are in
//! evaluation order: by tier, priority, policy, and index in the policy. Windows that the time of
//! layout has settled are removed: a lapsed rule is left out, and a rule that has started has no
//! window. So a specification is new whenever time changed its content, and the rows of a table
//! change only for new classes.

use std::{collections::BTreeSet, sync::Arc};

use ringfence_common::{ids::RuleSlot, mode::Direction};

use super::desired::Clock;
use super::{
    digest::digest_of,
    numbers::{Exhausted, Numbers, Space},
    ports::{self, PortRange},
    selector::{Requirement, Selector},
    tunnels::Tunnels,
};
use crate::model::{
    NamedPort, Peer, Peers, Policy, Rule, RuleAction, Scope, Tier, WallTime, Window,
};

/// Evaluation order of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    Admin(u16),
    Namespace,
    Baseline(u16),
}

impl Stage {
    pub(crate) fn of(policy: &Policy) -> Self {
        match &policy.scope {
            Scope::Namespace(_) => Self::Namespace,
            Scope::Cluster { tier, priority, .. } => match tier {
                Tier::Admin => Self::Admin(priority.get()),
                Tier::Baseline => Self::Baseline(priority.get()),
            },
        }
    }

    /// True for stages of the same tier.
    pub(crate) const fn same_tier(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Admin(_), Self::Admin(_))
                | (Self::Namespace, Self::Namespace)
                | (Self::Baseline(_), Self::Baseline(_))
        )
    }
}

/// One rule of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FenceRule {
    pub(crate) stage: Stage,
    /// The policy's index among those of the fence.
    pub(crate) policy: u32,
    pub(crate) action: RuleAction,
    pub(crate) slot: RuleSlot,
    /// Any of these peers; `None` for all.
    pub(crate) peers: Option<Vec<Selector>>,
    /// Any of these ports; `None` for every protocol.
    pub(crate) ports: Option<BTreeSet<PortRange>>,
    /// Edges after the time of layout.
    pub(crate) window: Window,
}

/// One direction of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    /// Whether any policy of the namespace tier isolates this direction.
    pub isolated: bool,
    /// Whether any policy has this direction.
    pub has_policies: bool,
    pub(crate) rules: Vec<FenceRule>,
    /// The tunnels of nodes that traffic of this direction could enter.
    pub(crate) tunnels: Option<Arc<Tunnels>>,
}

/// Both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TableSpec {
    /// To the workload.
    pub ingress: Fence,
    /// From the workload.
    pub egress: Fence,
    /// The first edge of a window, on both clocks; none if time changes nothing.
    pub(crate) edge: Option<Edge>,
}

/// A time at which the table's verdicts may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Edge {
    pub(crate) wall: WallTime,
    /// On the boot clock, in nanoseconds.
    pub(crate) boot: u64,
}

impl Edge {
    /// The boot-clock time of a later wall-clock time.
    pub(crate) fn boot_of(self, time: WallTime) -> u64 {
        self.boot
            .saturating_add_signed(time.0.saturating_sub(self.wall.0))
    }
}

impl TableSpec {
    /// Both directions at a point in time.
    pub(crate) fn new(ingress: Fence, egress: Fence, clock: &Clock) -> Self {
        let edges = ingress.rules.iter().chain(&egress.rules);
        let first = edges
            .flat_map(|rule| [rule.window.not_before, rule.window.expires])
            .flatten()
            .min();
        Self {
            ingress,
            egress,
            edge: first.map(|wall| Edge {
                wall,
                boot: clock.boot(wall),
            }),
        }
    }

    /// The direction's fence.
    #[must_use]
    pub const fn fence(&self, direction: Direction) -> &Fence {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// The rules of both directions.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &FenceRule> {
        self.ingress.rules.iter().chain(&self.egress.rules)
    }

    /// Every selector of its rules, and that of the ends of tunnels if there are any.
    pub(crate) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.ingress
            .rules
            .iter()
            .chain(&self.egress.rules)
            .filter_map(|rule| rule.peers.as_deref())
            .flatten()
            .chain(self.egress.tunnels.iter().map(|tunnels| &tunnels.ends))
    }
}

/// Numbers a policy's rule by its content and position. A changed rule is a new rule; a moved line
/// is not.
pub(crate) fn number_rule(
    numbers: &mut Numbers,
    policy: &Policy,
    direction: Direction,
    index: usize,
    rule: &Rule,
) -> Result<RuleSlot, Exhausted> {
    let said = (rule.action, &rule.peers, &rule.ports, rule.window);
    let digest = digest_of(&(policy.id(), direction as u8, index, said));
    numbers.number(Space::Rule, digest).map(RuleSlot)
}

/// The selectors of a rule's peers; `None` if it has none.
pub(crate) fn selectors_of(rule: &Rule) -> Option<Vec<Selector>> {
    match &rule.peers {
        Peers::Of(peers) => select(Some(peers), None, rule.action),
        Peers::Any | Peers::NoPeer => None,
    }
}

/// The endpoint for which a fence is laid out.
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) direction: Direction,
    /// Named ports of the subject, for ingress rules.
    pub(crate) subject: &'a [NamedPort],
    /// Named ports of all peers, for egress rules.
    pub(crate) declared: &'a BTreeSet<NamedPort>,
    /// Tunnels of nodes, for egress.
    pub(crate) tunnels: Option<&'a Arc<Tunnels>>,
    pub(crate) now: WallTime,
}

/// A policy's rules of one direction.
pub(crate) struct PolicyRules<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) rules: Vec<NumberedRule<'a>>,
}

/// A rule with the slot of its hit counter and the selectors of its peers.
#[derive(Clone, Copy)]
pub(crate) struct NumberedRule<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) slot: RuleSlot,
    pub(crate) selectors: Option<&'a [Selector]>,
}

impl Layout<'_> {
    /// Lays out the policies that select the subject and have the direction.
    pub(crate) fn fence(self, mut policies: Vec<PolicyRules<'_>>) -> Fence {
        let isolated = policies
            .iter()
            .any(|asked| Stage::of(asked.policy) == Stage::Namespace);
        let has_policies = !policies.is_empty();
        // The Baseline tier is not evaluated after an isolating policy.
        policies
            .retain(|asked| !(isolated && matches!(Stage::of(asked.policy), Stage::Baseline(_))));
        // The sort is stable: within a stage, policies stay ordered by name.
        policies.sort_by_key(|asked| Stage::of(asked.policy));
        let mut rules = Vec::new();
        for (place, asked) in (0..).zip(&policies) {
            let stage = Stage::of(asked.policy);
            for asked in &asked.rules {
                let Some(window) = remaining_window(asked.rule.window, self.now) else {
                    continue;
                };
                self.lay_out(*asked, &mut |peers, ports| {
                    rules.push(FenceRule {
                        stage,
                        policy: place,
                        action: asked.rule.action,
                        slot: asked.slot,
                        peers,
                        ports,
                        window,
                    });
                });
            }
        }
        let is_egress = self.direction == Direction::Egress;
        Fence {
            isolated,
            has_policies,
            rules,
            tunnels: self.tunnels.filter(|_| is_egress).cloned(),
        }
    }

    fn lay_out(
        self,
        asked: NumberedRule<'_>,
        add: &mut dyn FnMut(Option<Vec<Selector>>, Option<BTreeSet<PortRange>>),
    ) {
        let peers = match &asked.rule.peers {
            Peers::NoPeer => return,
            Peers::Any => None,
            Peers::Of(peers) => Some(peers.as_slice()),
        };
        let selectors = || asked.selectors.map(<[Selector]>::to_vec);
        let Some(mut resolved) = ports::split(&asked.rule.ports) else {
            return add(selectors(), None);
        };
        for name in std::mem::take(&mut resolved.named) {
            match self.direction {
                Direction::Ingress => {
                    for port in ports::declared(&name, self.subject) {
                        resolved.fixed.extend(ports::exact(port));
                    }
                }
                Direction::Egress => {
                    for port in ports::declared(&name, self.declared) {
                        let selectors = select(peers, Some(port), asked.rule.action);
                        add(selectors, Some(ports::exact(port)));
                    }
                }
            }
        }
        if !resolved.fixed.is_empty() {
            add(selectors(), Some(resolved.fixed));
        }
    }
}

/// The part of a window after a time; `None` if it is over.
fn remaining_window(window: Window, now: WallTime) -> Option<Window> {
    let over = window.expires.is_some_and(|end| end <= now);
    if over {
        return None;
    }
    Some(Window {
        not_before: window.not_before.filter(|start| *start > now),
        expires: window.expires,
    })
}

/// What a rule with this action requires of its peers. One that grants, or passes over rules that might
/// deny, matches no special range that it does not name.
fn select(
    peers: Option<&[Peer]>,
    declares: Option<&NamedPort>,
    action: RuleAction,
) -> Option<Vec<Selector>> {
    let denies = action.denies();
    let question = |peer: Option<&Peer>| {
        Selector::new(Requirement {
            peer: peer.cloned(),
            declares: declares.cloned(),
            unnamed: denies && matches!(peer, Some(Peer::Cidr { .. })),
            ends_tunnels: false,
        })
    };
    match (peers, declares) {
        (None, None) => None,
        (None, Some(_)) => Some(vec![question(None)]),
        (Some(peers), _) => Some(peers.iter().map(|peer| question(Some(peer))).collect()),
    }
}
