//! Addresses that several workloads or nodes claim, and who has them.
//!
//! Pure. Invariants: the outcome does not depend on the order of the claims; an address has at most one
//! owner; without one it is unknown, so that no policy for one of the claimants applies to another. A
//! claim that this node confirms never yields to one that it does not, however recent that one is.

use std::fmt;
use std::sync::Arc;

use super::name::{NodeName, WorkloadId};
use super::workload::{NodeEntry, Workload};

/// Who claims an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claimant {
    /// A workload.
    Workload(WorkloadId),
    /// A node.
    Node(NodeName),
}

impl fmt::Display for Claimant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(id) => write!(out, "workload {id}"),
            Self::Node(name) => write!(out, "node {name}"),
        }
    }
}

/// How much this node itself knows about a claim; more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confirmation {
    /// The claimant was elsewhere, and its source cannot be asked any more.
    Lapsed,
    /// The claimant is elsewhere.
    None,
    /// A workload with an interface on this node.
    Endpoint,
    /// This node, which has the address itself.
    Host,
}

impl Confirmation {
    /// What this node knows about the claims of a workload.
    #[must_use]
    pub fn of_workload(workload: &Workload) -> Self {
        if workload.is_endpoint() {
            return Self::Endpoint;
        }
        let has_lapsed = workload.recency.as_ref().is_some_and(|it| it.has_lapsed);
        if has_lapsed { Self::Lapsed } else { Self::None }
    }

    /// What this node knows about the claims of a node.
    #[must_use]
    pub const fn of_node(node: &NodeEntry) -> Self {
        if node.local { Self::Host } else { Self::None }
    }
}

/// How recent a claim is that no node confirms, by what its source says; the most recent is greatest.
///
/// A network of a cluster gives an address to a new pod before all nodes have seen that the one before
/// is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recency {
    /// Whether the claimant runs, and is not about to end.
    pub is_running: bool,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// What tells it from every other one of that second.
    pub uid: Arc<str>,
    /// Whether it was said so long ago that it gives the claimant no address any more.
    pub has_lapsed: bool,
}

/// A claim to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who claims it.
    pub claimant: Claimant,
    /// What this node knows about it.
    pub confirmation: Confirmation,
    /// How recent it is, if its source says so.
    pub recency: Option<Recency>,
}

impl Claim {
    /// The claims of a workload.
    #[must_use]
    pub fn of_workload(workload: &Workload) -> Self {
        Self {
            claimant: Claimant::Workload(workload.id.clone()),
            confirmation: Confirmation::of_workload(workload),
            recency: workload.recency.clone(),
        }
    }

    /// The claims of a node.
    #[must_use]
    pub fn of_node(node: &NodeEntry) -> Self {
        Self {
            claimant: Claimant::Node(node.name.clone()),
            confirmation: Confirmation::of_node(node),
            recency: None,
        }
    }
}

/// An address with several claimants, or with one whose claim has lapsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    claimants: Vec<Claimant>,
    owner: Option<Claimant>,
    is_by_recency: bool,
    has_lapsed: bool,
}

impl Dispute {
    /// Settles claims: the address belongs to the claimant that this node knows more about than the
    /// others. If this node knows nothing about any of them, it belongs to the most recent one, unless a
    /// source does not say how recent its claim is. Otherwise it has no owner, and none has it by a claim
    /// that has lapsed: the address may be another one's by now.
    #[must_use]
    pub fn new(mut claims: Vec<Claim>) -> Self {
        claims.sort_unstable_by(|a, b| a.claimant.cmp(&b.claimant));
        let most = claims.iter().map(|claim| claim.confirmation).max();
        let has_lapsed = most == Some(Confirmation::Lapsed);
        let best: Vec<&Claim> = claims
            .iter()
            .filter(|claim| most == Some(claim.confirmation))
            .collect();
        let (owner, is_by_recency) = match best.as_slice() {
            [claim] if !has_lapsed => (Some(claim.claimant.clone()), false),
            several if most == Some(Confirmation::None) => {
                let owner = most_recent(several);
                (owner.cloned(), owner.is_some())
            }
            _ => (None, false),
        };
        Self {
            claimants: claims.into_iter().map(|claim| claim.claimant).collect(),
            owner,
            is_by_recency,
            has_lapsed,
        }
    }

    /// Whether nothing but claims that have lapsed say whose the address is.
    #[must_use]
    pub const fn has_lapsed(&self) -> bool {
        self.has_lapsed
    }

    /// Whether the owner is the most recent claimant. That happens whenever an address is given to
    /// another workload, and is no fault.
    #[must_use]
    pub const fn is_by_recency(&self) -> bool {
        self.is_by_recency
    }

    /// All claimants, in name order.
    #[must_use]
    pub fn claimants(&self) -> &[Claimant] {
        &self.claimants
    }

    /// The owner, if there is one.
    #[must_use]
    pub const fn owner(&self) -> Option<&Claimant> {
        self.owner.as_ref()
    }
}

/// The most recent claimant, if every claim says how recent it is and one is more recent than all others.
fn most_recent<'a>(claims: &[&'a Claim]) -> Option<&'a Claimant> {
    let mut claims: Vec<(&Recency, &Claimant)> = claims
        .iter()
        .map(|claim| Some((claim.recency.as_ref()?, &claim.claimant)))
        .collect::<Option<_>>()?;
    claims.sort_unstable();
    match claims.as_slice() {
        [.., (second, _), (first, _)] if second == first => None,
        [.., (_, claimant)] => Some(claimant),
        [] => None,
    }
}

#[cfg(test)]
mod tests;
