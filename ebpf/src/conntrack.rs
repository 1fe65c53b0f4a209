//! Conntrack in the pipeline: use an entry's stored verdict, or evaluate policy and store the
//! result.
//!
//! Invariants: a stored verdict is used only while its table, epoch and recheck time are current.
//! Otherwise the flow is re-evaluated *in its original direction*, whichever end sent the packet,
//! so a revocation takes effect on the next packet in both directions. A denied flow is never
//! stored as allowed. A flow that was denied and dropped is not stored.

use ringfence_common::{
    conntrack::{CtEntry, flags, next_state, opens, restarts, timeout, worth_storing},
    drop_reason::DropReason,
    event::EventKind,
    ids::{IdentityId, RuleSlot},
    mode::{Action, Direction, Verdict},
    packet::Packet,
    stats::Counter,
};

use crate::{
    clock,
    context::Context,
    ct_new::{Opening, evaluate_new, is_mid_flow, opposite, set_direction},
    ct_store, events,
    family::Family,
    implicit_allow::{EntryUse, entry_use},
    maps,
    policy::{allow, evaluate},
};

/// A packet with its direction relative to the workload.
pub struct FlowPacket<'a, A> {
    pub packet: &'a Packet<A>,
    pub from_workload: bool,
}

impl<A: Family> FlowPacket<'_, A> {
    /// The peer's address: the end that is not the workload.
    #[inline(always)]
    pub fn peer(&self) -> A {
        if self.from_workload {
            self.packet.destination
        } else {
            self.packet.source
        }
    }

    #[inline(always)]
    fn key(&self, ifindex: u32) -> A::CtKey {
        let packet = self.packet;
        let source = (packet.source, packet.source_port);
        let destination = (packet.destination, packet.destination_port);
        let (local, peer) = if self.from_workload {
            (source, destination)
        } else {
            (destination, source)
        };
        A::ct_key(ifindex, packet.protocol, local, peer)
    }

    #[inline(always)]
    pub fn direction(&self) -> Direction {
        if self.from_workload {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    #[inline(always)]
    fn is_reply_of(&self, entry: &CtEntry) -> bool {
        (entry.flags & flags::FROM_WORKLOAD != 0) != self.from_workload
    }
}

/// Flag next to the [`Action`] that an out-of-line function returns in a register: the entry in
/// this CPU's scratch slot denies the packet and must still be reported.
const UNREPORTED: u32 = 1 << 8;

/// Reports what the callee left to report. Done here because a deeper frame has no stack left.
#[inline(always)]
fn finish<A: Family>(context: &Context, flow: &FlowPacket<A>, raw: u32) -> Action {
    let action = if raw & !UNREPORTED == Action::Pass as u32 {
        Action::Pass
    } else {
        Action::Drop
    };
    if raw & UNREPORTED != 0
        && let Some(entry) = maps::scratch_entry()
    {
        report_deny(context, flow, entry, action);
    }
    action
}

/// Action for a packet whose entry cannot be built: this CPU's scratch slot is missing.
#[inline(always)]
fn deny_without_entry(context: &Context) -> u32 {
    let action = Action::of(Verdict::Deny, context.mode);
    events::count_unreported(DropReason::ConntrackFull, action);
    action as u32
}

/// Re-evaluates the flow of an existing entry in its original direction.
#[inline(always)]
fn reevaluate<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &mut CtEntry) {
    if entry.flags & flags::HOST_INGRESS != 0 {
        return allow(entry, RuleSlot::HOST_INGRESS, IdentityId::HOST);
    }
    if flow.peer().owned_by(context.endpoint) {
        return allow(entry, RuleSlot::OWN_ADDRESS, context.endpoint.identity);
    }
    let port = if flow.is_reply_of(entry) {
        flow.packet.source_port
    } else {
        flow.packet.destination_port
    };
    evaluate(context, flow, (entry.direction(), port), entry);
}

/// Whether the flow of a quoted packet has a live, fresh entry that allows it. A stale entry does
/// not count: the packet that caused the error passed here and refreshed the entry; if policy has
/// changed since, the next packet refreshes it again.
#[inline(never)]
pub fn is_allowed<A: Family>(context: &Context, flow: &FlowPacket<A>) -> bool {
    let Some(entry) = ct_store::find::<A>(context, &flow.key(context.ifindex)) else {
        return false;
    };
    let epoch = maps::epoch(flow.peer().epoch_slot());
    entry.is_fresh(context.endpoint.table, epoch, clock::boot)
        && entry.verdict() == Verdict::Allow
        && entry_use(context, flow, entry) != EntryUse::Stale
}

