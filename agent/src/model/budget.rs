//! Budgets: how much the policies of one namespace may ask for.
//!
//! Pure. Which policies are in force is decided by [`super::PolicyStore`]. Needs are
//! counted on the policies as written, once each, so they do not depend on the workloads that exist: in
//! the kernel a rule has rows in the table of each kind of subject and for each class of its peers, whose
//! sum `plan::capacity` checks. Cluster policies have no budget.

use std::fmt;
use std::sync::Arc;

use super::policy::Policy;
use super::rule::{NamespaceMatch, Peer, Peers, PortMatch, Ports, Rule};

/// What policies need, or may need at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Rules.
    pub rules: u64,
    /// Label selectors of subjects and peers.
    pub selectors: u64,
    /// Prefixes of peers, with exceptions.
    pub cidrs: u64,
    /// Rows, as if every peer were one class and all subjects had one table: a peer with a range of ports
    /// needs one for each prefix of port numbers that the range consists of.
    pub rows: u64,
}

/// The most that the policies of a namespace may need: half of the node's rule slots, and three quarters
/// of its policy rows and prefixes at their default capacities.
pub const DEFAULT_BUDGET: Needs = Needs {
    rules: 8_192,
    selectors: 8_192,
    cidrs: 12_288,
    rows: 49_152,
};

/// A policy that its namespace has no budget for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "policy {} exceeds the budget of its namespace, which would need {needs}, and may {budget}: {}; \
     expected fewer, or more under [budgets] in the configuration", policy.id(), self.outcome()
)]
pub struct OverBudget {
    /// The policy.
    pub policy: Arc<Policy>,
    /// What the namespace would need.
    pub needs: Needs,
    /// What it may need.
    pub budget: Needs,
    /// Whether an earlier version of the policy stays in force.
    pub has_earlier: bool,
}

impl OverBudget {
    const fn outcome(&self) -> &'static str {
        if self.has_earlier {
            "its last good version stays in force"
        } else {
            "it is not in force, and its subjects are locked down where the namespace is in enforce mode"
        }
    }
}

impl Needs {
    /// What a policy needs.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let rules = [&policy.ingress, &policy.egress].into_iter().flatten();
        let subject = Self {
            selectors: 1,
            ..Self::default()
        };
        rules
            .flatten()
            .fold(subject, |sum, rule| sum.plus(rule_needs(rule)))
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            rules: self.rules + other.rules,
            selectors: self.selectors + other.selectors,
            cidrs: self.cidrs + other.cidrs,
            rows: self.rows.saturating_add(other.rows),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            rules: self.rules.saturating_sub(other.rules),
            selectors: self.selectors.saturating_sub(other.selectors),
            cidrs: self.cidrs.saturating_sub(other.cidrs),
            rows: self.rows.saturating_sub(other.rows),
        }
    }

    const fn values(self) -> [u64; 4] {
        [self.rules, self.selectors, self.cidrs, self.rows]
    }

    pub(super) fn is_within(self, most: Self) -> bool {
        let mut values = self.values().into_iter().zip(most.values());
        values.all(|(value, most)| value <= most)
    }

    /// Whether this is within a budget wherever it is more than before.
    pub(super) fn may_follow(self, before: Self, budget: Self) -> bool {
        let values = self.values().into_iter().zip(before.values());
        let mut values = values.zip(budget.values());
        values.all(|((now, before), most)| now <= most || now <= before)
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rules,
            selectors,
            cidrs,
            rows,
        } = self;
        write!(
            out,
            "{rules} rules, {selectors} selectors, {cidrs} prefixes and {rows} rows"
        )
    }
}

fn rule_needs(rule: &Rule) -> Needs {
    let mut needs = Needs {
        rules: 1,
        ..Needs::default()
    };
    let peers: &[Peer] = match &rule.peers {
        Peers::Any | Peers::NoPeer => &[],
        Peers::Of(peers) => peers,
    };
    let mut each = 0_u64;
    for peer in peers {
        match peer {
            Peer::Workloads {
                namespaces, pods, ..
            } => {
                let of_namespaces = matches!(namespaces, NamespaceMatch::Selector(_));
                needs.selectors += u64::from(of_namespaces) + u64::from(pods.is_some());
                each += 1;
            }
            Peer::Cidr { except, .. } => {
                let prefixes = 1 + except.len() as u64;
                needs.cidrs += prefixes;
                each += prefixes;
            }
            Peer::Entity(_) => each += 1,
        }
    }
    needs.rows = each.max(1).saturating_mul(port_prefixes(&rule.ports));
    needs
}

fn port_prefixes(ports: &Ports) -> u64 {
    match ports {
        Ports::Any => 1,
        Ports::Of(matches) => matches.iter().map(prefixes_of).sum::<u64>().max(1),
    }
}

fn prefixes_of(port: &PortMatch) -> u64 {
    let PortMatch::Range { first, last, .. } = port else {
        return 1;
    };
    let (mut first, end) = (u32::from(*first), u32::from(*last) + 1);
    let mut count = 0;
    while first < end {
        // The largest aligned block that fits.
        let aligned = 1_u32 << first.trailing_zeros().min(16);
        let fits = 1_u32 << (end - first).ilog2();
        first += aligned.min(fits);
        count += 1;
    }
    count
}
