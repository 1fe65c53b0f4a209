//! Where a flow's entry lives: among the proven flows, which nothing evicts, or among the attempts.
//!
//! Invariants: a live proven entry speaks before an attempt; an entry moves by being written whole to
//! its new place before it leaves the old one, so that no packet finds neither. When there is no room
//! among the proven, the entry stays where it is, works as before, and may be evicted. `CT_USAGE`
//! counts without locks; what that costs in precision, the agent's next sweep puts right.

use aya_ebpf::Global;
use ringfence_common::{
    conntrack::{CtEntry, flags, is_assured, is_open, is_replied},
    drop_reason::DropReason,
    maps::CONNTRACK_CAPACITY,
    mutant,
    quota::{Quota, Usage},
};

use crate::{context::Context, family::Family, maps};

const DEFAULT: Quota = Quota::of(CONNTRACK_CAPACITY);
/// Set at load time: what one attempt of an endpoint costs ([`Quota::price`]).
#[unsafe(no_mangle)]
static UNREPLIED_COST: Global<u64> = Global::new(DEFAULT.cost());
/// Set at load time: how many proven flows an endpoint may have.
#[unsafe(no_mangle)]
static ASSURED_QUOTA: Global<u32> = Global::new(DEFAULT.assured);

/// The live entry of a flow.
#[inline(always)]
pub fn find<'a, A: Family>(context: &Context, key: &A::CtKey) -> Option<&'a mut CtEntry> {
    if let Some(found) = A::assured(key) {
        // SAFETY: the pointer came from a lookup in this run; a recycled slot holds another entry's
        // values at worst, never unmapped memory. What is written through it is limited to expiry,
        // state and counters, none of which can turn a deny into an allow.
        let entry = unsafe { &mut *found };
        if entry.is_live(context.now) {
            return Some(entry);
        }
        remove::<A>(context, key);
    }
    // SAFETY: as above.
    let entry = unsafe { &mut *A::unreplied(key)? };
    entry.is_live(context.now).then_some(entry)
}

/// Stores an entry, whole, where it lives.
#[inline(always)]
pub fn store<A: Family>(key: &A::CtKey, entry: &mut CtEntry) -> bool {
    if entry.is_in_assured() {
        if A::replace_assured(key, entry) {
            return true;
        }
        // Swept this very moment.
        entry.flags &= !flags::ASSURED;
    }
    A::store_unreplied(key, entry)
}

/// Removes an entry that is dead, or was taken over, from the proven ones.
#[inline(never)]
pub fn remove<A: Family>(context: &Context, key: &A::CtKey) -> u32 {
    if A::remove_assured(key)
        && let Some(usage) = usage(context.ifindex)
    {
        usage.assured = usage.assured.wrapping_sub(1);
    }
    0
}

/// What an endpoint holds; from nothing, if nothing was known.
#[inline(always)]
pub fn usage<'a>(ifindex: u32) -> Option<&'a mut Usage> {
    if let Some(found) = maps::CT_USAGE.get_ptr_mut(ifindex) {
        // SAFETY: only the agent removes values, and only of endpoints that are gone; another CPU's
        // write between ours costs precision.
        return Some(unsafe { &mut *found });
    }
    let nothing = Usage {
        charged_until: 0,
        assured: 0,
        aggregated_until: 0,
    };
    let _ = maps::CT_USAGE.insert(ifindex, nothing, 0);
    let found = maps::CT_USAGE.get_ptr_mut(ifindex)?;
    // SAFETY: as above.
    Some(unsafe { &mut *found })
}

/// Books an attempt of the workload, unless it has too many under way.
#[inline(never)]
pub fn charge(context: &Context) -> Result<(), DropReason> {
    let usage = usage(context.ifindex).ok_or(DropReason::ConntrackFull)?;
    if usage.charge(context.now, UNREPLIED_COST.load()) {
        Ok(())
    } else {
        Err(DropReason::FlowLimit)
    }
}

/// Whether the packet that moved the state from `before` answers an attempt of the workload's.
#[inline(always)]
pub fn is_first_reply(entry: &CtEntry, before: u8, protocol: u8) -> bool {
    entry.flags & flags::FROM_WORKLOAD != 0
        && !is_replied(before, protocol)
        && is_replied(entry.state, protocol)
}

/// After an answer, or with a misplaced entry: takes the booking of an answered attempt
/// back, and moves the entry to where it belongs.
#[inline(never)]
pub fn promote<A: Family>(
    context: &Context,
    key: &A::CtKey,
    entry: &CtEntry,
    before: u8,
    protocol: u8,
) -> u32 {
    let Some(usage) = usage(context.ifindex) else {
        return 0;
    };
    if is_first_reply(entry, before, protocol) {
        usage.refund(UNREPLIED_COST.load(), is_open(entry.state));
    }
    let Some(moved) = maps::scratch_entry() else {
        return 0;
    };
    *moved = *entry;
    if !moved.is_misplaced() {
        return 0;
    }
    if is_assured(moved.state) {
        // SAFETY: copied at once; absent means that no sweep found anything yet.
        let swept = unsafe { maps::CT_USAGE_SWEEP.get(context.ifindex) }
            .copied()
            .unwrap_or(0);
        moved.flags |= flags::ASSURED;
        let room = usage.has_room(swept, ASSURED_QUOTA.load());
        if mutant!(proven_flows_unlimited, room, true)
            && is_same_entry(A::unreplied(key), entry)
            && A::add_assured(key, moved)
        {
            usage.assured = usage.assured.wrapping_add(1);
            A::remove_unreplied(key);
        }
    } else {
        moved.flags &= !flags::ASSURED;
        if is_same_entry(A::assured(key), entry)
            && A::store_unreplied(key, moved)
            && A::remove_assured(key)
        {
            usage.assured = usage.assured.wrapping_sub(1);
        }
    }
    0
}

/// Whether what was copied was the flow's own entry: one recycled meanwhile is not found by the
/// flow's key, and its verdict must not be kept under it.
#[inline(always)]
fn is_same_entry(found: Option<*mut CtEntry>, entry: &CtEntry) -> bool {
    found.is_some_and(|found| core::ptr::eq(found, entry))
}
