//! Where entries are stored: assured flows in `CT4`/`CT6`, which are never evicted, all others in
//! the tables of [`crate::ct_unreplied`].
//!
//! Invariants: an entry is used by a copy whose seal is right for the flow's key, so that no memory
//! that another CPU gives to another flow decides anything. A live assured entry takes precedence
//! over an unreplied one. An entry is written in full to its new place before it is removed from the
//! old one, so no packet misses both. Expiry, state and the originator's time are stored each by itself
//! into the live entry, if it still has the seal of the copy; should it be given to another flow in
//! the same nanoseconds, that flow lives shorter or longer, and its verdict is what it was.

use core::ptr::{read_volatile, write_volatile};

use ringfence_common::{
    conntrack::{CtEntry, StateBytes, flags},
    ids::EndpointNumber,
    stats::Counter,
};

use crate::{
    context::Context, ct_unreplied, ct_usage, events, family::Family, global_functions::RETRIES,
    maps,
};

/// An entry in force.
pub struct Found {
    /// A copy that is shown by its seal to be the flow's.
    pub entry: &'static mut CtEntry,
    /// Where it was copied from.
    live: *mut CtEntry,
    /// Whether its verdict is current; the caller finds out.
    pub is_fresh: bool,
}

/// Copies an entry. The parts that change are read first: if the rest is shown afterwards to be the
/// flow's, they are too.
#[inline(always)]
fn copy(live: *mut CtEntry, into: &mut CtEntry) {
    // SAFETY: the pointer comes from a lookup in this run, so the memory is mapped and aligned.
    unsafe {
        into.expires = read_volatile(&raw const (*live).expires);
        into.state = read_volatile(&raw const (*live).state);
        let from = live.cast::<u64>();
        let to = (&raw mut *into).cast::<u64>();
        for word in 2..8 {
            to.add(word).write(read_volatile(from.add(word)));
        }
    }
}

/// The live entry of a flow. `key` is this CPU's [`Family::scratch_key`]. `may_be_assured` unless the
/// assured map was searched already, and had no entry.
#[inline(always)]
pub fn find<A: Family>(
    context: &Context,
    key: &A::CtKey,
    may_be_assured: impl FnOnce() -> bool,
) -> Option<Found> {
    let entry = maps::scratch_found()?;
    let mut live = core::ptr::null_mut();
    if may_be_assured() {
        live = A::assured(key);
    }
    for _ in 0..RETRIES {
        if live.is_null() {
            break;
        }
        copy(live, entry);
        if entry.is_sealed_for(key) {
            if entry.is_live(context.now) {
                return Some(Found::new(entry, live));
            }
            A::remove(context.number.0);
            break;
        }
        // The memory was another flow's by the time it was read.
        events::count(Counter::RecordsRecycled);
        live = A::assured(key);
    }
    live = ct_unreplied::entry_at::<A>(A::find_unreplied());
    if live.is_null() {
        // While a CPU replaces an assured entry, one search can miss it (see `maps`), but not two.
        live = A::assured(key);
    }
    if live.is_null() {
        return None;
    }
    copy(live, entry);
    if !entry.is_sealed_for(key) {
        events::count(Counter::RecordsRecycled);
        return None;
    }
    let is_live = entry.is_live(context.now);
    is_live.then(|| Found::new(entry, live))
}

impl Found {
    #[inline(always)]
    fn new(entry: &'static mut CtEntry, live: *mut CtEntry) -> Self {
        Self {
            entry,
            live,
            is_fresh: false,
        }
    }

    /// Whether the live entry is still the one that was copied.
    #[inline(always)]
    fn is_current(&self) -> bool {
        // SAFETY: as in `copy`.
        unsafe { read_volatile(&raw const (*self.live).seal) == self.entry.seal }
    }

    /// Stores a new expiry.
    #[inline(always)]
    pub fn set_expires(&mut self, expires: u64) {
        self.entry.expires = expires;
        if self.is_current() {
            // SAFETY: as in `copy`; one store.
            unsafe { write_volatile(&raw mut (*self.live).expires, expires) };
        }
    }

