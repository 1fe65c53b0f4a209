//! Conntrack in the packet path: a known flow's stored verdict, or a new judgement.
//!
//! Invariants: a stored verdict is used only while table, epoch and time say so; otherwise the flow
//! is judged again *in its original direction*, whichever side sent the packet, so a revocation
//! bites on the next packet both ways. A denied flow is never recorded as allowed, and a flow that
//! was denied and dropped is not recorded at all.

use ringfence_common::{
    conntrack::{CtEntry, flags, opens, state, step, timeout, worth_storing},
    ids::{IdentityId, RuleSlot},
    mode::{Action, Direction, Verdict},
    net::Port,
    packet::{Packet, protocol},
    policy::Decision,
    reason::DropReason,
    stats::Counter,
};

use crate::{
    context::{Context, Facts},
    family::Family,
    judge::{Judged, judge},
    maps, report,
};

/// One packet of a flow, oriented.
pub struct Step<'a, A> {
    pub packet: &'a Packet<A>,
    pub from_workload: bool,
}

impl<A: Family> Step<'_, A> {
    #[inline(always)]
    fn peer(&self) -> A {
        if self.from_workload {
            self.packet.destination
        } else {
            self.packet.source
        }
    }

    #[inline(always)]
    pub fn key(&self, ifindex: u32) -> A::CtKey {
        let packet = self.packet;
        A::ct_key(
            ifindex,
            packet.protocol,
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
        )
    }

    #[inline(always)]
    fn direction(&self) -> Direction {
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

#[inline(always)]
fn stored(entry: &CtEntry) -> Judged {
    Judged {
        decision: Decision {
            verdict: entry.verdict(),
            rule: entry.rule,
            recheck: entry.recheck,
        },
        peer: entry.peer,
        reason: entry.reason,
    }
}

/// Judges a recorded flow again, in its original direction.
#[inline(always)]
fn judge_again<A: Family>(context: &Context, step: &Step<A>, entry: &CtEntry) -> Judged {
    if entry.flags & flags::OWN_NODE != 0 {
        return Judged::allowed_by(RuleSlot::OWN_NODE, IdentityId::HOST);
    }
    let port = if step.is_reply_of(entry) {
        step.packet.source_port
    } else {
        step.packet.destination_port
    };
    judge(
        context,
        entry.direction(),
        step.peer(),
        step.packet.protocol,
        port,
    )
}

/// The verdict that stands for the flow a packet quoted by an ICMP error belongs to, if that flow
/// is recorded and live.
#[inline(always)]
pub fn standing<A: Family>(context: &Context, step: &Step<A>) -> Option<Judged> {
    let found = A::ct_find(&step.key(context.ifindex))?;
    // SAFETY: the pointer came from a lookup in this run; a recycled slot can only hold another
    // entry's values, never unmapped memory. Copied once, then judged from the copy.
    let entry = unsafe { *found };
    if !entry.is_live(context.now) {
        return None;
    }
    let epoch = maps::epoch(step.peer().epoch_slot());
    if entry.is_fresh(context.endpoint.table, epoch, context.now) {
        return Some(stored(&entry));
    }
    Some(judge_again(context, step, &entry))
}

/// Judges a packet of a flow and keeps the record. Returns what to do with the packet.
#[inline(always)]
pub fn flow<A: Family>(context: &Context, step: &Step<A>) -> Action {
    let key = step.key(context.ifindex);
    let epoch = maps::epoch(step.peer().epoch_slot());
    if let Some(found) = A::ct_find(&key) {
        // SAFETY: as in `standing`; the mutable use below is limited to expiry, state and counters,
        // none of which can turn a deny into an allow.
        let entry = unsafe { &mut *found };
        let opening = opens(step.packet.protocol, step.packet.tcp);
        if entry.is_live(context.now) && !(opening && step.is_reply_of(entry)) {
            if !opening && entry.is_fresh(context.endpoint.table, epoch, context.now) {
                return proceed(context, step, entry);
            }
            return renew(context, step, &key, entry, epoch);
        }
    }
    open(context, step, &key, epoch)
}

/// A packet of a flow whose stored verdict holds: the established path.
#[inline(always)]
fn proceed<A: Family>(context: &Context, packet_step: &Step<A>, entry: &mut CtEntry) -> Action {
    let action = Action::of(entry.verdict(), context.mode);
    if entry.verdict() == Verdict::Deny || matches!(action, Action::Drop) {
        deny(
            context,
            packet_step,
            &stored(entry),
            entry.direction(),
            action,
        );
    }
    if matches!(action, Action::Pass) {
        advance(context, packet_step, entry);
    }
    action
}

/// Moves state, expiry and counters of an entry for one packet that passes.
#[inline(always)]
fn advance<A: Family>(context: &Context, packet_step: &Step<A>, entry: &mut CtEntry) {
    let packet = packet_step.packet;
    let reply = packet_step.is_reply_of(entry);
    let after = step(entry.state, packet.protocol, reply, packet.tcp);
    if after != entry.state {
        entry.state = after;
    }
    let expires = context.now + timeout(after, packet.protocol);
    if worth_storing(entry.expires, expires) {
        entry.expires = expires;
        report::hit(entry.rule, context.now);
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
}

/// A recorded flow whose verdict is stale, or that a SYN of the original direction opens again.
#[inline(always)]
fn renew<A: Family>(
    context: &Context,
    packet_step: &Step<A>,
    key: &A::CtKey,
    old: &CtEntry,
    epoch: u32,
) -> Action {
    let judged = judge_again(context, packet_step, old);
    report::count(Counter::FlowsRejudged);
    let mut entry = *old;
    let changed = entry.verdict != judged.decision.verdict as u8;
    entry.table = context.endpoint.table;
    entry.epoch = epoch;
    entry.recheck = judged.decision.recheck;
    entry.rule = judged.decision.rule;
    entry.peer = judged.peer;
    entry.verdict = judged.decision.verdict as u8;
    entry.reason = judged.reason;
    let mut action = Action::of(judged.decision.verdict, context.mode);
    if matches!(action, Action::Pass) {
        advance(context, packet_step, &mut entry);
    }
    let kept = A::ct_store(key, &entry);
    let mut judged = judged;
    if !kept {
        judged = refuse_unrecorded(&judged);
        action = Action::of(Verdict::Deny, context.mode);
    }
    settle(
        context,
        packet_step,
        &judged,
        entry.direction(),
        action,
        changed,
    );
    action
}

/// A packet that no live entry speaks for.
#[inline(always)]
fn open<A: Family>(context: &Context, packet_step: &Step<A>, key: &A::CtKey, epoch: u32) -> Action {
    let packet = packet_step.packet;
    let direction = packet_step.direction();
    let mut entry_flags = if packet_step.from_workload {
        flags::FROM_WORKLOAD
    } else {
        0
    };
    let mut entry_state = 0;
    let mut judged;
    if !packet_step.from_workload && context.ingress_ifindex == 0 {
        entry_flags |= flags::OWN_NODE;
        judged = Judged::allowed_by(RuleSlot::OWN_NODE, IdentityId::HOST);
    } else if packet_step.peer().owned_by(context.endpoint) {
        judged = Judged::allowed_by(RuleSlot::OWN_ADDRESS, context.endpoint.identity);
    } else {
        let peer = packet_step.peer();
        judged = judge(
            context,
            direction,
            peer,
            packet.protocol,
            packet.destination_port,
        );
        if judged.decision.verdict == Verdict::Deny && may_be_older(context, packet_step) {
            let reverse = match direction {
                Direction::Egress => Direction::Ingress,
                Direction::Ingress => Direction::Egress,
            };
            let older = judge(context, reverse, peer, packet.protocol, packet.source_port);
            if older.decision.verdict == Verdict::Allow {
                judged = older;
                entry_flags = (entry_flags ^ flags::FROM_WORKLOAD) | flags::PICKED_UP;
                entry_state = state::REPLIED | state::ESTABLISHED;
            }
        }
    }
    let mut action = Action::of(judged.decision.verdict, context.mode);
    if matches!(action, Action::Pass) {
        let mut entry = CtEntry {
            expires: 0,
            recheck: judged.decision.recheck,
            bytes: [0; 2],
            packets: [0; 2],
            table: context.endpoint.table,
            epoch,
            rule: judged.decision.rule,
            peer: judged.peer,
            verdict: judged.decision.verdict as u8,
            state: entry_state,
            flags: entry_flags,
            reason: judged.reason,
            reserved: [0; 4],
        };
        advance(context, packet_step, &mut entry);
        if !A::ct_store(key, &entry) {
            judged = refuse_unrecorded(&judged);
            action = Action::of(Verdict::Deny, context.mode);
        }
    }
    report::count(match judged.decision.verdict {
        Verdict::Allow => Counter::FlowsAllowed,
        Verdict::Deny => Counter::FlowsDenied,
    });
    let judged_in = if entry_flags & flags::FROM_WORKLOAD != 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    settle(context, packet_step, &judged, judged_in, action, true);
    action
}

/// Within the pick-up window a packet from the middle of a connection may belong to one that is
/// older than the fence; one that opens something never does.
#[inline(always)]
fn may_be_older<A: Family>(context: &Context, packet_step: &Step<A>) -> bool {
    let packet = packet_step.packet;
    let is_echo_request = matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6)
        && packet.source_port != Port::NONE;
    !opens(packet.protocol, packet.tcp)
        && !is_echo_request
        && context.now < u64::from(context.endpoint.pickup_until) * ringfence_common::SECOND
}

#[inline(always)]
fn refuse_unrecorded(judged: &Judged) -> Judged {
    Judged {
        decision: Decision::lasting(Verdict::Deny, judged.decision.rule),
        peer: judged.peer,
        reason: DropReason::ConntrackFull as u8,
    }
}

/// Reports a fresh judgement.
#[inline(always)]
fn settle<A: Family>(
    context: &Context,
    packet_step: &Step<A>,
    judged: &Judged,
    direction: Direction,
    action: Action,
    changed: bool,
) {
    if judged.decision.verdict == Verdict::Deny || matches!(action, Action::Drop) {
        deny(context, packet_step, judged, direction, action);
        return;
    }
    report::hit(judged.decision.rule, context.now);
    if changed {
        let facts = facts(packet_step, judged, direction, action);
        report::flow(context, &facts, false);
    }
}

#[inline(always)]
fn deny<A: Family>(
    context: &Context,
    packet_step: &Step<A>,
    judged: &Judged,
    direction: Direction,
    action: Action,
) {
    let mut facts = facts(packet_step, judged, direction, action);
    facts.verdict = Verdict::Deny;
    if facts.reason == 0 {
        facts.reason = DropReason::Lockdown as u8;
    }
    report::denied(context, &facts);
}

#[inline(always)]
fn facts<A: Family>(
    packet_step: &Step<A>,
    judged: &Judged,
    direction: Direction,
    action: Action,
) -> Facts {
    let mut facts = Facts::of(packet_step.packet, packet_step.from_workload);
    facts.rule = judged.decision.rule;
    facts.peer_identity = judged.peer;
    facts.verdict = judged.decision.verdict;
    facts.action = action;
    facts.reason = judged.reason;
    if (direction == Direction::Egress) != packet_step.from_workload {
        facts.service_port = packet_step.packet.source_port;
    }
    facts.direction = direction;
    facts
}
