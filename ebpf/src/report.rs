//! Telemetry: counters, rule hits, deny aggregation and flow records.
//!
//! Invariants: nothing here changes a verdict; what cannot be recorded is counted as lost; the
//! reader is woken only when a quarter of the ring is full, because a wake-up for each record
//! multiplies the cost of a new flow.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use ringfence_common::{
    deny::{DenyCount, DenyKey, REPORT_INTERVAL},
    event::{EventKind, FlowEvent},
    ids::RuleSlot,
    maps::EVENTS_BYTES,
    reason::DropReason,
    stats::{Counter, of_reason},
};

use crate::{
    context::{Context, Facts},
    maps::{DENIES, EVENTS, RULE_HITS, STATS},
};

#[inline(always)]
fn add(index: u32) {
    if let Some(counter) = STATS.get_ptr_mut(index) {
        // SAFETY: this CPU's slot of a preallocated per-CPU array; no other CPU touches it.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
pub fn count(counter: Counter) {
    add(counter as u32);
}

/// Counts one verdict that a rule made.
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

/// A packet that was dropped, or would have been: counted by reason, aggregated by kind, reported
/// with the first of its kind and then once per interval.
#[inline(never)]
pub fn denied(context: &Context, facts: &Facts) -> u32 {
    if let Some(reason) = DropReason::from_raw(facts.reason) {
        add(of_reason(reason, facts.action));
    }
    hit(facts.rule, context.now);
    let key = DenyKey {
        peer: facts.peer,
        ifindex: context.ifindex,
        rule: facts.rule,
        port: facts.service_port,
        protocol: facts.protocol,
        reason: facts.reason,
        direction: facts.direction as u8,
        action: facts.action as u8,
        reserved: [0; 2],
    };
    let length = u64::from(context.length);
    let (mut packets, mut bytes) = (1, length);
    if let Some(count) = DENIES.get_ptr_mut(key) {
        // SAFETY: an LRU value stays mapped memory for the run; a concurrent writer or a recycled
        // slot costs an inexact count, and `STATS` holds the exact one.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += length;
            if context.now.wrapping_sub((*count).reported) < REPORT_INTERVAL {
                return 0;
            }
            (*count).reported = context.now;
            (packets, bytes) = ((*count).packets, (*count).bytes);
        }
    } else {
        let first = DenyCount {
            packets,
            bytes,
            first: context.now,
            reported: context.now,
        };
        if DENIES.insert(key, first, 0).is_err() {
            count(Counter::DeniesLost);
        }
    }
    record(context, facts, EventKind::Denied, packets, bytes);
    0
}

/// A flow seen for the first time, or judged anew with another outcome.
#[inline(never)]
pub fn flow(context: &Context, facts: &Facts, changed: bool) -> u32 {
    let kind = if changed {
        EventKind::Changed
    } else {
        EventKind::New
    };
    record(context, facts, kind, 1, u64::from(context.length));
    0
}

#[inline(always)]
fn record(context: &Context, facts: &Facts, kind: EventKind, packets: u64, bytes: u64) {
    let Some(mut entry) = EVENTS.reserve::<FlowEvent>(0) else {
        count(Counter::EventsLost);
        return;
    };
    entry.write(FlowEvent {
        time: context.now,
        packets,
        bytes,
        local: facts.local,
        peer: facts.peer,
        ifindex: context.ifindex,
        identity: context.endpoint.identity,
        peer_identity: facts.peer_identity,
        rule: facts.rule,
        table: context.endpoint.table,
        local_port: facts.local_port,
        peer_port: facts.peer_port,
        protocol: facts.protocol,
        family: facts.family,
        direction: facts.direction as u8,
        verdict: facts.verdict as u8,
        action: facts.action as u8,
        reason: facts.reason,
        kind: kind as u8,
        tcp: facts.tcp,
        from_workload: u8::from(facts.from_workload),
        reserved: [0; 7],
    });
    let crowded = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(EVENTS_BYTES / 4);
    let wakeup = if crowded {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    entry.submit(u64::from(wakeup));
    count(Counter::EventsWritten);
}
