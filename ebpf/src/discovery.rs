//! Discovery and ARP, which pass without policy: how many from a workload, and to which addresses.
//!
//! Invariants: nothing passes in lockdown; what passes from a workload is charged to its rate and
//! counted. Which messages are discovery at all is decided in [`ringfence_common::packet::neighbour`].

use aya_ebpf::bindings::__sk_buff;
use ringfence_common::{
    drop_reason::DropReason,
    endpoint::Endpoint,
    mode::Mode,
    net::Ip6,
    packet::{
        Packet,
        neighbour::{self, ANSWER_TIME, Solicitor},
    },
    quota::charge_discovery,
    stats::Counter,
};

use crate::{clock, context::Context, ct_usage, events, family::Family, maps, skb::Skb};

/// Whether a discovery message or ARP packet passes whose content may.
#[inline(always)]
pub fn admit<const FROM: bool>(context: &Context) -> Result<(), DropReason> {
    if context.mode == Mode::Lockdown {
        return Err(DropReason::Lockdown);
    }
    if FROM {
        if !charge(context) {
            return Err(DropReason::DiscoveryRate);
        }
        events::count(Counter::DiscoveryPassed);
    }
    Ok(())
}

/// Charges one message; false if it exceeds the rate. Several CPUs may exceed it by one each.
#[inline(always)]
fn charge(context: &Context) -> bool {
    let Some(until) = maps::DISCOVERY_LIMITS.get_ptr_mut(context.number.0) else {
        return false;
    };
    // SAFETY: an aligned load from a map value.
    let charged = unsafe { core::ptr::read_volatile(until) };
    let step = charge_discovery(charged, context.now);
    if let Some(step) = step {
        ct_usage::add(until, step);
    }
    step.is_some()
}

/// Whether this CPU's packet, which is discovery, may pass by what it says.
#[inline(always)]
pub fn check<const FROM: bool>(skb: &Skb) -> Result<(), DropReason> {
    reason_of(if FROM {
        leaving6(skb.raw())
    } else {
        arriving6(skb.raw())
    })
}

/// The reason with a number; none for 0 alone.
#[inline(always)]
fn reason_of(number: u32) -> Result<(), DropReason> {
    if number == 0 {
        return Ok(());
    }
    Err(DropReason::from_raw(number as u8).unwrap_or(DropReason::DiscoveryHeader))
}

/// The number of the reason why the workload may not send this CPU's packet, or 0. Exported (global), so
/// that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn leaving6(raw: *mut __sk_buff) -> u32 {
    number_of(raw, |skb, packet, endpoint| {
        let has_solicited = |address| has_solicited(address, endpoint.ifindex);
        neighbour::may_announce(skb, packet, endpoint, is_on_node, has_solicited)
    })
}

/// The same of a packet that arrives.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn arriving6(raw: *mut __sk_buff) -> u32 {
    number_of(raw, |skb, packet, endpoint| {
        neighbour::may_arrive(skb, packet, endpoint)?;
        if neighbour::solicits(packet) {
            let solicitor = Solicitor::new(packet.source, endpoint.ifindex);
            // Without an entry its answer is denied, and it asks again.
            let _ = maps::SOLICITORS.insert(solicitor, clock::ticks(), 0);
        }
        Ok(())
    })
}

#[inline(always)]
fn number_of(
    raw: *mut __sk_buff,
    may_pass: impl FnOnce(&Skb, &Packet<Ip6>, &Endpoint) -> Result<(), DropReason>,
) -> u32 {
    let skb = Skb::at(raw);
    let (Some(current), Some((_, endpoint))) =
        (maps::scratch_packet6(), maps::endpoint(skb.ifindex()))
    else {
        return DropReason::UnknownEndpoint as u32;
    };
    match may_pass(&skb, &current.packet, endpoint) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// Whether a solicitation from an address came to the interface a moment ago.
#[inline(always)]
fn has_solicited(address: Ip6, ifindex: u32) -> bool {
    let solicitor = Solicitor::new(address, ifindex);
    match maps::SOLICITORS.get_ptr(solicitor) {
        // SAFETY: an aligned load from a map value. Another solicitor's time would do no harm.
        Some(at) => clock::ticks().saturating_sub(unsafe { at.read_volatile() }) < ANSWER_TIME,
        None => false,
    }
}

/// Whether an address is one of the node or of its endpoints.
#[inline(always)]
fn is_on_node(address: Ip6) -> bool {
    maps::OWN_ADDRESSES6.get_ptr(address).is_some() || address.identity().is_node()
}
