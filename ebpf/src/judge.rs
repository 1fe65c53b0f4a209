//! One question to policy: may this endpoint exchange this kind of flow with this peer?
//!
//! Invariants: the peer is resolved afresh at every question; a peer that no map knows is denied
//! whatever the rows say; the answer carries the rule that made it.

use ringfence_common::{
    ids::{IdentityId, RuleSlot},
    mode::{Direction, Verdict},
    net::Port,
    policy::{Decision, Query, decide},
    reason::DropReason,
};

use crate::{context::Context, family::Family, maps};

/// A decision with what telemetry wants to know.
#[derive(Clone, Copy)]
pub struct Judged {
    pub decision: Decision,
    pub peer: IdentityId,
    /// A [`DropReason`] when denied, else 0.
    pub reason: u8,
}

impl Judged {
    #[inline(always)]
    pub fn allowed_by(rule: RuleSlot, peer: IdentityId) -> Self {
        Self {
            decision: Decision::lasting(Verdict::Allow, rule),
            peer,
            reason: 0,
        }
    }

    #[inline(always)]
    fn doubt(reason: DropReason, peer: IdentityId) -> Self {
        let decision = Decision::lasting(Verdict::Deny, RuleSlot::NONE);
        Self {
            decision,
            peer,
            reason: reason as u8,
        }
    }
}

/// Asks the endpoint's table about a flow that goes in `direction` to `port`.
#[inline(always)]
pub fn judge<A: Family>(
    context: &Context,
    direction: Direction,
    peer: A,
    protocol: u8,
    port: Port,
) -> Judged {
    let identity = peer.identity();
    if identity == IdentityId::UNKNOWN {
        return Judged::doubt(DropReason::UnknownPeer, identity);
    }
    let query = Query {
        table: context.endpoint.table,
        class: maps::class(identity),
        direction,
        protocol,
        port,
    };
    match decide(&maps::Policy, &query, context.now) {
        Ok(decision) => {
            let reason = match decision.verdict {
                Verdict::Allow => 0,
                Verdict::Deny => DropReason::Policy as u8,
            };
            Judged {
                decision,
                peer: identity,
                reason,
            }
        }
        Err(reason) => Judged::doubt(reason, identity),
    }
}
