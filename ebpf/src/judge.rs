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

    /// No answer yet, which denies.
    #[inline(always)]
    pub fn undecided() -> Self {
        Self::doubt(DropReason::NoPolicyRow, IdentityId::UNKNOWN)
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

/// What is asked.
pub struct Question<A> {
    pub peer: A,
    pub direction: Direction,
    pub protocol: u8,
    /// Destination port of the flow's first packet.
    pub port: Port,
}

/// Asks the endpoint's table. The answer is written rather than returned because a BPF function
/// returns no more than a register.
#[inline(never)]
pub fn judge<A: Family>(context: &Context, question: &Question<A>, answer: &mut Judged) -> u32 {
    let identity = question.peer.identity();
    if identity == IdentityId::UNKNOWN {
        *answer = Judged::doubt(DropReason::UnknownPeer, identity);
        return 0;
    }
    let query = Query {
        table: context.endpoint.table,
        class: maps::class(identity),
        direction: question.direction,
        protocol: question.protocol,
        port: question.port,
    };
    *answer = match decide(&maps::Policy, &query, context.now) {
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
    };
    0
}
