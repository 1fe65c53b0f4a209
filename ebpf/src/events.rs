//! Telemetry: counters, rule hits, deny aggregates and flow events.
//!
//! Invariants: nothing here changes a verdict. An event that cannot be written is counted as lost.
//! The ring buffer's reader is never woken, because a wakeup multiplies the cost of a new flow; the
//! reader polls often enough for the size of the ring.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use ringfence_common::{
    conntrack::CtEntry,
    deny_aggregate::{DenyCount, DenyKey, REPORT_INTERVAL},
    drop_reason::DropReason,
    event::{EventKind, FlowEvent},
    ids::{IdentityId, RuleSlot},
    mode::{Action, Direction, Verdict},
    net::{Address, Ip4, Ip6, Port},
    packet::Packet,
    stats::{Counter, of_reason},
};

use crate::{
    clock,
    context::Context,
    ct_usage,
    family::Family,
    maps::{DENIES, EVENTS, RULE_HITS, SCRATCH, STATS},
};

/// Increments the counter at an index of `STATS`.
#[inline(always)]
pub fn add(index: u32) {
    add_many(index, 1);
}

#[inline(always)]
fn add_many(index: u32, number: u64) {
    if let Some(counter) = STATS.get_ptr_mut(index) {
        // SAFETY: this CPU's slot of a preallocated per-CPU array; no other CPU touches it.
        unsafe { *counter += number };
    }
}

#[inline(always)]
pub fn count(counter: Counter) {
    add(counter as u32);
}

/// Counts one verdict of a rule.
#[inline(always)]
pub fn hit(rule: RuleSlot, now: u64) {
    if let Some(hit) = RULE_HITS.get_ptr_mut(rule.0) {
        // SAFETY: as in `add`.
        unsafe {
            (*hit).hits += 1;
            (*hit).last = now;
        }
    }
}

/// This CPU's scratch event, with the fields of the last packet cleared.
#[inline(always)]
pub fn new_event(
    context: &Context,
    from_workload: bool,
    family: u8,
) -> Option<&'static mut FlowEvent> {
    let slot = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot of a preallocated per-CPU array. Programs do not nest, and the only
    // reference made here ends with the report.
    let event = unsafe { &mut *slot };
    *event = FlowEvent::default();
    event.packets = 1;
    event.bytes = u64::from(context.length);
    event.ifindex = context.ifindex;
    event.identity = context.endpoint.identity;
    event.table = context.endpoint.table;
    event.family = family;
    event.from_workload = u8::from(from_workload);
    event.direction = if from_workload {
        Direction::Egress
    } else {
        Direction::Ingress
    } as u8;
    event.verdict = Verdict::Deny as u8;
    Some(event)
}

/// Whether the packet that this CPU reported last was denied by a rule that rejects. Every dropped
/// packet is first reported, or counted by [`count_unreported`], which clears this.
#[inline(always)]
pub fn is_rejected() -> bool {
    let Some(event) = SCRATCH.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: as in `new_event`.
    unsafe { (*event).rejected != 0 }
}

/// Counts a packet that was dropped, or would have been, and for which no event can be built.
#[inline(always)]
pub fn count_unreported(reason: DropReason, action: Action) {
    add(of_reason(reason, action));
    if let Some(event) = SCRATCH.get_ptr_mut(0) {
        // SAFETY: as in `new_event`.
        unsafe { (*event).rejected = 0 };
    }
}

/// Sets the addresses, ports and protocol of a parsed packet.
#[inline(always)]
pub fn set_packet<A: Family>(event: &mut FlowEvent, packet: &Packet<A>) {
    event.protocol = packet.protocol;
    event.tcp = packet.tcp.0;
    if event.from_workload == 1 {
        event.local = packet.source.widen();
        event.peer = packet.destination.widen();
        event.local_port = packet.source_port;
        event.peer_port = packet.destination_port;
    } else {
        event.local = packet.destination.widen();
        event.peer = packet.source.widen();
        event.local_port = packet.destination_port;
        event.peer_port = packet.source_port;
    }
}

/// Sets the decision and the resulting action.
#[inline(always)]
pub fn set_decision(event: &mut FlowEvent, entry: &CtEntry, action: Action) {
    event.rule = entry.rule();
    event.peer_identity = entry.peer();
    event.verdict = entry.verdict() as u8;
    event.reason = entry.reason;
    event.direction = entry.direction() as u8;
    event.rejected = u8::from(entry.is_rejected());
    event.action = action as u8;
}

