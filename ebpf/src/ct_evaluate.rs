//! Evaluates policy for a flow and stores the result: new flows, stale entries, and packets against
//! a denied originator.
//!
//! Invariants: a stale flow is evaluated *in its recorded direction*, whichever end sent the packet,
//! so a revocation takes effect on the next packet in both directions. What is stored carries the
//! table, epoch and owner that were read before the lookup.

use ringfence_common::{
    conntrack::{
        CtEntry, flags, is_replied, opens,
        originator::{Reversal, coarse, reversal},
    },
    drop_reason::DropReason,
    event::EventKind,
    ids::{IdentityId, RuleSlot},
    mode::{Action, Direction, Verdict},
    stats::Counter,
};

use crate::{
    conntrack::{CREATES, UNREPORTED, UNREPORTED_FOUND, UPDATE_LIVE, lifetime, update_entry},
    context::Context,
    ct_new::{
        Opening, allow_itself, evaluate_new, evaluate_opening, is_mid_flow, opposite, set_direction,
    },
    ct_store::{FOUND, SCRATCH},
    ct_unreplied, ct_usage,
    current_packet::{FlowPacket, drop_without_packet},
    events,
    family::Family,
    implicit_allow::is_translated_to_itself,
    maps,
    policy::{allow, evaluate},
};

/// Action for a packet whose entry cannot be built: this CPU's scratch slot is missing.
#[inline(always)]
pub fn deny_without_entry(context: &Context) -> u32 {
    let action = Action::of(Verdict::Deny, context.mode);
    events::count_unreported(DropReason::ConntrackFull, action);
    action as u32
}

/// The flow of [`create_flow`] has an entry, which does not cover the packet.
pub const CONTESTED: u32 = 1;
/// The packet's sender takes over the entry of [`create_flow`].
pub const TAKEN_OVER: u32 = 2;

/// Evaluates the flow of this CPU's [`CurrentPacket`], which has no entry, or (`contested`) one that
/// does not cover it. Returns the [`Action`] with flags.
///
/// [`CurrentPacket`]: crate::current_packet::CurrentPacket
#[inline(always)]
pub fn create_flow<A: Family>(contested: u32) -> u32 {
    let Some(current) = A::scratch_packet() else {
        return drop_without_packet();
    };
    match current.parts() {
        Some((context, flow)) => {
            // Read before the peer's identity is: the agent writes the identity first.
            let epoch = maps::epoch(flow.peer().epoch_slot());
            create_entry(&context, &flow, epoch, contested)
        }
        None => drop_without_packet(),
    }
}

/// What [`reevaluate_flow`] returns if [`reply_flow`] is to decide.
pub const AGAINST_ORIGINATOR: u32 = 1 << 11;

/// Evaluates the flow of this CPU's [`CurrentPacket`] again, whose entry, in the scratch space, is stale
/// or reopened.
///
/// [`CurrentPacket`]: crate::current_packet::CurrentPacket
#[inline(always)]
pub fn reevaluate_flow<A: Family>(epoch: u32) -> u32 {
    let Some(current) = A::scratch_packet() else {
        return drop_without_packet();
    };
    let Some((context, flow)) = current.parts() else {
        return drop_without_packet();
    };
    match maps::scratch_found() {
        Some(entry) => reevaluate_entry(&context, &flow, entry, epoch),
        None => deny_without_entry(&context),
    }
}

/// The entry of [`reply_flow`] is stored as it is.
pub const FRESH: u32 = 1;

/// Decides about this CPU's [`CurrentPacket`], whose entry, in the scratch space, denies the originator,
/// which is the other side; [`CREATES`] if the sender becomes the originator. Not part of [`reevaluate_flow`],
/// because one frame for both would be too large.
///
/// [`CurrentPacket`]: crate::current_packet::CurrentPacket
#[inline(always)]
pub fn reply_flow<A: Family>(fresh: u32) -> u32 {
    let Some(current) = A::scratch_packet() else {
        return drop_without_packet();
    };
    let Some((context, flow)) = current.parts() else {
        return drop_without_packet();
    };
    match maps::scratch_found() {
        Some(entry) => against_originator(&context, &flow, entry, fresh == FRESH),
        None => deny_without_entry(&context),
    }
}

/// Evaluates the flow of an existing entry in its recorded direction.
#[inline(always)]
fn reevaluate<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &mut CtEntry) {
    if entry.flags & flags::HOST_INGRESS != 0 {
        return allow(entry, RuleSlot::HOST_INGRESS, IdentityId::HOST);
    }
    if !flow.from_workload && flow.peer().owned_by(context.endpoint) {
        return allow_itself(context, flow, entry);
    }
    // Not a flow that the workload opened to the node: what comes back would be its reply.
    let is_its_own = is_translated_to_itself(entry) || flow.came_back(context);
    if is_its_own
        && matches!(entry.direction(), Direction::Ingress)
        && flow.peer().identity().is_node()
    {
        return allow_itself(context, flow, entry);
    }
    let port = if flow.is_reply_of(entry) {
        flow.packet.source_port
    } else {
        flow.packet.destination_port
    };
    evaluate(context, flow, (entry.direction(), port), entry);
}