/// Tracks one packet of a flow and returns what to do with it.
#[inline(always)]
pub fn track<A: Family>(context: &Context, flow: &FlowPacket<A>) -> Action {
    let key = flow.key(context.ifindex);
    let epoch = maps::epoch(flow.peer().epoch_slot());
    let mut contested = false;
    if let Some(entry) = ct_store::find::<A>(context, &key) {
        let opening = opens(flow.packet.protocol, flow.packet.tcp);
        let entry_use = entry_use(context, flow, entry);
        if !(opening && flow.is_reply_of(entry)) && entry_use != EntryUse::OtherSender {
            if !opening
                && entry_use == EntryUse::Usable
                && entry.is_fresh(context.endpoint.table, epoch, clock::boot)
            {
                return established(context, flow, &key, entry);
            }
            return finish(
                context,
                flow,
                reevaluate_entry(context, flow, &key, entry, epoch),
            );
        }
        contested = true;
    }
    finish(
        context,
        flow,
        create_entry(context, flow, &key, epoch, contested),
    )
}

/// A packet whose entry has a current verdict: the established path.
#[inline(always)]
fn established<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    key: &A::CtKey,
    entry: &mut CtEntry,
) -> Action {
    let action = Action::of(entry.verdict(), context.mode);
    if entry.verdict() == Verdict::Deny || matches!(action, Action::Drop) {
        report_deny(context, flow, entry, action);
    }
    if matches!(action, Action::Pass) {
        let before = entry.state;
        let longer = update_entry(context, flow, entry);
        if longer && entry.verdict() == Verdict::Allow {
            events::hit(entry.rule, context.now);
        }
        let moved = entry.state != before;
        if (moved && ct_store::is_first_reply(entry, before, flow.packet.protocol))
            || ((moved || longer) && entry.is_misplaced())
        {
            ct_store::promote::<A>(context, key, entry, before, flow.packet.protocol);
        }
    }
    action
}

/// Updates state, expiry and counters of an entry for a packet that passes. Returns true if the
/// expiry was extended, at most once per second; the caller counts that as a hit of the rule.
#[inline(always)]
fn update_entry<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &mut CtEntry) -> bool {
    let packet = flow.packet;
    let reply = flow.is_reply_of(entry);
    let after = next_state(entry.state, packet.protocol, reply, packet.tcp);
    if after != entry.state {
        entry.state = after;
    }
    let expires = context.now + timeout(after, packet.protocol);
    let longer = worth_storing(entry.expires, expires);
    if longer {
        entry.expires = expires;
    }
    let [original, replies] = &mut entry.packets;
    let [original_bytes, reply_bytes] = &mut entry.bytes;
    if reply {
        *replies = replies.wrapping_add(1);
        *reply_bytes = reply_bytes.wrapping_add(u64::from(packet.length));
    } else {
        *original = original.wrapping_add(1);
        *original_bytes = original_bytes.wrapping_add(u64::from(packet.length));
    }
    longer
}

/// An entry whose verdict is stale, or that a SYN of the original direction reopens.
#[inline(never)]
fn reevaluate_entry<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    key: &A::CtKey,
    old: &CtEntry,
    epoch: u32,
) -> u32 {
    let Some(entry) = maps::scratch_entry() else {
        return deny_without_entry(context);
    };
    *entry = *old;
    let verdict = entry.verdict;
    if opens(flow.packet.protocol, flow.packet.tcp) {
        // This SYN shows which end opens the connection.
        entry.flags &= !flags::PICKED_UP;
    }
    reevaluate(context, flow, entry);
    if entry.verdict() == Verdict::Deny && entry.flags & flags::PICKED_UP != 0 {
        let before = entry.direction();
        set_direction(entry, opposite(before));
        reevaluate(context, flow, entry);
        if entry.verdict() == Verdict::Deny {
            set_direction(entry, before);
            reevaluate(context, flow, entry);
        }
    }
    let packet = flow.packet;
    let reply = flow.is_reply_of(old);
    if restarts(old.state, packet.protocol, reply, packet.tcp) {
        charge(context, entry);
    }
    events::count(Counter::FlowsReevaluated);
    let changed = entry.verdict != verdict;
    stamp(entry, context, epoch);
    let kind = if changed {
        Some(EventKind::Changed)
    } else {
        None
    };
    commit(context, flow, key, entry, (kind, true))
}