/// The destination port in the flow's original direction.
#[inline(always)]
fn service_port(event: &FlowEvent) -> Port {
    if event.direction == Direction::Egress as u8 {
        event.peer_port
    } else {
        event.local_port
    }
}

/// A packet that was dropped, or would have been: counted by reason, aggregated by key, and
/// reported with the first packet of its aggregate and then once per interval.
#[inline(never)]
pub fn report_denied(context: &Context, event: &mut FlowEvent) -> u32 {
    let action = if event.action == Action::Drop as u8 {
        Action::Drop
    } else {
        Action::Pass
    };
    if let Some(reason) = DropReason::from_raw(event.reason) {
        add(of_reason(reason, action));
    }
    hit(event.rule, context.now);
    let mut key = DenyKey {
        peer: event.peer,
        ifindex: event.ifindex,
        rule: event.rule,
        port: service_port(event),
        protocol: event.protocol,
        reason: event.reason,
        direction: event.direction,
        action: event.action,
        reserved: [0; 2],
    };
    event.kind = EventKind::Denied as u8;
    if let Some(count) = DENIES.get_ptr_mut(key) {
        return update_aggregate(context, event, count);
    }
    let named = ct_usage::may_aggregate(context.number, context.now);
    if !named {
        // A scan or a flood: all packets of one rule and protocol share an aggregate without peer
        // and ports.
        event.peer = if event.family == 4 {
            Ip4::UNSPECIFIED.widen()
        } else {
            Ip6::UNSPECIFIED
        };
        event.peer_identity = IdentityId::UNKNOWN;
        event.peer_port = Port::NONE;
        event.local_port = Port::NONE;
        (key.peer, key.port) = (event.peer, Port::NONE);
        if let Some(count) = DENIES.get_ptr_mut(key) {
            return update_aggregate(context, event, count);
        }
    }
    let written = emit_denied(event);
    let first = DenyCount {
        packets: 1,
        bytes: event.bytes,
        reported_packets: u64::from(written),
        reported_bytes: if written { event.bytes } else { 0 },
        reported: context.now,
    };
    // If there is no room, only the packets that wait for a later report are lost.
    _ = DENIES.insert(key, first, 0);
    0
}

/// Adds a packet to an existing aggregate, and reports the packets that no event covers yet if the
/// interval has passed.
#[inline(always)]
fn update_aggregate(context: &Context, event: &mut FlowEvent, count: *mut DenyCount) -> u32 {
    // SAFETY: an LRU value stays mapped memory for the run. Other CPUs add to the same totals, and the
    // slot may be given to another key meanwhile: packets that are then covered by no event count as
    // lost, and nothing but telemetry depends on it.
    let reported = unsafe {
        ct_usage::add(&raw mut (*count).packets, 1);
        ct_usage::add(&raw mut (*count).bytes, event.bytes);
        read_volatile(&raw const (*count).reported)
    };
    if context.now.saturating_sub(reported) < REPORT_INTERVAL {
        return 0;
    }
    // SAFETY: as above, one aligned access each.
    let total = unsafe {
        write_volatile(&raw mut (*count).reported, context.now);
        read_volatile(count)
    };
    event.packets = total.packets.saturating_sub(total.reported_packets);
    event.bytes = total.bytes.saturating_sub(total.reported_bytes);
    if emit_denied(event) {
        // SAFETY: as above.
        unsafe {
            write_volatile(&raw mut (*count).reported_packets, total.packets);
            write_volatile(&raw mut (*count).reported_bytes, total.bytes);
        }
    }
    0
}

/// Writes a deny event and counts the packets that it covers.
#[inline(always)]
fn emit_denied(event: &mut FlowEvent) -> bool {
    let written = write(event);
    if written {
        add_many(Counter::DeniesWritten as u32, event.packets);
    }
    written
}

/// Reports a new flow, or one whose verdict changed on re-evaluation.
#[inline(always)]
pub fn report_flow(event: &mut FlowEvent, kind: EventKind) {
    event.kind = kind as u8;
    write(event);
}

/// Returns false if the ring buffer is full.
#[inline(always)]
fn write(event: &mut FlowEvent) -> bool {
    event.time = clock::ticks();
    let written = EVENTS
        .output::<FlowEvent>(event, u64::from(BPF_RB_NO_WAKEUP))
        .is_ok();
    count(if written {
        Counter::EventsWritten
    } else {
        Counter::EventsLost
    });
    written
}