/// An entry whose verdict is stale, that a SYN of the recorded direction reopens, or whose originator is
/// denied while the other side sends.
#[inline(always)]
fn reevaluate_entry<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &mut CtEntry,
    epoch: u32,
) -> u32 {
    let before = entry.verdict();
    if opens(flow.packet.protocol, flow.packet.tcp) {
        // This SYN shows which end opens the connection.
        entry.flags &= !flags::PICKED_UP;
    }
    let owner = maps::owner(flow.peer().epoch_slot()) as u16;
    if entry.owner != owner {
        entry.owner = owner;
        entry.flags &= !flags::WAS_ALLOWED;
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
    events::count(Counter::FlowsReevaluated);
    stamp(entry, context, epoch);
    if flow.is_reversed(entry) {
        return AGAINST_ORIGINATOR;
    }
    let kind = if entry.verdict() == before {
        None
    } else {
        Some(EventKind::Changed)
    };
    let raw = commit(context, flow, (entry, FOUND), (kind, true));
    if raw & UNREPORTED != 0 {
        raw & !UNREPORTED | UNREPORTED_FOUND
    } else {
        raw
    }
}

/// A packet of the side that did not open the flow, while policy denies the originator: passes if its own
/// direction is allowed. The truth table is in [`ringfence_common::conntrack::originator`].
#[inline(always)]
fn against_originator<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &mut CtEntry,
    is_fresh: bool,
) -> u32 {
    let Some(alone) = maps::scratch_entry() else {
        return deny_without_entry(context);
    };
    let lasts = lifetime(entry.flags, entry.state.bits(), flow.packet.protocol);
    let owner = maps::owner(flow.peer().epoch_slot());
    let reversal = reversal(entry, owner, context.now, lasts);
    // The verdict on packets that need no rule is not that on others with the address.
    let needs_no_rule = flow.needs_no_rule(context);
    let known = is_fresh
        && match entry.reverse() {
            // Always allowed; reported with its first packet.
            _ if needs_no_rule => is_replied(entry.state.bits(), flow.packet.protocol),
            None => false,
            Some(Verdict::Deny) => true,
            Some(Verdict::Allow) => reversal == Reversal::PassesAlone,
        };
    let epoch = maps::epoch(flow.peer().epoch_slot());
    begin_entry(context, flow, epoch, alone);
    if known && !needs_no_rule {
        recall_reverse(entry, alone);
    } else {
        evaluate_opening(context, flow, alone);
    }
    if alone.verdict() == Verdict::Allow && reversal == Reversal::TakesOver {
        return CREATES | TAKEN_OVER;
    }
    let action = Action::of(alone.verdict(), context.mode);
    let passes = matches!(action, Action::Pass);
    if !known {
        if !alone.rule().is_implicit_allow() {
            entry.decide_reverse(alone);
        }
        if passes {
            update_entry(context, flow, entry);
        }
        // Without room it is evaluated again with the next packet.
        store(context, flow, FOUND);
    }
    // The caller has the live entry, and counts the rule's hit when its expiry is extended.
    let update = if known && passes { UPDATE_LIVE } else { 0 };
    if alone.verdict() == Verdict::Deny || !passes {
        return action as u32 | UNREPORTED | update;
    }
    if !known {
        events::hit(alone.rule(), context.now);
        report(context, flow, alone, action, EventKind::New);
    }
    action as u32 | update
}

/// Fills in what a denied originator's entry knows about the other direction.
#[inline(always)]
fn recall_reverse(entry: &CtEntry, into: &mut CtEntry) {
    into.verdicts = entry.reverse().unwrap_or(Verdict::Deny) as u8;
    into.rule = entry.reverse_rule;
    into.peer = reverse_peer(entry).narrow();
    if into.verdict() == Verdict::Deny {
        // An unknown peer or a missing table denies both directions.
        let both = [DropReason::UnknownPeer as u8, DropReason::NoPolicyRow as u8];
        into.reason = if both.contains(&entry.reason) {
            entry.reason
        } else {
            DropReason::Policy as u8
        };
    }
    if entry.flags & flags::REVERSE_REJECTED != 0 {
        into.flags |= flags::REJECTED;
    }
}

/// The peer's identity in the direction against the entry's. An address of the node is that of the node in
/// one of them, and that of clients behind it in the other.
#[inline(always)]
fn reverse_peer(entry: &CtEntry) -> IdentityId {
    let peer = entry.peer();
    match entry.direction() {
        Direction::Egress if peer.is_node() => peer.behind_node(),
        Direction::Ingress if entry.flags & flags::TRANSLATED != 0 => peer.node_of(),
        _ => peer,
    }
}

/// Makes it an entry for a flow that this packet's sender opens, not evaluated yet.
#[inline(always)]
fn begin_entry<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    epoch: u32,
    entry: &mut CtEntry,
) {
    entry.clear(context.endpoint.table, epoch);
    entry.owner = maps::owner(flow.peer().epoch_slot()) as u16;
    set_direction(entry, flow.direction());
}

