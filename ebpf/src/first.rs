//! The first packet of a flow: who opens it, and may they?
//!
//! Invariants: a pure SYN is of who sends it, and so is a packet of a protocol that does not show which end
//! opened its flow. A TCP packet from the middle of a connection may be an answer: within the pick-up window
//! policy is asked both ways, and of the node's packets it is asked whether the workload may have
//! asked. What is known of a flow is not asked here.

use ringfence_common::{
    SECOND,
    conntrack::{CtEntry, flags, opens},
    ids::{IdentityId, RuleSlot},
    mode::{Direction, Verdict},
    mutant,
    packet::{Packet, protocol},
};

use crate::{
    clock,
    conntrack::Step,
    context::Context,
    family::Family,
    judge::{allow, judge},
};

/// Judges the first packet of a flow; may find that the flow runs the other way. False if no flow is to be
/// made of it, though it passes.
#[inline(always)]
pub fn judge_first<A: Family>(context: &Context, step: &Step<A>, entry: &mut CtEntry) -> bool {
    let local = mutant!(everybody_is_the_node, context.ingress_ifindex == 0, true);
    let from_node = !step.from_workload && local;
    let mid_flow = is_mid_flow(step.packet);
    let older = mid_flow && in_window(context);
    if from_node {
        let may_answer = mid_flow && !(older && is_client_port(step.packet));
        if mutant!(late_answers_open, may_answer, false) {
            return judge_answer(context, step, entry);
        }
        entry.flags |= flags::OWN_NODE;
        allow(entry, RuleSlot::OWN_NODE, IdentityId::HOST);
        return true;
    }
    if step.peer().owned_by(context.endpoint) {
        allow(entry, RuleSlot::OWN_ADDRESS, context.endpoint.identity);
        return true;
    }
    let forward = (step.direction(), step.packet.destination_port);
    if !older {
        judge(context, step, forward, entry);
        return true;
    }
    // Nobody saw who opened this connection. Servers mostly have the lower port; the other
    // direction is asked if policy does not allow the likely one, now or after a change.
    let backward = (opposite(forward.0), step.packet.source_port);
    let answers = step.packet.source_port.number() < step.packet.destination_port.number();
    let (likely, other) = if answers {
        (backward, forward)
    } else {
        (forward, backward)
    };
    entry.flags |= flags::PICKED_UP;
    for guess in [likely, other, likely] {
        turn(entry, guess.0);
        judge(context, step, guess, entry);
        if entry.verdict() == Verdict::Allow {
            break;
        }
    }
    true
}

/// What may be an answer of the node's to the workload, late or after a revocation. It passes, as all that
/// the node sends, but makes a flow only of what policy lets the workload open.
#[inline(always)]
fn judge_answer<A: Family>(context: &Context, step: &Step<A>, entry: &mut CtEntry) -> bool {
    if step.peer().owned_by(context.endpoint) {
        allow(entry, RuleSlot::OWN_ADDRESS, context.endpoint.identity);
        return true;
    }
    turn(entry, Direction::Egress);
    judge(
        context,
        step,
        (Direction::Egress, step.packet.source_port),
        entry,
    );
    if entry.verdict() == Verdict::Allow {
        return true;
    }
    turn(entry, Direction::Ingress);
    allow(entry, RuleSlot::OWN_NODE, IdentityId::HOST);
    false
}

/// The least port that Linux gives a client (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: u16 = 32_768;

/// Whether the sender looks like the client of a connection.
#[inline(always)]
fn is_client_port<A: Family>(packet: &Packet<A>) -> bool {
    let port = packet.source_port.number();
    port >= EPHEMERAL || port >= packet.destination_port.number()
}

#[inline(always)]
pub fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}

/// Gives an entry its original direction.
#[inline(always)]
pub fn turn(entry: &mut CtEntry, direction: Direction) {
    match direction {
        Direction::Egress => entry.flags |= flags::FROM_WORKLOAD,
        Direction::Ingress => entry.flags &= !flags::FROM_WORKLOAD,
    }
}

/// Whether a packet may belong to a connection that is older than the fence: a SYN never does. Other
/// protocols than TCP do not show which end opened a flow: to believe a datagram would let everything out
/// that the reverse direction allows in.
#[inline(always)]
fn is_mid_flow<A: Family>(packet: &Packet<A>) -> bool {
    mutant!(datagrams_picked_up, packet.protocol == protocol::TCP, true)
        && !opens(packet.protocol, packet.tcp)
}

#[inline(always)]
fn in_window(context: &Context) -> bool {
    mutant!(
        pick_up_without_end,
        clock::boot() < u64::from(context.endpoint.pickup_until) * SECOND,
        true
    )
}