/// A packet without a live entry, or (`contested`) with an entry that does not cover it: a SYN
/// against the entry's direction, or a packet from another host over a host flow. A packet that can
/// open a flow replaces the entry if policy allows it. Otherwise the entry stays as it is, also in
/// `observe`.
#[inline(never)]
fn create_entry<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    key: &A::CtKey,
    epoch: u32,
    contested: bool,
) -> u32 {
    let Some(entry) = maps::scratch_entry() else {
        return deny_without_entry(context);
    };
    *entry = CtEntry {
        expires: 0,
        recheck: 0,
        bytes: [0; 2],
        packets: [0; 2],
        table: context.endpoint.table,
        epoch,
        rule: RuleSlot::NONE,
        peer: IdentityId::UNKNOWN,
        verdict: Verdict::Deny as u8,
        state: 0,
        flags: if flow.from_workload {
            flags::FROM_WORKLOAD
        } else {
            0
        },
        reason: 0,
        reserved: [0; 4],
    };
    let opening = evaluate_new(context, flow, entry);
    if opening == Opening::Flow {
        charge(context, entry);
    }
    events::count(match entry.verdict() {
        Verdict::Allow => Counter::FlowsAllowed,
        Verdict::Deny => Counter::FlowsDenied,
    });
    let may_open = !is_mid_flow(flow.packet);
    let takes_over = entry.verdict() == Verdict::Allow && may_open;
    let may_keep = !contested || takes_over;
    let keep = may_keep && opening != Opening::Nothing;
    let raw = commit(context, flow, key, entry, (Some(EventKind::New), keep));
    let passes = raw == Action::Pass as u32;
    if contested && takes_over && passes {
        // The replaced entry may be in the assured map, which is searched first.
        ct_store::remove::<A>(context, key);
    }
    raw
}

/// Charges an allowed flow that the workload opens to its usage; denies it if the quota is
/// exceeded.
#[inline(always)]
fn charge(context: &Context, entry: &mut CtEntry) {
    if entry.flags & flags::FROM_WORKLOAD != 0
        && entry.verdict() == Verdict::Allow
        && let Err(reason) = ct_store::charge(context)
    {
        entry.fail_closed(reason, entry.peer);
        // In `observe` the packet passes, so check the quota again on the next packet.
        entry.recheck = 0;
    }
}

#[inline(always)]
fn stamp(entry: &mut CtEntry, context: &Context, epoch: u32) {
    entry.table = context.endpoint.table;
    entry.epoch = epoch;
}

/// Stores the whole entry if its packet passes or if the flow had an entry before, and reports it
/// if it is allowed. A flow that cannot be stored is denied, because its replies could not be
/// recognised.
#[inline(always)]
fn commit<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    key: &A::CtKey,
    entry: &mut CtEntry,
    (kind, keep): (Option<EventKind>, bool),
) -> u32 {
    let mut action = Action::of(entry.verdict(), context.mode);
    let known = entry.expires != 0;
    let passes = matches!(action, Action::Pass);
    if passes {
        update_entry(context, flow, entry);
    }
    if keep && (passes || known) && !ct_store::store::<A>(key, entry) {
        entry.verdict = Verdict::Deny as u8;
        entry.reason = DropReason::ConntrackFull as u8;
        entry.flags &= !flags::REJECTED;
        action = Action::of(Verdict::Deny, context.mode);
    }
    if entry.verdict() == Verdict::Deny || matches!(action, Action::Drop) {
        return action as u32 | UNREPORTED;
    }
    events::hit(entry.rule, context.now);
    if let Some(kind) = kind
        && let Some(event) = events::new_event(context, flow.from_workload, A::VERSION)
    {
        events::set_packet(event, flow.packet);
        events::set_decision(event, entry, action);
        events::report_flow(event, kind);
    }
    action as u32
}

#[inline(never)]
fn report_deny<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &CtEntry,
    action: Action,
) -> u32 {
    let Some(event) = events::new_event(context, flow.from_workload, A::VERSION) else {
        events::count_unreported(
            DropReason::from_raw(entry.reason).unwrap_or(DropReason::Lockdown),
            action,
        );
        return 0;
    };
    events::set_packet(event, flow.packet);
    events::set_decision(event, entry, action);
    event.verdict = Verdict::Deny as u8;
    if event.reason == 0 {
        event.reason = DropReason::Lockdown as u8;
    }
    events::report_denied(context, event)
}
