//! Addresses that several workloads or nodes claim, and who has them.
//!
//! Pure. Invariants: the outcome does not depend on the order of the claims; an address has at most one
//! owner; without one it is unknown, so that no policy for one of the claimants applies to another.

use std::fmt;

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
            Self::Endpoint
        } else {
            Self::None
        }
    }

    /// What this node knows about the claims of a node.
    #[must_use]
    pub const fn of_node(node: &NodeEntry) -> Self {
        if node.local { Self::Host } else { Self::None }
    }
}

/// An address with several claimants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    claimants: Vec<Claimant>,
    owner: Option<Claimant>,
}

impl Dispute {
    /// Settles claims: the address belongs to the claimant that this node knows more about than the
    /// others, or it has no owner.
    #[must_use]
    pub fn new(mut claims: Vec<(Claimant, Confirmation)>) -> Self {
        claims.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let best = claims.iter().map(|(_, confirmation)| *confirmation).max();
        let mut best = claims
            .iter()
            .filter(|(_, confirmation)| best.is_some_and(|best| best == *confirmation));
        let owner = match (best.next(), best.next()) {
            (Some((claimant, _)), None) => Some(claimant.clone()),
            _ => None,
        };
        Self {
            claimants: claims.into_iter().map(|(claimant, _)| claimant).collect(),
            owner,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(id: &str) -> Claimant {
        Claimant::Workload(id.parse().unwrap())
    }

    #[test]
    fn the_claim_that_this_node_confirms_wins_in_any_order() {
        let node = Claimant::Node(NodeName::new("n").unwrap());
        let (a, b) = (workload("shop/a"), workload("shop/b"));
        use Confirmation::{Endpoint, Host, None as Nothing};
        for (claims, owner) in [
            ([(&a, Nothing), (&b, Nothing), (&node, Nothing)], None),
            ([(&a, Endpoint), (&b, Nothing), (&node, Nothing)], Some(&a)),
            ([(&a, Endpoint), (&b, Endpoint), (&node, Nothing)], None),
            ([(&a, Endpoint), (&b, Endpoint), (&node, Host)], Some(&node)),
        ] {
            for turn in 0..3 {
                let mut claims: Vec<_> = claims
                    .iter()
                    .map(|(who, of)| ((*who).clone(), *of))
                    .collect();
                claims.rotate_left(turn);
                let dispute = Dispute::new(claims);
                assert_eq!(dispute.owner(), owner, "{dispute:?}");
                assert_eq!(dispute.claimants(), [a.clone(), b.clone(), node.clone()]);
            }
        }
    }
}