    /// Stores the time of the originator's last packet.
    #[inline(always)]
    pub fn set_originator_seen(&mut self, seen: u32) {
        self.entry.originator_seen = seen;
        if self.is_current() {
            // SAFETY: as in `copy`; one store.
            unsafe { write_volatile(&raw mut (*self.live).originator_seen, seen) };
        }
    }

    /// Stores the bits that differ between two states, each by itself.
    #[inline(always)]
    pub fn change_state(&mut self, before: u8, after: u8) {
        self.entry.state = StateBytes::of(after);
        if self.is_current() {
            change_bytes(self.live, before, after);
        }
    }
}

/// Stores the bytes of the bits that differ.
#[inline(always)]
fn change_bytes(live: *mut CtEntry, before: u8, after: u8) {
    let Some(scratch) = maps::scratch_candidates() else {
        return;
    };
    scratch.bits = u32::from(before ^ after) | u32::from(after) << 8;
    for bit in 0..8 {
        // Read again each time, from a map: the verifier would otherwise follow every combination.
        // SAFETY: this CPU's scratch space.
        let bits = unsafe { read_volatile(&raw const scratch.bits) };
        if bits >> bit & 1 != 0 {
            // SAFETY: as in `copy`; the state has eight bytes.
            unsafe {
                let bytes = (&raw mut (*live).state).cast::<u8>();
                write_volatile(bytes.add(bit), (bits >> (8 + bit)) as u8 & 1);
            }
        }
    }
}

/// Which scratch entry a global function uses: the one to be stored, or the copy that was found.
pub const SCRATCH: u32 = 0;
pub const FOUND: u32 = 1;

/// Seals a scratch entry and stores it in the map that it is for. Returns what [`ct_unreplied::store`]
/// does.
#[inline(always)]
pub fn store_entry<A: Family>(which: u32, number: EndpointNumber, protocol: u8, now: u64) -> u32 {
    let entry = if which == FOUND {
        maps::scratch_found()
    } else {
        maps::scratch_entry()
    };
    let (Some(entry), Some(key)) = (entry, A::scratch_key()) else {
        return ct_unreplied::NO_ROOM;
    };
    let key = &*key;
    if entry.is_in_assured() {
        entry.seal = entry.seal_for(key);
        if A::replace_assured(key, entry) {
            return ct_unreplied::STORED;
        }
        // The sweep removed it in between.
        entry.flags &= !flags::ASSURED;
    }
    entry.seal = entry.seal_for(key);
    ct_unreplied::store::<A>(entry, number, protocol, now)
}

/// Removes an entry that is dead or was replaced from the assured map.
#[inline(always)]
pub fn remove_entry<A: Family>(number: EndpointNumber) -> u32 {
    if let Some(key) = A::scratch_key()
        && A::remove_assured(key)
    {
        ct_usage::count_assured(number, 1_u64.wrapping_neg());
    }
    0
}

/// Moves the entry that was found to the other map, if there is room. The caller has found it in the
/// wrong one ([`CtEntry::is_misplaced`]).
#[inline(always)]
pub fn relocate_entry<A: Family>(number: EndpointNumber, protocol: u8, now: u64) -> u32 {
    let (Some(entry), Some(moved)) = (maps::scratch_found(), maps::scratch_entry()) else {
        return 0;
    };
    let Some(key) = A::scratch_key() else {
        return 0;
    };
    let key = &*key;
    *moved = *entry;
    if !moved.is_in_assured() {
        if !ct_usage::has_assured_room(number) {
            return 0;
        }
        moved.flags |= flags::ASSURED;
        moved.seal = moved.seal_for(key);
        if A::add_assured(key, moved) {
            ct_usage::count_assured(number, 1);
            ct_unreplied::remove::<A>();
        }
        return 0;
    }
    moved.flags &= !flags::ASSURED;
    moved.seal = moved.seal_for(key);
    // If another CPU took its way, the next packet moves it.
    if ct_unreplied::store::<A>(moved, number, protocol, now) == ct_unreplied::STORED {
        remove_entry::<A>(number);
    }
    0
}