/// A packet without a live entry, or (`contested`) with an entry that does not cover it: a SYN
/// against the entry's direction, or a packet from another host over a host flow. A packet that can
/// open a flow replaces the entry if policy allows it. Otherwise the entry stays as it is, also in
/// `observe`.
#[inline(always)]
fn create_entry<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    epoch: u32,
    contested: u32,
) -> u32 {
    let kind = if contested == TAKEN_OVER {
        EventKind::Changed
    } else {
        EventKind::New
    };
    let contested = contested != 0;
    let Some(entry) = maps::scratch_entry() else {
        return deny_without_entry(context);
    };
    begin_entry(context, flow, epoch, entry);
    let opening = evaluate_new(context, flow, entry);
    let is_policy = entry.reason == DropReason::Policy as u8;
    if is_policy && !contested && was_recycled(context) {
        check_forgotten(context, flow, entry);
    }
    events::count(match entry.verdict() {
        Verdict::Allow => Counter::FlowsAllowed,
        Verdict::Deny => Counter::FlowsDenied,
    });
    let may_open = !is_mid_flow(flow.packet);
    let takes_over = entry.verdict() == Verdict::Allow && may_open;
    let may_keep = !contested || takes_over;
    let keep = may_keep && opening != Opening::Nothing;
    let raw = commit(context, flow, (entry, SCRATCH), (Some(kind), keep));
    let passes = raw == Action::Pass as u32;
    if contested && takes_over && passes {
        // The replaced entry may be in the assured map, which is searched first.
        A::remove(context.number.0);
    }
    raw
}

/// How long after a live entry of the endpoint was replaced a denied packet may be a reply to it.
const FORGOTTEN: u64 = 180 * ringfence_common::SECOND;

#[inline(always)]
fn was_recycled(context: &Context) -> bool {
    let recycled = ct_usage::recycled(context.number);
    recycled != 0 && context.now.saturating_sub(recycled) < FORGOTTEN
}

/// Names the reason of a denied packet that may be a reply to a flow without an entry: policy allows
/// the other direction. It stays denied.
#[inline(always)]
fn check_forgotten<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &mut CtEntry) -> u32 {
    if opens(flow.packet.protocol, flow.packet.tcp) {
        return 0;
    }
    // Free: no entry was found.
    let Some(opened) = maps::scratch_found() else {
        return 0;
    };
    begin_entry(context, flow, entry.epoch, opened);
    let reverse = (opposite(flow.direction()), flow.packet.source_port);
    evaluate(context, flow, reverse, opened);
    if opened.verdict() == Verdict::Allow {
        entry.reason = DropReason::ReplyForgotten as u8;
    }
    0
}

/// Stores a scratch entry; false if there is no room, or if other CPUs take both ways that it chooses. Not
/// more than two: a loop would take too much stack.
#[inline(always)]
fn store<A: Family>(context: &Context, flow: &FlowPacket<A>, which: u32) -> bool {
    let protocol = u32::from(flow.packet.protocol);
    let mut stored = A::store(which, context.number.0, protocol, context.now);
    if stored == ct_unreplied::TAKEN {
        stored = A::store(which, context.number.0, protocol, context.now);
    }
    stored == ct_unreplied::STORED
}

#[inline(always)]
fn stamp(entry: &mut CtEntry, context: &Context, epoch: u32) {
    entry.table = context.endpoint.table;
    entry.epoch = epoch;
}

/// Stores the whole entry if its packet passes or if the flow had an entry before, and reports it
/// if it is allowed. A flow for which there is no room passes; its replies are denied, because they
/// cannot be recognised.
#[inline(always)]
fn commit<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    (entry, which): (&mut CtEntry, u32),
    (kind, keep): (Option<EventKind>, bool),
) -> u32 {
    let action = Action::of(entry.verdict(), context.mode);
    let known = entry.expires != 0;
    let passes = matches!(action, Action::Pass);
    if entry.verdict() == Verdict::Allow {
        entry.flags |= flags::WAS_ALLOWED;
    }
    if passes {
        update_entry(context, flow, entry);
    } else if known && flow.is_lasting_originator(entry) {
        // It stays the recorded originator while it sends.
        entry.originator_seen = coarse(context.now);
        let lasts = lifetime(entry.flags, entry.state.bits(), flow.packet.protocol);
        entry.expires = context.now + lasts;
    }
    let wanted = keep && (passes || known);
    let is_stored = !wanted || store(context, flow, which);
    if !is_stored && entry.verdict() == Verdict::Allow {
        events::count(Counter::FlowsNotStored);
        ct_usage::note_recycled(context.number, context.now);
    }
    if entry.verdict() == Verdict::Deny || matches!(action, Action::Drop) {
        return action as u32 | UNREPORTED;
    }
    events::hit(entry.rule(), context.now);
    if let Some(kind) = kind {
        report(context, flow, entry, action, kind);
    }
    action as u32
}

#[inline(always)]
fn report<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &CtEntry,
    action: Action,
    kind: EventKind,
) {
    if let Some(event) = events::new_event(context, flow.from_workload, A::VERSION) {
        events::set_packet(event, flow.packet);
        events::set_decision(event, entry, action);
        events::report_flow(event, kind);
    }
}
