//! What each endpoint uses of conntrack, and whether it is over its share.
//!
//! Invariants: other CPUs change the counts at the same time, so they are changed by atomic
//! additions and read with one load; nothing here holds a reference to them. The agent's sweep corrects
//! what is counted wrong.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::{read_volatile, write_volatile},
};

use ringfence_common::{
    ids::EndpointNumber,
    quota::{Usage, charge_aggregate, is_over},
};

use crate::maps;

/// Adds to a number that other CPUs change, too; wraps. Without its old value this is one
/// instruction that every kernel with BPF has (`BPF_XADD`).
#[inline(always)]
pub fn add(number: *mut u64, step: u64) {
    // SAFETY: an aligned number in a map value, which is mapped for the run of the program.
    let _ = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, step) };
}

#[inline(always)]
fn count(number: EndpointNumber, step: u64, field: impl FnOnce(*mut Usage) -> *mut u64) {
    if let Some(usage) = maps::ct_usage(number) {
        add(field(usage), step);
    }
}

/// Counts a way of the unreplied table for an endpoint, or no longer (`step` -1).
#[inline(always)]
pub fn count_unreplied(number: EndpointNumber, step: u64) {
    // SAFETY: a field of a map value.
    count(number, step, |usage| unsafe { &raw mut (*usage).unreplied });
}

/// Counts an assured entry for an endpoint and in all, or no longer (`step` -1).
#[inline(always)]
pub fn count_assured(number: EndpointNumber, step: u64) {
    // SAFETY: a field of a map value.
    count(number, step, |usage| unsafe { &raw mut (*usage).assured });
    // SAFETY: as above.
    count(EndpointNumber::NONE, step, |usage| unsafe {
        &raw mut (*usage).assured
    });
}

/// Notes that a live entry of the endpoint was replaced, or that a flow could not be stored.
#[inline(always)]
pub fn note_recycled(number: EndpointNumber, now: u64) {
    if let Some(usage) = maps::ct_usage(number) {
        // SAFETY: one aligned store into a map value.
        unsafe { write_volatile(&raw mut (*usage).recycled, now) };
    }
}

/// The time of the last [`note_recycled`] on the tick clock; 0 if never.
#[inline(always)]
pub fn recycled(number: EndpointNumber) -> u64 {
    // SAFETY: one aligned load from a map value.
    maps::ct_usage(number).map_or(0, |usage| unsafe {
        read_volatile(&raw const (*usage).recycled)
    })
}

/// Whether an endpoint has reached its share of the unreplied table.
#[inline(always)]
pub fn is_over_unreplied(number: EndpointNumber) -> bool {
    let Some(usage) = maps::ct_usage(number) else {
        return true;
    };
    // SAFETY: one aligned load from a map value.
    let counted = unsafe { read_volatile(&raw const (*usage).unreplied) };
    let excess = maps::ct_usage_excess(number).unreplied;
    is_over(counted, excess, maps::ct_share().unreplied)
}

/// Whether there is room for one more assured entry of an endpoint.
#[inline(always)]
pub fn has_assured_room(number: EndpointNumber) -> bool {
    let share = maps::ct_share();
    assured(number, share.assured) || assured(EndpointNumber::NONE, share.assured_total)
}

#[inline(always)]
fn assured(number: EndpointNumber, limit: u32) -> bool {
    let Some(usage) = maps::ct_usage(number) else {
        return false;
    };
    // SAFETY: one aligned load from a map value.
    let counted = unsafe { read_volatile(&raw const (*usage).assured) };
    !is_over(counted, maps::ct_usage_excess(number).assured, limit)
}

/// Whether one more deny aggregate of the endpoint may have its own peer and port.
#[inline(always)]
pub fn may_aggregate(number: EndpointNumber, now: u64) -> bool {
    let Some(usage) = maps::ct_usage(number) else {
        return false;
    };
    // SAFETY: one aligned load from a map value.
    let until = unsafe { read_volatile(&raw const (*usage).aggregated_until) };
    let Some(step) = charge_aggregate(until, now) else {
        return false;
    };
    // SAFETY: a field of a map value.
    add(unsafe { &raw mut (*usage).aggregated_until }, step);
    true
}
