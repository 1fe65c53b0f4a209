//! The unreplied tables: search, store and remove entries in sets of eight ways.
//!
//! Invariants: a way is found by its whole key. A word is replaced only as long as it is what was read
//! ([`replace_word`]), and before the body is written: of two CPUs that choose one way at once, one
//! takes it and the other one looks again. A body that is being written has a wrong seal, and is no
//! entry. Which entry a new one replaces is decided by [`choose`]; nothing here looks at verdicts.

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::Global;
use ringfence_common::{
    conntrack::{
        CtEntry, PlacedKey as _, is_open, is_replied,
        unreplied::{Choice, NO_RANK, WAYS, WayWord, Worth, choose, set_of},
    },
    ids::EndpointNumber,
    maps::UNREPLIED_SETS as DEFAULT_SETS,
    packet::protocol,
    stats::Counter,
};

use crate::{ct_usage, events, family::Family, maps};

/// Set at load time: sets of each unreplied table, a power of two.
#[unsafe(no_mangle)]
pub static UNREPLIED_SETS: Global<u32> = Global::new(DEFAULT_SETS);

const NO_WAY: u32 = WAYS as u32;
/// What [`find`] returns for no entry.
pub const NOT_FOUND: u32 = u32::MAX;

/// What [`store`] returns.
pub const NO_ROOM: u32 = 0;
pub const STORED: u32 = 1;
pub const TAKEN: u32 = 2;

/// What a walk through a set finds. In a map and not on the stack: the verifier does not track what
/// is in a map, so it need not follow every combination of eight ways.
#[repr(C)]
pub struct Candidates {
    /// Rank and [`turn`] of the endpoint's entry that goes first, the turn in the lowest bits;
    /// [`NO_RANK`] if it has none.
    own: u64,
    /// The same of those of endpoints over their share.
    other: u64,
    free: u32,
    free_way: u32,
    same_way: u32,
    /// State bits to change, and what to.
    pub bits: u32,
}

impl Candidates {
    /// Whether a word is the one by which its way was chosen, or free.
    #[inline(always)]
    fn has_chosen(&self, way: u32, word: WayWord, place: u64, now: u64) -> bool {
        let candidate = word.rank() << 3 | u64::from(turn(way, place));
        word.is_free(now)
            || candidate == self.own
            || candidate == self.other
            || way == self.same_way && word.matches(place)
    }
}

#[inline(always)]
fn word<A: Family>(set: *mut A::CtSet, way: u32) -> WayWord {
    // SAFETY: an aligned load from a map value.
    unsafe { read_volatile(A::way_word(set, way)) }
}

/// Replaces a way's word, unless another CPU did since it was read. Returns whether it was replaced.
/// The instruction (`BPF_CMPXCHG`) is there since kernel 5.12 (commit 5ffa25502b5a).
#[inline(always)]
fn replace_word<A: Family>(set: *mut A::CtSet, way: u32, before: WayWord, after: WayWord) -> bool {
    let word = A::way_word(set, way).cast::<u64>();
    // SAFETY: an aligned word in a map value.
    let (_, is_replaced) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Relaxed }>(
            word, before.0, after.0,
        )
    };
    is_replaced
}

/// The way of a key, or [`NO_WAY`].
#[inline(always)]
fn search<A: Family>(set: *mut A::CtSet, place: u64, key: &A::CtKey) -> u32 {
    for way in 0..NO_WAY {
        if word::<A>(set, way).matches(place) && A::is_way_key(set, way, key) {
            return way;
        }
    }
    NO_WAY
}

/// The packet's key, its place hash and its set.
#[inline(always)]
fn place<A: Family>() -> Option<(&'static A::CtKey, u64, *mut A::CtSet)> {
    let key = &*A::scratch_key()?;
    let place = key.place(maps::ct_seed());
    Some((key, place, A::unreplied_set(place)?))
}

/// Set and way of the packet's key, or [`NOT_FOUND`]. The entry may be dead, and may be another
/// flow's by the time it is read.
#[inline(always)]
pub fn find<A: Family>() -> u32 {
    let Some((key, place, set)) = place::<A>() else {
        return NOT_FOUND;
    };
    match search::<A>(set, place, key) {
        NO_WAY => NOT_FOUND,
        way => set_of(place, UNREPLIED_SETS.load()) * NO_WAY + way,
    }
}

/// The entry at a set and way, null for [`NOT_FOUND`].
#[inline(always)]
pub fn entry_at<A: Family>(found: u32) -> *mut CtEntry {
    if found == NOT_FOUND {
        return core::ptr::null_mut();
    }
    match A::set_at(found / NO_WAY) {
        Some(set) => A::way_entry(set, found % NO_WAY),
        None => core::ptr::null_mut(),
    }
}

/// How much an entry with this state is worth.
#[inline(always)]
fn worth(state: u8, protocol: u8) -> Worth {
    if is_open(state) && protocol == protocol::TCP {
        Worth::Open
    } else if is_replied(state, protocol) {
        Worth::Replied
    } else {
        Worth::Unreplied
    }
}

/// Renews a way's word after its entry's state or expiry changed.
#[inline(always)]
pub fn renew<A: Family>(number: EndpointNumber, protocol: u8, state: u8, expires: u64) -> u32 {
    let Some((key, place, set)) = place::<A>() else {
        return 0;
    };
    let way = search::<A>(set, place, key);
    if way != NO_WAY {
        let before = word::<A>(set, way);
        let worth = worth(state, protocol);
        let after = WayWord::new(place, number.0, worth, expires);
        if before.matches(place) {
            // Otherwise it is another flow's by now, or as new as this.
            replace_word::<A>(set, way, before, after);
        }
    }
    0
}

