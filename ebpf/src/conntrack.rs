//! Conntrack in the pipeline: use an entry's stored verdict, or evaluate policy and store the
//! result.
//!
//! Invariants: a stored verdict is used only while its table, epoch and recheck time are current;
//! otherwise [`crate::ct_evaluate`] evaluates it again. A denied flow is never stored as allowed. A
//! new flow that is denied and dropped is not stored.

use ringfence_common::{
    conntrack::{CtEntry, flags, next_state, opens, originator, timeout, worth_storing},
    drop_reason::DropReason,
    mode::{Action, Verdict},
};

use crate::{
    clock,
    context::Context,
    ct_evaluate::{AGAINST_ORIGINATOR, CONTESTED, FRESH, deny_without_entry},
    ct_store::{self, FOUND, Found, SCRATCH},
    current_packet::{FlowPacket, drop_without_packet},
    events,
    family::Family,
    implicit_allow::{EntryUse, current_use, entry_use, may_need_no_rule},
    maps,
};

/// Flag next to the [`Action`] that an out-of-line function returns in a register: the entry in
/// this CPU's scratch slot denies the packet and must still be reported.
pub const UNREPORTED: u32 = 1 << 8;
/// The same, for the copy of the entry that was found.
pub const UNREPORTED_FOUND: u32 = 1 << 9;
/// The packet passes, and the live entry must still be updated for it.
pub const UPDATE_LIVE: u32 = 1 << 10;

/// What tracking returns, with what [`Family::create_flow`] is to be told, if the packet has no entry that
/// covers it. The caller creates one, because a frame below tracking has no stack left for that.
pub const CREATES: u32 = 1 << 13;

/// The same, if [`Family::reply_flow`] is to decide.
const REPLIES: u32 = 1 << 14;

/// Tracks this CPU's [`CurrentPacket`](crate::current_packet::CurrentPacket).
#[inline(always)]
pub fn decide<A: Family>() -> Action {
    let mut raw = A::track();
    if raw & REPLIES != 0 {
        raw = A::reply_flow(raw & !REPLIES);
    }
    if raw & CREATES != 0 {
        raw = A::create_flow(raw & !CREATES);
    }
    // Reported first: to move an entry takes the scratch slot that the report is about.
    let action = finish::<A>(raw);
    if raw & UPDATE_LIVE != 0 {
        A::update_reversed(raw & UNREPORTED);
    }
    action
}

/// Reports what the callee left to report. Done here because a deeper frame has no stack left.
#[inline(always)]
fn finish<A: Family>(raw: u32) -> Action {
    let action = raw & 0xff;
    if raw & UNREPORTED != 0 {
        A::report_denied(SCRATCH, action);
    } else if raw & UNREPORTED_FOUND != 0 {
        A::report_denied(FOUND, action);
    }
    if action == Action::Pass as u32 {
        Action::Pass
    } else {
        Action::Drop
    }
}

/// Whether the flow of a quoted packet has a live, fresh entry that allows the packet. A stale entry
/// does not count: the packet that caused the error passed here and refreshed the entry; if policy
/// has changed since, the next packet refreshes it again.
#[inline(never)]
pub fn is_allowed<A: Family>(context: &Context, flow: &FlowPacket<A>) -> bool {
    let Some(key) = A::scratch_key() else {
        return false;
    };
    *key = flow.key(context.ifindex);
    let Some(found) = ct_store::find::<A>(context, key, || true) else {
        return false;
    };
    let entry = found.entry;
    let epoch = maps::epoch(flow.peer().epoch_slot());
    let allowed = entry.verdict() == Verdict::Allow
        || (flow.is_reversed(entry) && entry.reverse() == Some(Verdict::Allow));
    allowed
        && entry.is_fresh(context.endpoint.table, epoch, clock::boot)
        && entry_use(context, flow, entry) != EntryUse::Stale
}

/// Tracks this CPU's [`CurrentPacket`](crate::current_packet::CurrentPacket) and returns the [`Action`], or
/// [`CREATES`].
#[inline(always)]
pub fn track_current<A: Family>() -> u32 {
    let Some(current) = A::scratch_packet() else {
        return drop_without_packet();
    };
    match current.parts() {
        Some((context, flow)) => track(&context, &flow),
        None => drop_without_packet(),
    }
}

