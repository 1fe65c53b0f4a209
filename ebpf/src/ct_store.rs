//! Where entries are stored: assured flows in `CT4`/`CT6`, which are never evicted, all others in
//! the LRU maps `CT_UNREPLIED4`/`CT_UNREPLIED6`.
//!
//! Invariants: a live assured entry takes precedence over an unreplied one. An entry is written in
//! full to its new map before it is removed from the old one, so no packet misses both. If the
//! assured quota is used up, the entry stays where it is, works as before, and may be evicted.
//! `CT_USAGE` counts without locks; the agent's next usage sweep corrects the error.

use aya_ebpf::Global;
use ringfence_common::{
    conntrack::{CtEntry, flags, is_assured, is_open, is_replied},
    drop_reason::DropReason,
    maps::CONNTRACK_CAPACITY,
    quota::{Quota, Usage},
};

use crate::{context::Context, family::Family, maps};

const DEFAULT: Quota = Quota::of(CONNTRACK_CAPACITY);
/// Set at load time: the charge for one unreplied flow of an endpoint ([`Quota::cost`]).
#[unsafe(no_mangle)]
static UNREPLIED_COST: Global<u64> = Global::new(DEFAULT.cost());
/// Set at load time: how many assured entries an endpoint may have.
#[unsafe(no_mangle)]
static ASSURED_QUOTA: Global<u32> = Global::new(DEFAULT.assured);

/// The live entry of a flow.
#[inline(always)]
pub fn find<'a, A: Family>(context: &Context, key: &A::CtKey) -> Option<&'a mut CtEntry> {
    if let Some(found) = A::assured(key) {
        // SAFETY: the pointer comes from a lookup in this run. A recycled slot holds another
        // entry's values at worst, never unmapped memory. Only expiry, state and counters are
        // written through it, and none of them can turn a deny into an allow.
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

/// Stores the whole entry in the map it belongs to.
#[inline(always)]
pub fn store<A: Family>(key: &A::CtKey, entry: &mut CtEntry) -> bool {
    if entry.is_in_assured() {
        if A::replace_assured(key, entry) {
            return true;
        }
        // The sweep removed it in between.
        entry.flags &= !flags::ASSURED;
    }
    A::store_unreplied(key, entry)
}

/// Removes an entry that is dead or was replaced from the assured map.
#[inline(never)]
pub fn remove<A: Family>(context: &Context, key: &A::CtKey) -> u32 {
    if A::remove_assured(key)
        && let Some(usage) = usage(context.ifindex)
    {
        usage.assured = usage.assured.wrapping_sub(1);
    }
    0
}

/// An endpoint's usage; created with zeroes if there is none.
#[inline(always)]
pub fn usage<'a>(ifindex: u32) -> Option<&'a mut Usage> {
    if let Some(found) = maps::CT_USAGE.get_ptr_mut(ifindex) {
        // SAFETY: only the agent removes values, and only for endpoints that are gone. A concurrent
        // write by another CPU costs precision.
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

/// Charges one unreplied flow to the workload, unless its quota is used up.
#[inline(never)]
pub fn charge(context: &Context) -> Result<(), DropReason> {
    let usage = usage(context.ifindex).ok_or(DropReason::ConntrackFull)?;
    if usage.charge(context.now, UNREPLIED_COST.load()) {
        Ok(())
    } else {
        Err(DropReason::FlowLimit)
    }
}

/// Whether the packet that changed the state from `before` is the first reply to a flow of the
/// workload.
#[inline(always)]
pub fn is_first_reply(entry: &CtEntry, before: u8, protocol: u8) -> bool {
    entry.flags & flags::FROM_WORKLOAD != 0
        && !is_replied(before, protocol)
        && is_replied(entry.state, protocol)
}

/// Called after the first reply, or when an entry is in the wrong map: refunds the charge of a flow
/// that is no longer unreplied, and moves the entry to the map its state requires.
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
        // SAFETY: copied at once. Absent means that no sweep has found an excess yet.
        let sweep_excess = unsafe { maps::CT_USAGE_SWEEP.get(context.ifindex) }
            .copied()
            .unwrap_or(0);
        moved.flags |= flags::ASSURED;
        let room = usage.has_room(sweep_excess, ASSURED_QUOTA.load());
        if room && is_same_entry(A::unreplied(key), entry) && A::add_assured(key, moved) {
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

/// Whether the copied value was the entry of this flow. If it was recycled in between, a lookup by
/// the flow's key does not find it, and its verdict must not be stored under that key.
#[inline(always)]
fn is_same_entry(found: Option<*mut CtEntry>, entry: &CtEntry) -> bool {
    found.is_some_and(|found| core::ptr::eq(found, entry))
}