/// Removes the entry of the packet's key.
#[inline(always)]
pub fn remove<A: Family>() {
    let Some((key, place, set)) = place::<A>() else {
        return;
    };
    let way = search::<A>(set, place, key);
    if way != NO_WAY {
        let before = word::<A>(set, way);
        if before.matches(place) && replace_word::<A>(set, way, before, WayWord::default()) {
            let owner = EndpointNumber(before.owner());
            ct_usage::count_unreplied(owner, 1_u64.wrapping_neg());
        }
    }
}

/// Walks through a set.
#[inline(always)]
fn survey<A: Family>(
    found: &mut Candidates,
    (number, now): (EndpointNumber, u64),
    set: *mut A::CtSet,
    place: u64,
    key: &A::CtKey,
) {
    found.own = NO_RANK;
    found.other = NO_RANK;
    found.free = 0;
    found.free_way = 0;
    found.same_way = NO_WAY;
    for way in 0..NO_WAY {
        let word = word::<A>(set, way);
        if word.matches(place) && A::is_way_key(set, way, key) {
            found.same_way = way;
        }
        let rank = word.rank() << 3 | u64::from(turn(way, place));
        if word.is_free(now) {
            found.free += 1;
            found.free_way = way;
        } else if word.owner() == number.0 {
            if rank < found.own {
                found.own = rank;
            }
        } else if rank < found.other && ct_usage::is_over_unreplied(EndpointNumber(word.owner())) {
            found.other = rank;
        }
    }
}

/// The way for a new entry, or [`NO_WAY`].
#[inline(always)]
fn choose_way(found: &Candidates, number: EndpointNumber, place: u64) -> u32 {
    if found.same_way != NO_WAY {
        return found.same_way;
    }
    let over = ct_usage::is_over_unreplied(number);
    let chosen = match choose(over, found.free, rank_of(found.own), rank_of(found.other)) {
        Choice::Free => return found.free_way,
        Choice::Own => found.own,
        Choice::Other => found.other,
        Choice::None => return NO_WAY,
    };
    turn(chosen as u32, place)
}

/// The order of ways of the same rank, and back: another one for each flow. Expiries are those of a
/// clock that stands still for milliseconds; in the order of ways the newest entry would be replaced
/// by the next.
#[inline(always)]
fn turn(way: u32, place: u64) -> u32 {
    (way ^ (place >> 16) as u32) & (NO_WAY - 1)
}

/// The rank in a candidate.
#[inline(always)]
fn rank_of(candidate: u64) -> u64 {
    if candidate == NO_RANK {
        NO_RANK
    } else {
        candidate >> 3
    }
}

/// A way that was compared with [`NO_WAY`], for the verifier: up to Linux 6.1 it forgets the comparison of
/// what the compiler keeps on the stack, and the compiler leaves out a mask that changes nothing.
#[inline(always)]
fn bounded(way: u32) -> u32 {
    let mut way = u64::from(way);
    // SAFETY: one instruction, which changes no way.
    unsafe { asm!("{0} &= 7", inout(reg) way, options(nomem, nostack, preserves_flags)) };
    way as u32
}

/// Stores an entry under the packet's key, in place of an older one if need be. Returns [`NO_ROOM`],
/// [`STORED`], or [`TAKEN`] if another CPU took the way that was chosen.
#[inline(always)]
pub fn store<A: Family>(entry: &CtEntry, number: EndpointNumber, protocol: u8, now: u64) -> u32 {
    let Some((key, place, set)) = place::<A>() else {
        return NO_ROOM;
    };
    let Some(found) = maps::scratch_candidates() else {
        return NO_ROOM;
    };
    survey::<A>(found, (number, now), set, place, key);
    let way = choose_way(found, number, place);
    if way >= NO_WAY {
        return NO_ROOM;
    }
    let way = bounded(way);
    let before = word::<A>(set, way);
    let worth = worth(entry.state.bits(), protocol);
    let after = WayWord::new(place, number.0, worth, entry.expires);
    if !found.has_chosen(way, before, place, now) || !replace_word::<A>(set, way, before, after) {
        return TAKEN;
    }
    // Before the body is written: what it is written from is not needed for it, and stack is short.
    account(before, place, number, now);
    copy_words(key, A::way_key(set, way));
    copy_words(entry, A::way_entry(set, way));
    STORED
}

/// Copies a key or an entry into a way, which another CPU may read at the same time. Word by word,
/// because a copy on the stack would not fit there.
#[inline(always)]
fn copy_words<T>(from: &T, to: *mut T) {
    let from = core::ptr::from_ref(from).cast::<u32>();
    for word in 0..size_of::<T>() / size_of::<u32>() {
        // SAFETY: both have the size of T, a multiple of four bytes with the alignment of four.
        unsafe { write_volatile(to.cast::<u32>().add(word), read_volatile(from.add(word))) };
    }
}

/// Counts what a new entry replaced.
#[inline(always)]
fn account(before: WayWord, place: u64, number: EndpointNumber, now: u64) {
    let owner = EndpointNumber(before.owner());
    let was_used = before.0 != 0;
    if was_used && !before.is_free(now) && !before.matches(place) {
        events::count(Counter::FlowsRecycled);
        ct_usage::note_recycled(owner, now);
    }
    if !was_used || owner.0 != number.0 {
        ct_usage::count_unreplied(number, 1);
        if was_used {
            ct_usage::count_unreplied(owner, 1_u64.wrapping_neg());
        }
    }
}
