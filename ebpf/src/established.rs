//! The established path: a packet whose assured entry has a current verdict and stays as it is.
//!
//! Invariants: it passes packets that [`crate::conntrack`] would pass without a store, a count or a
//! report, and decides nothing else: everything but an allowed packet of a flow that both ends use goes
//! the long way, and so does one packet of each flow and direction a second, which extends the expiry.
//! Each word of the entry is read once, and the seal is checked on what was read.

use core::ptr::read_volatile;

use ringfence_common::{
    conntrack::{CtEntry, flags, is_steady, originator, steady_timeout, worth_storing},
    mode::{Mode, Verdict},
    packet::Packet,
};

use crate::{clock, context::Context, current_packet::FlowPacket, family::Family, maps};

/// A boot-clock time that comes before no recheck time: an entry that has one goes the long way.
const NEVER: u64 = u64::MAX;

/// A copy of a live entry, which may be a mixture of two entries until its seal has been checked.
#[inline(always)]
fn copy(live: *const CtEntry) -> CtEntry {
    let words = live.cast::<[u64; 8]>();
    // SAFETY: the pointer comes from a lookup in this run, so the memory is mapped and aligned.
    zerocopy::transmute!(unsafe { read_volatile(words) })
}

/// What [`look_up`] finds in the assured map.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Established {
    /// No entry.
    None,
    /// An entry, which does not let the packet pass by itself.
    Entry,
    /// The packet passes.
    Passes,
}

/// Looks for an entry of the packet's flow, whose key is left in the scratch space. A function of its own,
/// because its stack is free again for what follows.
#[inline(never)]
pub fn look_up<A: Family, const FROM: bool>(context: &Context, packet: &Packet<A>) -> Established {
    let Some(key) = A::scratch_key() else {
        return Established::None;
    };
    let flow = FlowPacket {
        packet,
        from_workload: FROM,
    };
    *key = flow.key(context.ifindex);
    let live = A::assured(key);
    if live.is_null() {
        Established::None
    } else if passes(context, &flow, key, live) {
        Established::Passes
    } else {
        Established::Entry
    }
}

/// Whether the packet passes by the entry at `live`, of the assured map, which was found by `key`.
#[inline(always)]
fn passes<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    key: &A::CtKey,
    live: *const CtEntry,
) -> bool {
    if context.mode == Mode::Lockdown || flow.is_from_host(context) {
        return false;
    }
    let entry = copy(live);
    let packet = flow.packet;
    let steady = steady_timeout(packet.protocol);
    let mut lasts = clock::timeout(steady);
    if entry.flags & flags::TRANSLATED != 0 {
        lasts = steady.while_translated(lasts);
    }
    let wanted = context.now + lasts;
    let seen = originator::coarse(context.now);
    let epoch = maps::epoch(flow.peer().epoch_slot());
    entry.is_sealed_for(key)
        && entry.verdict() == Verdict::Allow
        && entry.is_fresh(context.endpoint.table, epoch, || NEVER)
        && !entry.rule().is_implicit_allow()
        && is_steady(entry.state, packet.tcp)
        && entry.is_live(context.now)
        && (!worth_storing(entry.expires, wanted) || flow.may_miss_translation(&entry))
        && (flow.is_reply_of(&entry) || !originator::worth_storing(entry.originator_seen, seen))
}
