//! Where a flow's entry lives: among the proven flows, which nothing evicts, or among the attempts.
//!
//! Invariants: a live proven entry speaks before an attempt; an entry moves by being written whole to
//! its new place before it leaves the old one, so that no packet finds neither. When there is no room
//! among the proven, the entry stays where it is, works as before, and may be evicted. `HOLDINGS`
//! counts without locks; what that costs in precision, the agent's next sweep puts right.

use aya_ebpf::Global;
use ringfence_common::{
    conntrack::{CtEntry, flags, has_begun, is_answered, is_proven},
    maps::CONNTRACK_CAPACITY,
    mutant,
    quota::{Holding, Quota},
    reason::DropReason,
};

use crate::{context::Context, family::Family, maps};

const DEFAULT: Quota = Quota::of(CONNTRACK_CAPACITY);
/// Set at load time: what one attempt of an endpoint costs ([`Quota::price`]).
#[unsafe(no_mangle)]
static ATTEMPT_PRICE: Global<u64> = Global::new(DEFAULT.price());
/// Set at load time: how many proven flows an endpoint may have.
#[unsafe(no_mangle)]
static PROVEN_QUOTA: Global<u32> = Global::new(DEFAULT.proven);

/// The live entry of a flow.
#[inline(always)]
pub fn find<'a, A: Family>(context: &Context, key: &A::CtKey) -> Option<&'a mut CtEntry> {
    if let Some(found) = A::proven(key) {
        // SAFETY: the pointer came from a lookup in this run; a recycled slot holds another entry's
        // values at worst, never unmapped memory. What is written through it is limited to expiry,
        // state and counters, none of which can turn a deny into an allow.
        let entry = unsafe { &mut *found };
        if entry.is_live(context.now) {
            return Some(entry);
        }
        bury::<A>(context, key);
    }
    // SAFETY: as above.
    let entry = unsafe { &mut *A::attempt(key)? };
    entry.is_live(context.now).then_some(entry)
}

/// Stores an entry, whole, where it lives.
#[inline(always)]
pub fn store<A: Family>(key: &A::CtKey, entry: &mut CtEntry) -> bool {
    if entry.lives_proven() {
        if A::replace_proven(key, entry) {
            return true;
        }
        // Swept this very moment.
        entry.flags &= !flags::PROVEN;
    }
    A::store_attempt(key, entry)
}

/// Removes an entry that is dead, or was taken over, from the proven ones.
#[inline(never)]
pub fn bury<A: Family>(context: &Context, key: &A::CtKey) -> u32 {
    if A::remove_proven(key)
        && let Some(holding) = holding(context.ifindex)
    {
        holding.proven = holding.proven.wrapping_sub(1);
    }
    0
}

/// What an endpoint holds; from nothing, if nothing was known.
#[inline(always)]
pub fn holding<'a>(ifindex: u32) -> Option<&'a mut Holding> {
    if let Some(found) = maps::HOLDINGS.get_ptr_mut(ifindex) {
        // SAFETY: only the agent removes values, and only of endpoints that are gone; another CPU's
        // write between ours costs precision.
        return Some(unsafe { &mut *found });
    }
    let nothing = Holding {
        booked: 0,
        proven: 0,
        named: 0,
    };
    let _ = maps::HOLDINGS.insert(ifindex, nothing, 0);
    let found = maps::HOLDINGS.get_ptr_mut(ifindex)?;
    // SAFETY: as above.
    Some(unsafe { &mut *found })
}

/// Books an attempt of the workload, unless it has too many under way.
#[inline(never)]
pub fn book(context: &Context) -> Result<(), DropReason> {
    let holding = holding(context.ifindex).ok_or(DropReason::ConntrackFull)?;
    if holding.book(context.now, ATTEMPT_PRICE.load()) {
        Ok(())
    } else {
        Err(DropReason::FlowLimit)
    }
}

/// Whether the packet that moved the state from `before` answers an attempt of the workload's.
#[inline(always)]
pub fn is_answer_to(entry: &CtEntry, before: u8, protocol: u8) -> bool {
    entry.flags & flags::FROM_WORKLOAD != 0
        && !is_answered(before, protocol)
        && is_answered(entry.state, protocol)
}

/// After an answer, or with a misplaced entry: takes the booking of an answered attempt
/// back, and moves the entry to where it belongs.
#[inline(never)]
pub fn settle<A: Family>(
    context: &Context,
    key: &A::CtKey,
    entry: &CtEntry,
    before: u8,
    protocol: u8,
) -> u32 {
    let Some(holding) = holding(context.ifindex) else {
        return 0;
    };
    if is_answer_to(entry, before, protocol) {
        holding.answered(ATTEMPT_PRICE.load(), has_begun(entry.state));
    }
    let Some(moved) = maps::scratch_entry() else {
        return 0;
    };
    *moved = *entry;
    if !moved.is_misplaced() {
        return 0;
    }
    if is_proven(moved.state) {
        // SAFETY: copied at once; absent means that no sweep found anything yet.
        let swept = unsafe { maps::SWEPT.get(context.ifindex) }
            .copied()
            .unwrap_or(0);
        moved.flags |= flags::PROVEN;
        let room = holding.has_room(swept, PROVEN_QUOTA.load());
        if mutant!(proven_flows_unlimited, room, true)
            && is_still(A::attempt(key), entry)
            && A::add_proven(key, moved)
        {
            holding.proven = holding.proven.wrapping_add(1);
            A::remove_attempt(key);
        }
    } else {
        moved.flags &= !flags::PROVEN;
        if is_still(A::proven(key), entry) && A::store_attempt(key, moved) && A::remove_proven(key)
        {
            holding.proven = holding.proven.wrapping_sub(1);
        }
    }
    0
}

/// Whether what was copied was the flow's own entry: one recycled meanwhile is not found by the
/// flow's key, and its verdict must not be kept under it.
#[inline(always)]
fn is_still(found: Option<*mut CtEntry>, entry: &CtEntry) -> bool {
    found.is_some_and(|found| core::ptr::eq(found, entry))
}
