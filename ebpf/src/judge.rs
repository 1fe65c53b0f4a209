//! One question to policy: may this endpoint exchange this kind of flow with this peer?
//!
//! Invariants: the peer is resolved afresh at every question; a peer that no map knows is denied
//! whatever the rows say; the answer is written into the flow's entry with the rule that made it.
//! The two halves of the answer are functions of their own because there is no stack for both.

use ringfence_common::{
    conntrack::CtEntry,
    ids::{IdentityId, RuleSlot},
    mode::{Direction, Verdict},
    mutant,
    net::Port,
    policy::{self, Decision, PolicyKey, Query},
    reason::DropReason,
};

use crate::{
    clock,
    conntrack::Step,
    context::Context,
    family::Family,
    maps::{self, Policy},
    recent,
};

/// Writes an allow that needs no table.
#[inline(always)]
pub fn allow(entry: &mut CtEntry, rule: RuleSlot, peer: IdentityId) {
    entry.decide(&Decision::lasting(Verdict::Allow, rule), peer);
}

/// A question that this CPU asks: [`judge_now`] leaves it where [`judge_later`] finds it.
pub struct Question {
    key: PolicyKey,
    /// What [`judge_later`] found.
    decision: Decision,
}

/// Asks the endpoint's table about a flow with the packet's peer. `port` is the destination port of
/// the flow's first packet.
#[inline(always)]
pub fn judge<A: Family>(
    context: &Context,
    step: &Step<A>,
    (direction, port): (Direction, Port),
    entry: &mut CtEntry,
) {
    if judge_now(context, step, direction, port, entry) != 0 {
        judge_ahead(entry);
    }
}

/// Takes over what the row of a later step says.
#[inline(never)]
fn judge_ahead(entry: &mut CtEntry) -> u32 {
    let found = judge_later(clock::boot()) != 0;
    match maps::question() {
        Some(question) if found => entry.decide(&question.decision, entry.peer),
        _ => entry.doubt(DropReason::NoPolicyRow, entry.peer),
    }
    0
}

/// Returns 1 when a row of a later step has the answer.
#[inline(never)]
fn judge_now<A: Family>(
    context: &Context,
    step: &Step<A>,
    direction: Direction,
    port: Port,
    entry: &mut CtEntry,
) -> u32 {
    let identity = mutant!(
        unknown_peer_is_world,
        step.peer().identity(),
        match step.peer().identity() {
            IdentityId::UNKNOWN => IdentityId::WORLD,
            identity => identity,
        }
    );
    if identity == IdentityId::UNKNOWN {
        entry.doubt(DropReason::UnknownPeer, identity);
        return 0;
    }
    let Some(question) = maps::question() else {
        entry.doubt(DropReason::NoPolicyRow, identity);
        return 0;
    };
    let asked = mutant!(direction_forgotten, direction, Direction::Egress);
    let query = Query {
        table: context.endpoint.table,
        class: maps::class(identity),
        direction: asked,
        protocol: step.packet.protocol,
        port,
    };
    let asked = query.key();
    if let Some(decision) = recent::recall(&asked, context.now) {
        entry.decide(&decision, identity);
        return 0;
    }
    question.key = asked;
    match policy::first(&Policy, &mut question.key, clock::boot) {
        Ok(Some(decision)) => {
            recent::keep(&asked, context.now, &decision);
            entry.decide(&decision, identity);
        }
        Ok(None) => {
            entry.peer = identity;
            return 1;
        }
        Err(reason) => entry.doubt(reason, identity),
    }
    0
}

/// Follows the row that [`judge_now`] found through time; 1 when it found the one that holds.
///
/// Exported, because the verifier then walks the loop once and not for every way that leads here;
/// what such a function is given must be a number.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn judge_later(now: u64) -> u32 {
    let Some(question) = maps::question() else {
        return 0;
    };
    let Some(decision) = policy::later(&Policy, &mut question.key, now) else {
        return 0;
    };
    question.decision = decision;
    1
}