/// Whether the assured map had an entry of the current packet's flow. Read where it is needed: kept, it
/// would take stack.
#[inline(always)]
fn may_be_assured<A: Family>() -> bool {
    A::scratch_packet().is_some_and(|current| current.may_be_assured())
}

/// Tracks one packet of a flow, whose key is in the scratch space, and returns what to do with it.
#[inline(always)]
fn track<A: Family>(context: &Context, flow: &FlowPacket<A>) -> u32 {
    let Some(key) = A::scratch_key() else {
        return deny_without_entry(context);
    };
    let key = &*key;
    // Read before the peer's identity is: the agent writes the identity first.
    let epoch = maps::epoch(flow.peer().epoch_slot());
    let mut contested = 0;
    if let Some(mut found) = ct_store::find::<A>(context, key, may_be_assured::<A>) {
        let opening = opens(flow.packet.protocol, flow.packet.tcp);
        let entry_use = if may_need_no_rule(context, flow, found.entry) {
            current_use::<A>()
        } else {
            EntryUse::Usable
        };
        if entry_use != EntryUse::OtherSender && !(opening && flow.is_reply_of(found.entry)) {
            found.is_fresh = !opening
                && entry_use == EntryUse::Usable
                && found
                    .entry
                    .is_fresh(context.endpoint.table, epoch, clock::boot);
            if found.is_fresh && !flow.is_reversed(found.entry) {
                return established(context, flow, &mut found) as u32;
            }
            if found.is_fresh {
                return REPLIES | FRESH;
            }
            let raw = A::reevaluate_flow(epoch);
            return if raw == AGAINST_ORIGINATOR {
                REPLIES
            } else {
                raw
            };
        }
        contested = CONTESTED;
    }
    CREATES | contested
}

/// Updates the live entry for a packet that passed by its own direction, against the originator. The
/// entry is looked up again, because the caller had no room to keep where it is.
#[inline(always)]
pub fn update_reversed<A: Family>(unreported: u32) -> u32 {
    let parts = A::scratch_packet().and_then(|current| current.parts());
    let (Some((context, flow)), Some(key)) = (parts, A::scratch_key()) else {
        return 0;
    };
    let Some(mut found) = ct_store::find::<A>(&context, &*key, || true) else {
        return 0;
    };
    let longer = update_live(&context, &flow, &mut found);
    if longer && unreported == 0 && !flow.needs_no_rule(&context) {
        events::hit(found.entry.reverse_rule(), context.now);
    }
    0
}

/// A packet whose entry has a current verdict: the established path.
#[inline(always)]
fn established<A: Family>(context: &Context, flow: &FlowPacket<A>, found: &mut Found) -> Action {
    let verdict = found.entry.verdict();
    let action = Action::of(verdict, context.mode);
    if verdict == Verdict::Deny || matches!(action, Action::Drop) {
        A::report_denied(FOUND, action as u32);
    }
    if matches!(action, Action::Pass) {
        let longer = update_live(context, flow, found);
        if longer && verdict == Verdict::Allow {
            events::hit(found.entry.rule(), context.now);
        }
    } else if flow.is_lasting_originator(found.entry) {
        remember_originator(context, flow, found);
    }
    action
}

/// How long an entry with these flags and this state lasts after a packet.
#[inline(always)]
pub fn lifetime(entry_flags: u8, state: u8, protocol: u8) -> u64 {
    lifetime_of(
        u32::from(entry_flags),
        u32::from(state),
        u32::from(protocol),
    )
}

/// [`lifetime`] as an exported (global) function.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn lifetime_of(entry_flags: u32, state: u32, protocol: u32) -> u64 {
    let timeout = timeout(state as u8, protocol as u8);
    let lasts = clock::timeout(timeout);
    if entry_flags & u32::from(flags::TRANSLATED) != 0 {
        return timeout.while_translated(lasts);
    }
    lasts
}

