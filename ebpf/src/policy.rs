//! One policy lookup: may this endpoint exchange this flow with this peer?
//!
//! Invariants: the peer's identity is resolved at every lookup. An unknown peer is denied whatever
//! the policy rows contain. The decision is written into the flow's entry with the rule that made
//! it. The two parts of a lookup are separate functions because the stack does not hold both.

use ringfence_common::{
    conntrack::CtEntry,
    drop_reason::DropReason,
    ids::{IdentityId, RuleSlot},
    mode::{Direction, Verdict},
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

/// Stores an allow that needs no policy table.
#[inline(always)]
pub fn allow(entry: &mut CtEntry, rule: RuleSlot, peer: IdentityId) {
    entry.decide(&Decision::lasting(Verdict::Allow, rule), peer);
}

/// This CPU's policy lookup: [`lookup_current`] writes it, [`lookup_later`] continues it.
pub struct PolicyLookup {
    key: PolicyKey,
    /// The result of [`lookup_later`].
    decision: Decision,
}

/// Looks up a flow with the packet's peer in the endpoint's policy table. `port` is the destination
/// port of the flow's first packet.
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

/// Stores the decision of a later period's row.
#[inline(never)]
fn evaluate_later(entry: &mut CtEntry) -> u32 {
    let found = lookup_later(clock::boot()) != 0;
    match maps::policy_lookup() {
        Some(lookup) if found => entry.decide(&lookup.decision, entry.peer),
        _ => entry.fail_closed(DropReason::NoPolicyRow, entry.peer),
    }
    0
}

/// Returns 1 if the decision is in the row of a later period.
#[inline(never)]
fn lookup_current<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    direction: Direction,
    port: Port,
    entry: &mut CtEntry,
) -> u32 {
    let identity = flow.peer().identity();
    if identity == IdentityId::UNKNOWN {
        entry.fail_closed(DropReason::UnknownPeer, identity);
        return 0;
    }
    let Some(lookup) = maps::policy_lookup() else {
        entry.fail_closed(DropReason::NoPolicyRow, identity);
        return 0;
    };
    let query = Query {
        table: context.endpoint.table,
        class: maps::class(identity),
        direction,
        protocol: flow.packet.protocol,
        port,
    };
    let key = query.key();
    if let Some(decision) = policy_cache::get(&key, context.now) {
        entry.decide(&decision, identity);
        return 0;
    }
    lookup.key = key;
    match policy::lookup_current(&Policy, &mut lookup.key, clock::boot) {
        Ok(Some(decision)) => {
            policy_cache::put(&key, context.now, &decision);
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

/// Follows the schedule from the row that [`lookup_current`] found; returns 1 if it found the
/// current period.
///
/// Exported (global), so that the verifier checks the loop once and not for every call path.
/// Arguments of a global function must be scalars.
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
