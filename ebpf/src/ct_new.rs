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
    packet::{Packet, TcpFlags, protocol},
};

use crate::{
    clock,
    conntrack::FlowPacket,
    context::Context,
    ct_store,
    family::Family,
    policy::{allow, evaluate},
};

/// What a packet opens, whatever its verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Opening {
    /// A flow.
    Flow,
    /// A flow that is booked already, if it is the workload's attempt.
    Charged,
    /// Nothing, though it passes.
    Nothing,
}

/// Judges the first packet of a flow; may find that the flow runs the other way.
#[inline(always)]
pub fn evaluate_new<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &mut CtEntry,
) -> Opening {
    let local = mutant!(everybody_is_the_node, context.ingress_ifindex == 0, true);
    let mid_flow = is_mid_flow(flow.packet);
    if !flow.from_workload && local {
        if mutant!(late_answers_open, mid_flow, false) {
            return host_mid_flow(context, flow, entry);
        }
        entry.flags |= flags::HOST_INGRESS;
        allow(entry, RuleSlot::HOST_INGRESS, IdentityId::HOST);
        return Opening::Flow;
    }
    if flow.peer().owned_by(context.endpoint) {
        allow(entry, RuleSlot::OWN_ADDRESS, context.endpoint.identity);
        return Opening::Flow;
    }
    let forward = (flow.direction(), flow.packet.destination_port);
    if !(mid_flow && in_pickup_window(context)) {
        evaluate(context, flow, forward, entry);
        return Opening::Flow;
    }
    // Nobody saw who opened this connection. Servers mostly have the lower port; the other
    // direction is asked if policy does not allow the likely one, now or after a change.
    let backward = (opposite(forward.0), flow.packet.source_port);
    let answers = flow.packet.source_port.number() < flow.packet.destination_port.number();
    let (likely, other) = if answers {
        (backward, forward)
    } else {
        (forward, backward)
    };
    entry.flags |= flags::PICKED_UP;
    for guess in [likely, other, likely] {
        set_direction(entry, guess.0);
        evaluate(context, flow, guess, entry);
        if entry.verdict() == Verdict::Allow {
            break;
        }
    }
    Opening::Flow
}

/// The least port that Linux gives a client (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: u16 = 32_768;

/// What may be an answer of the node's to the workload, late or after a revocation. It passes, as all that
/// the node sends, but makes a flow only of what policy lets the workload open; of what it does not, within
/// the pick-up window and only if the node's port is a client's.
#[inline(always)]
fn host_mid_flow<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &mut CtEntry,
) -> Opening {
    let packet = flow.packet;
    if flow.peer().owned_by(context.endpoint) {
        allow(entry, RuleSlot::OWN_ADDRESS, context.endpoint.identity);
        return Opening::Flow;
    }
    // A SYN that is answered may have been forged, and after a reset nothing goes on.
    let mut opening = Opening::Nothing;
    if mutant!(
        any_answer_opens,
        !packet.tcp.has(TcpFlags::SYN) && !packet.tcp.has(TcpFlags::RST),
        true
    ) {
        set_direction(entry, Direction::Egress);
        let asked = (Direction::Egress, packet.source_port);
        evaluate(context, flow, asked, entry);
        if entry.verdict() == Verdict::Allow && ct_store::charge(context).is_ok() {
            return Opening::Charged;
        }
        set_direction(entry, Direction::Ingress);
        let client = mutant!(
            servers_are_clients,
            packet.source_port.number() >= EPHEMERAL,
            true
        );
        if client && in_pickup_window(context) {
            entry.flags |= flags::HOST_INGRESS;
            opening = Opening::Flow;
        }
    }
    allow(entry, RuleSlot::HOST_INGRESS, IdentityId::HOST);
    opening
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
pub fn set_direction(entry: &mut CtEntry, direction: Direction) {
    match direction {
        Direction::Egress => entry.flags |= flags::FROM_WORKLOAD,
        Direction::Ingress => entry.flags &= !flags::FROM_WORKLOAD,
    }
}

/// Whether a packet may belong to a connection that is older than the fence: a SYN never does. Other
/// protocols than TCP do not show which end opened a flow: to believe a datagram would let everything out
/// that the reverse direction allows in.
#[inline(always)]
pub fn is_mid_flow<A: Family>(packet: &Packet<A>) -> bool {
    mutant!(datagrams_picked_up, packet.protocol == protocol::TCP, true)
        && !opens(packet.protocol, packet.tcp)
}

#[inline(always)]
fn in_pickup_window(context: &Context) -> bool {
    mutant!(
        pick_up_without_end,
        clock::boot() < u64::from(context.endpoint.pickup_until) * SECOND,
        true
    )
}
