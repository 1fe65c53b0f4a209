//! One policy lookup: may this endpoint exchange this flow with this peer?
//!
//! Invariants: the peer's identity is resolved at every lookup. An unknown peer is denied whatever
//! the policy rows contain. The decision is written into the flow's entry with the rule that made
//! it.
//!
//! Lookups are exported (global) functions, so that the verifier checks them once and not for every
//! call path. Their arguments must be scalars; results are in per-CPU scratch space.

use ringfence_common::{
    conntrack::{CtEntry, flags},
    drop_reason::DropReason,
    ids::{ClassId, IdentityId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    policy::{self, Decision, PolicyKey},
};

use crate::{
    clock,
    context::Context,
    current_packet::FlowPacket,
    family::Family,
    maps::{self, Policy},
    policy_cache,
};

/// Stores an allow that needs no policy table.
#[inline(always)]
pub fn allow(entry: &mut CtEntry, rule: RuleSlot, peer: IdentityId) {
    entry.decide(&Decision::lasting(Verdict::Allow, rule), peer);
}

/// This CPU's policy lookup.
pub struct PolicyLookup {
    key: PolicyKey,
    /// The result of [`look_up`].
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
    let mut identity = flow.peer().identity();
    entry.flags &= !flags::TRANSLATED;
    // The node's own packets need no policy, so this one has its address by translation.
    if matches!(direction, Direction::Ingress) && identity.is_node() {
        entry.flags |= flags::TRANSLATED;
        identity = identity.behind_node();
    }
    if identity == IdentityId::UNKNOWN {
        return entry.fail_closed(DropReason::UnknownPeer, identity);
    }
    let class = maps::class(identity);
    let asked = u32::from(direction as u8)
        | u32::from(flow.packet.protocol) << 8
        | u32::from(port.number()) << 16;
    let found = look_up(context.endpoint.table.0, class.0, asked, context.now) != 0;
    match maps::policy_lookup() {
        Some(lookup) if found => entry.decide(&lookup.decision, identity),
        _ => entry.fail_closed(DropReason::NoPolicyRow, identity),
    }
}

/// Finds the decision for a flow: direction, protocol and port from the lowest bit of `flow`. `now` is
/// the tick clock. Returns 0 if there is no row.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn look_up(table: u32, class: u32, flow: u32, now: u64) -> u32 {
    let Some(lookup) = maps::policy_lookup() else {
        return 0;
    };
    let key = PolicyKey {
        table: TableId(table),
        class: ClassId(class),
        direction: flow as u8,
        protocol: (flow >> 8) as u8,
        port: Port::new((flow >> 16) as u16),
    };
    if let Some(decision) = policy_cache::get(&key, now) {
        lookup.decision = decision;
        return 1;
    }
    lookup.key = key;
    match policy::lookup_current(&Policy, &mut lookup.key, clock::boot) {
        Ok(Some(decision)) => {
            policy_cache::put(&key, now, &decision);
            lookup.decision = decision;
            1
        }
        Ok(None) => lookup_later(clock::boot()),
        Err(_) => 0,
    }
}

/// Follows the schedule from the row that [`look_up`] found; returns 1 if it found the current
/// period.
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
