//! The first packet of a flow: which end opens the flow, and does policy allow it?
//!
//! Invariants: a pure SYN opens the flow for its sender, and so does a packet of a protocol that
//! does not show which end opened the flow. A mid-flow TCP packet may be a reply. Within the
//! pick-up window both directions are evaluated. For packets from the host, policy is checked for
//! whether the workload may have opened the flow. Existing entries are not considered here.

use ringfence_common::{
    SECOND,
    conntrack::{CtEntry, flags, opens},
    ids::{IdentityId, RuleSlot},
    mode::{Direction, Verdict},
    packet::{Packet, TcpFlags, protocol},
};

use crate::{
    clock,
    context::Context,
    current_packet::FlowPacket,
    family::Family,
    policy::{allow, evaluate},
};

/// What a packet opens, whatever its verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Opening {
    /// A flow, to be stored.
    Flow,
    /// Nothing: the packet may pass, but no entry is stored.
    Nothing,
}

/// Evaluates a packet that may open a flow of its own: not one that is mid-flow.
#[inline(always)]
pub fn evaluate_opening<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &mut CtEntry) {
    if flow.is_from_host(context) {
        entry.flags |= flags::HOST_INGRESS;
        return allow(entry, RuleSlot::HOST_INGRESS, IdentityId::HOST);
    }
    if flow.is_from_itself(context) {
        return allow_itself(context, flow, entry);
    }
    let forward = (flow.direction(), flow.packet.destination_port);
    evaluate(context, flow, forward, entry);
}

/// Allows what a workload sends to itself. It never leaves the workload unless it is addressed to a
/// Service; on a shared link such a packet reaches others, so what the workload sends needs a rule.
#[inline(always)]
pub fn allow_itself<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &mut CtEntry) {
    entry.flags &= !flags::TRANSLATED;
    if !flow.peer().owned_by(context.endpoint) {
        entry.flags |= flags::TRANSLATED;
    }
    allow(entry, RuleSlot::OWN_ADDRESS, context.endpoint.identity);
}

/// Evaluates the first packet of a flow. May decide that the flow runs in the other direction.
#[inline(always)]
pub fn evaluate_new<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &mut CtEntry,
) -> Opening {
    let mid_flow = is_mid_flow(flow.packet);
    if mid_flow && flow.is_from_host(context) {
        return host_mid_flow(context, flow, entry);
    }
    let own = flow.peer().owned_by(context.endpoint);
    if mid_flow && flow.is_from_itself(context) {
        evaluate_opening(context, flow, entry);
        return what_a_segment_opens(flow.packet);
    }
    if own || !(mid_flow && in_pickup_window(context)) {
        evaluate_opening(context, flow, entry);
        return Opening::Flow;
    }
    let forward = (flow.direction(), flow.packet.destination_port);
    // The SYN of this connection was not seen. Servers usually have the lower port, so that
    // direction is tried first. The other direction is tried if policy does not allow the first
    // one, now or after a change.
    let backward = (opposite(forward.0), flow.packet.source_port);
    let is_reply = flow.packet.source_port.number() < flow.packet.destination_port.number();
    let (likely, other) = if is_reply {
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

/// First port of Linux's default client port range (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: u16 = 32_768;

/// A mid-flow packet from the host, which may be a late reply or one after a revocation. It passes,
/// as all host traffic does. It creates an entry only if policy allows the workload to have opened
/// the flow, or, within the pick-up window, if the host's port is a client port.
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
    let mut opening = Opening::Nothing;
    if what_a_segment_opens(packet) == Opening::Flow {
        set_direction(entry, Direction::Egress);
        let reverse = (Direction::Egress, packet.source_port);
        evaluate(context, flow, reverse, entry);
        if entry.verdict() == Verdict::Allow {
            return Opening::Flow;
        }
        set_direction(entry, Direction::Ingress);
        let client = packet.source_port.number() >= EPHEMERAL;
        if client && in_pickup_window(context) {
            entry.flags |= flags::HOST_INGRESS;
            opening = Opening::Flow;
        }
    }
    allow(entry, RuleSlot::HOST_INGRESS, IdentityId::HOST);
    opening
}

/// What a mid-flow segment opens that needs no rule. A SYN-ACK may reply to a forged SYN, and nothing follows
/// a reset.
#[inline(always)]
fn what_a_segment_opens<A: Family>(packet: &Packet<A>) -> Opening {
    if packet.tcp.has(TcpFlags::SYN) || packet.tcp.has(TcpFlags::RST) {
        Opening::Nothing
    } else {
        Opening::Flow
    }
}

#[inline(always)]
pub fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}

/// Sets an entry's original direction.
#[inline(always)]
pub fn set_direction(entry: &mut CtEntry, direction: Direction) {
    match direction {
        Direction::Egress => entry.flags |= flags::FROM_WORKLOAD,
        Direction::Ingress => entry.flags &= !flags::FROM_WORKLOAD,
    }
}

/// Whether a packet may belong to a TCP connection that is older than the fence; a SYN never does.
/// Other protocols do not show which end opened the flow: accepting a datagram as a reply would
/// allow to leave everything that the reverse direction allows to enter.
#[inline(always)]
pub fn is_mid_flow<A: Family>(packet: &Packet<A>) -> bool {
    packet.protocol == protocol::TCP && !opens(packet.protocol, packet.tcp)
}

#[inline(always)]
fn in_pickup_window(context: &Context) -> bool {
    clock::boot() < u64::from(context.endpoint.pickup_until) * SECOND
}