/// When an entry ends that this packet is the last of, which leaves it in this state.
#[inline(always)]
fn expiry<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &CtEntry, state: u8) -> u64 {
    let expires = context.now + lifetime(entry.flags, state, flow.packet.protocol);
    if entry.expires != 0 && flow.may_miss_translation(entry) {
        // One that is translated since this packet has an end from before, which may be too late.
        return entry.expires.min(expires);
    }
    expires
}

/// A dropped packet of an originator that policy allowed before. While it sends it stays the recorded
/// originator, so its packets are no replies to what the other side may send.
#[inline(always)]
fn remember_originator<A: Family>(context: &Context, flow: &FlowPacket<A>, found: &mut Found) {
    let state = found.entry.state.bits();
    let timeout = lifetime(found.entry.flags, state, flow.packet.protocol);
    let seen = originator::coarse(context.now);
    if originator::worth_storing(found.entry.originator_seen, seen) {
        found.set_originator_seen(seen);
        set_expires::<A>(context, flow, found, (state, context.now + timeout));
    }
}

/// Stores an expiry in the live entry and, for a search, in its way's word.
#[inline(always)]
fn set_expires<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    found: &mut Found,
    (state, expires): (u8, u64),
) {
    found.set_expires(expires);
    if !found.entry.is_in_assured() {
        let protocol = u32::from(flow.packet.protocol);
        A::renew_unreplied(context.number.0, protocol, u32::from(state), expires);
    }
}

/// Updates state and expiry of the live entry for a packet that passes, and moves the entry if its
/// state requires it. Returns true if the expiry was extended, at most once per second; the caller
/// counts that as a hit of the rule.
#[inline(always)]
fn update_live<A: Family>(context: &Context, flow: &FlowPacket<A>, found: &mut Found) -> bool {
    let packet = flow.packet;
    let reply = flow.is_reply_of(found.entry);
    let before = found.entry.state.bits();
    let after = next_state(before, packet.protocol, reply, packet.tcp);
    let expires = expiry(context, flow, found.entry, after);
    let longer = worth_storing(found.entry.expires, expires);
    if longer || after != before {
        // A changed state changes the rank of a way, too.
        set_expires::<A>(context, flow, found, (after, expires));
    }
    // By itself: replies extend the expiry too.
    let seen = originator::coarse(context.now);
    if !reply && originator::worth_storing(found.entry.originator_seen, seen) {
        found.set_originator_seen(seen);
    }
    if after != before {
        found.change_state(before, after);
    }
    if (longer || after != before) && found.entry.is_misplaced(after) {
        A::relocate(context.number.0, u32::from(packet.protocol), context.now);
    }
    longer
}

/// Updates state and expiry of an entry that is about to be stored.
#[inline(always)]
pub fn update_entry<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &mut CtEntry) {
    let packet = flow.packet;
    let reply = flow.is_reply_of(entry);
    let after = next_state(entry.state.bits(), packet.protocol, reply, packet.tcp);
    entry.state = ringfence_common::conntrack::StateBytes::of(after);
    entry.expires = expiry(context, flow, entry, after);
    if !reply {
        entry.originator_seen = originator::coarse(context.now);
    }
}

/// Reports a denied packet of a flow, by the entry in a scratch slot.
#[inline(always)]
pub fn report_denied_flow<A: Family>(which: u32, action: u32) -> u32 {
    let action = if action == Action::Pass as u32 {
        Action::Pass
    } else {
        Action::Drop
    };
    let entry = if which == FOUND {
        maps::scratch_found()
    } else {
        maps::scratch_entry()
    };
    let current = A::scratch_packet();
    let parts = current.as_ref().and_then(|current| current.parts());
    let (Some(entry), Some((context, flow))) = (entry, parts) else {
        events::count_unreported(DropReason::ConntrackFull, action);
        return 0;
    };
    let Some(event) = events::new_event(&context, flow.from_workload, A::VERSION) else {
        let reason = DropReason::from_raw(entry.reason).unwrap_or(DropReason::Lockdown);
        events::count_unreported(reason, action);
        return 0;
    };
    events::set_packet(event, flow.packet);
    events::set_decision(event, entry, action);
    event.verdict = Verdict::Deny as u8;
    if event.reason == 0 {
        event.reason = DropReason::Lockdown as u8;
    }
    events::report_denied(&context, event)
}
