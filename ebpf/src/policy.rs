//! One question to policy: may this endpoint exchange this kind of flow with this peer?
//!
//! Invariants: the peer is resolved afresh at every question; a peer that no map knows is denied
//! whatever the rows say; the answer is written into the flow's entry with the rule that made it.
//! The two halves of the answer are functions of their own because there is no stack for both.

use ringfence_common::{
    conntrack::CtEntry,
    drop_reason::DropReason,
    ids::{IdentityId, RuleSlot},
    mode::{Direction, Verdict},
    mutant,
    net::Port,
    policy::{self, Decision, PolicyKey, Query},
};

use crate::{
    clock,
    conntrack::FlowPacket,
    context::Context,
    family::Family,
    maps::{self, Policy},
    policy_cache,
};

/// Writes an allow that needs no table.
#[inline(always)]
pub fn allow(entry: &mut CtEntry, rule: RuleSlot, peer: IdentityId) {
    entry.decide(&Decision::lasting(Verdict::Allow, rule), peer);
}

/// A question that this CPU asks: [`lookup_current`] leaves it where [`lookup_later`] finds it.
pub struct PolicyLookup {
    key: PolicyKey,
    /// What [`lookup_later`] found.
    decision: Decision,
}

/// Asks the endpoint's table about a flow with the packet's peer. `port` is the destination port of
/// the flow's first packet.
#[inline(always)]
pub fn evaluate<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    (direction, port): (Direction, Port),
    entry: &mut CtEntry,
) {
    if lookup_current(context, flow, direction, port, entry) != 0 {
        evaluate_later(entry);
    }
}

/// Takes over what the row of a later flow says.
#[inline(never)]
fn evaluate_later(entry: &mut CtEntry) -> u32 {
    let found = lookup_later(clock::boot()) != 0;
    match maps::policy_lookup() {
        Some(lookup) if found => entry.decide(&lookup.decision, entry.peer),
        _ => entry.fail_closed(DropReason::NoPolicyRow, entry.peer),
    }
    0
}

/// Returns 1 when a row of a later flow has the answer.
#[inline(never)]
fn lookup_current<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    direction: Direction,
    port: Port,
    entry: &mut CtEntry,
) -> u32 {
    let identity = mutant!(
        unknown_peer_is_world,
        flow.peer().identity(),
        match flow.peer().identity() {
            IdentityId::UNKNOWN => IdentityId::WORLD,
            identity => identity,
        }
    );
    if identity == IdentityId::UNKNOWN {
        entry.fail_closed(DropReason::UnknownPeer, identity);
        return 0;
    }
    let Some(lookup) = maps::policy_lookup() else {
        entry.fail_closed(DropReason::NoPolicyRow, identity);
        return 0;
    };
    let asked = mutant!(direction_forgotten, direction, Direction::Egress);
    let query = Query {
        table: context.endpoint.table,
        class: maps::class(identity),
        direction: asked,
        protocol: flow.packet.protocol,
        port,
    };
    let asked = query.key();
    if let Some(decision) = policy_cache::get(&asked, context.now) {
        entry.decide(&decision, identity);
        return 0;
    }
    lookup.key = asked;
    match policy::lookup_current(&Policy, &mut lookup.key, clock::boot) {
        Ok(Some(decision)) => {
            policy_cache::put(&asked, context.now, &decision);
            entry.decide(&decision, identity);
        }
        Ok(None) => {
            entry.peer = identity;
            return 1;
        }
        Err(reason) => entry.fail_closed(reason, identity),
    }
    0
}

/// Follows the row that [`lookup_current`] found through time; 1 when it found the one that holds.
///
/// Exported, because the verifier then walks the loop once and not for every way that leads here;
/// what such a function is given must be a number.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn lookup_later(now: u64) -> u32 {
    let Some(lookup) = maps::policy_lookup() else {
        return 0;
    };
    let Some(decision) = policy::lookup_later(&Policy, &mut lookup.key, now) else {
        return 0;
    };
    lookup.decision = decision;
    1
}
