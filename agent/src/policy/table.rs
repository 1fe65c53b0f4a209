//! A policy table's specification: what one endpoint's policies say, before any peer is looked at.
//!
//! Invariants: two endpoints with equal specifications share one table; the rules of a fence are in
//! the order in which they decide, first match first: in the namespace tier every deny comes before
//! every allow. A specification changes if and only if its table's number must.

use std::collections::BTreeSet;

use ringfence_common::{
    ids::RuleSlot,
    mode::{Direction, Verdict},
};

use super::{
    numbers::{Exhausted, Numbers, Space, digest_of},
    ports::{self, PortRange},
    selector::{Question, Selector},
};
use crate::model::{NamedPort, Peer, Peers, Policy, Rule, RuleAction, Window, Workload};

/// One rule as it stands in a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FenceRule {
    pub(crate) verdict: Verdict,
    pub(crate) slot: RuleSlot,
    /// Any of these peers; `None` for everyone.
    pub(crate) peers: Option<Vec<Selector>>,
    /// Any of these ports; `None` for every protocol.
    pub(crate) ports: Option<BTreeSet<PortRange>>,
    pub(crate) window: Window,
}

/// One direction of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    /// Whether any policy isolates this direction.
    pub isolated: bool,
    pub(crate) rules: Vec<FenceRule>,
}

/// Both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TableSpec {
    /// Towards the workload.
    pub ingress: Fence,
    /// Away from the workload.
    pub egress: Fence,
}

impl TableSpec {
    /// The direction's fence.
    #[must_use]
    pub const fn fence(&self, direction: Direction) -> &Fence {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Every selector that its rules ask.
    pub(crate) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.ingress
            .rules
            .iter()
            .chain(&self.egress.rules)
            .filter_map(|rule| rule.peers.as_deref())
            .flatten()
    }
}

/// A rule with the number under which it counts its hits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NumberedRule<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) slot: RuleSlot,
}

/// Numbers a policy's rule by what it says and where it stands; a changed rule is a new rule, a
/// moved line is not.
pub(crate) fn number_rule(
    numbers: &mut Numbers,
    policy: &Policy,
    direction: Direction,
    index: usize,
    rule: &Rule,
) -> Result<RuleSlot, Exhausted> {
    let said = (rule.action, &rule.peers, &rule.ports, rule.window);
    let digest = digest_of(&(policy.id(), direction, index, said));
    numbers.number(Space::Rule, digest).map(RuleSlot)
}

/// Lays out one direction of an endpoint from the policies that select it.
///
/// `declared` are all ports that any peer declares by name, for names on the way out.
pub(crate) fn fence<'a>(
    direction: Direction,
    subject: &Workload,
    isolated: bool,
    rules: impl Iterator<Item = NumberedRule<'a>>,
    declared: &BTreeSet<NamedPort>,
) -> Fence {
    let mut fence = Fence {
        isolated,
        rules: Vec::new(),
    };
    for rule in rules {
        lay_out(direction, subject, rule, declared, &mut fence.rules);
    }
    // Stable: within one verdict, the order of policies and of their rules stays.
    fence.rules.sort_by_key(|rule| match rule.verdict {
        Verdict::Deny => 0,
        Verdict::Allow => 1,
    });
    fence
}

fn lay_out(
    direction: Direction,
    subject: &Workload,
    numbered: NumberedRule<'_>,
    declared: &BTreeSet<NamedPort>,
    into: &mut Vec<FenceRule>,
) {
    let rule = numbered.rule;
    let peers = match &rule.peers {
        Peers::Any => None,
        Peers::Of(peers) => Some(peers.as_slice()),
    };
    let mut add = |ports, declares: Option<&NamedPort>| {
        into.push(FenceRule {
            verdict: match rule.action {
                RuleAction::Allow => Verdict::Allow,
                RuleAction::Deny => Verdict::Deny,
            },
            slot: numbered.slot,
            peers: select(peers, declares),
            ports,
            window: rule.window,
        });
    };
    let Some(mut resolved) = ports::split(&rule.ports) else {
        return add(None, None);
    };
    for name in std::mem::take(&mut resolved.named) {
        match direction {
            Direction::Ingress => {
                for port in ports::declared(&name, &subject.ports) {
                    resolved.fixed.extend(ports::exact(port));
                }
            }
            Direction::Egress => {
                for port in ports::declared(&name, declared) {
                    add(Some(ports::exact(port)), Some(port));
                }
            }
        }
    }
    if !resolved.fixed.is_empty() {
        add(Some(resolved.fixed), None);
    }
}

fn select(peers: Option<&[Peer]>, declares: Option<&NamedPort>) -> Option<Vec<Selector>> {
    let question = |peer: Option<&Peer>| {
        Selector::new(Question {
            peer: peer.cloned(),
            declares: declares.cloned(),
        })
    };
    match (peers, declares) {
        (None, None) => None,
        (None, Some(_)) => Some(vec![question(None)]),
        (Some(peers), _) => Some(peers.iter().map(|peer| question(Some(peer))).collect()),
    }
}
