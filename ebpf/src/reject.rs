//! Sends reject packets, and recognises them at the other hook.
//!
//! The rejected packet is rewritten into the reject packet and sent back out of its interface.
//! Invariants: a reject packet passes the fence only by its record, once. A packet that cannot be
//! rejected is dropped silently. Each endpoint's reject packets are rate-limited.
//!
//! Both entry points are exported (global) functions that read the packet themselves, so that the
//! verifier checks them once and not for every call path.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use ringfence_common::{
    ids::EndpointNumber,
    mode::Mode,
    net::{Ip4, Ip6},
    packet::{
        ETHERNET, Frame, ethertype, protocol,
        reject::{
            Checksum, Reject, TcpHeader, may_be_reset, may_reject, message_length, reset,
            unreachable,
        },
    },
    reject::{REJECT_LIFETIME, REJECTS_PER_SECOND, RejectKey, RejectLimit},
    stats::Counter,
};

use crate::{
    clock, ct_usage, events,
    family::Family,
    maps::{LAST_REJECT, REJECT_LIMITS, REJECTS, endpoint, namespace_mode, reject_buffer},
    skb::Skb,
};

/// Where this CPU builds a reject packet.
pub struct RejectBuffer {
    pub quote4: <Ip4 as Reject>::Quote,
    pub quote6: <Ip6 as Reject>::Quote,
    to: [u8; 6],
    from: [u8; 6],
    tcp: TcpHeader,
    key: RejectKey,
}

/// Finishes a dropped packet: if its rule rejects and it can be rejected, rewrites it into the
/// reject packet and sends that. Returns the program's return value.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn drop_or_reject(raw: *mut __sk_buff, from_workload: u32) -> i32 {
    let skb = Skb::at(raw);
    let from_workload = from_workload != 0;
    if !events::is_rejected() || !mode(skb.ifindex()).sends_rejects() {
        return TC_ACT_SHOT;
    }
    let outcome = match skb.ethertype() {
        ethertype::IPV4 => send_reject::<Ip4>(&skb, from_workload),
        ethertype::IPV6 => send_reject::<Ip6>(&skb, from_workload),
        _ => Counter::RejectsFailed as u32,
    };
    events::add(outcome);
    if outcome == Counter::RejectsSent as u32 {
        skb.send_back(from_workload)
    } else {
        TC_ACT_SHOT
    }
}

/// Whether any reject packet may be in flight between the hooks. Skips the lookup for most resets
/// and ICMP errors.
#[inline(always)]
pub fn rejects_in_flight(now: u64) -> bool {
    LAST_REJECT
        .get(0)
        .is_some_and(|sent| now.saturating_sub(*sent) < REJECT_LIFETIME)
}

/// Returns 1 if the packet is a reject packet that [`drop_or_reject`] sent, and only once for each.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_sent_reject(raw: *mut __sk_buff, from_workload: u32) -> u32 {
    let skb = Skb::at(raw);
    let Some(buffer) = reject_buffer() else {
        return 0;
    };
    let known = match skb.ethertype() {
        ethertype::IPV4 => key::<Ip4>(&skb, from_workload, buffer),
        ethertype::IPV6 => key::<Ip6>(&skb, from_workload, buffer),
        _ => 0,
    };
    if known == 0 {
        return 0;
    }
    let key = &buffer.key;
    // SAFETY: copied at once. A recycled record loses a reject packet, or lets one pass late.
    let Some(sent) = unsafe { REJECTS.get(key) }.copied() else {
        return 0;
    };
    // Only the CPU whose removal succeeds may pass the packet.
    let taken = REJECTS.remove(key).is_ok();
    u32::from(taken && clock::ticks().saturating_sub(sent) < REJECT_LIFETIME)
}

#[inline(always)]
fn mode(ifindex: u32) -> Mode {
    endpoint(ifindex).map_or(Mode::Lockdown, |(_, endpoint)| {
        Mode::effective(endpoint.mode_override, namespace_mode(endpoint.namespace()))
    })
}

/// Writes the reject packet over the rejected one, and its record. Returns the counter for the
/// outcome.
#[inline(never)]
fn send_reject<A: Family>(skb: &Skb, from_workload: bool) -> u32 {
    match write_reject::<A>(skb, from_workload) {
        Ok(()) => Counter::RejectsSent as u32,
        Err(counter) => counter as u32,
    }
}

#[inline(always)]
fn write_reject<A: Family>(skb: &Skb, from_workload: bool) -> Result<(), Counter> {
    let failed = Counter::RejectsFailed;
    let buffer = reject_buffer().ok_or(failed)?;
    let transport = ETHERNET + A::HEADER;
    let mut first = [0; 1];
    if !(skb.load(0, &mut buffer.to)
        && skb.load(6, &mut buffer.from)
        && skb.load(transport, &mut first))
    {
        return Err(failed);
    }
    let head = A::head(skb, A::quote(buffer)).ok_or(failed)?;
    if !may_reject(buffer.to[0], &head, first[0]) {
        return Err(failed);
    }
    // A bridge floods packets to other hosts. The reject packet would have such a host as its source, which
    // the other hook denies, as an offence of the workload.
    let own = |address: A| endpoint(skb.ifindex()).is_some_and(|(_, own)| address.owned_by(own));
    if !from_workload && !own(head.destination) {
        return Err(failed);
    }
    let resets = head.protocol == protocol::TCP;
    if resets && !(skb.load(transport, &mut buffer.tcp) && may_be_reset(&buffer.tcp)) {
        return Err(failed);
    }
    if !within_limit(skb.ifindex()) {
        return Err(Counter::RejectsLimited);
    }
    let (number, payload) = if resets {
        (protocol::TCP, 20)
    } else {
        (A::ICMP, message_length::<A>())
    };
    if !skb.resize(transport + u32::from(payload)) {
        return Err(failed);
    }
    let checksum = skb.checksum(transport).ok_or(failed)?;
    let tcp = buffer.tcp;
    let written = if resets {
        skb.store(
            transport,
            &reset::<A>(A::quote(buffer), head.payload, &tcp, checksum),
        )
    } else if checksum == Checksum::Partial && head.protocol != protocol::UDP {
        // The checksum offset is known for TCP and UDP only.
        false
    } else {
        let quote = A::quote(buffer);
        skb.store(transport, &unreachable::<A>(quote, head.protocol, checksum))
            && skb.store(transport + 8, A::bytes_of_quote(quote))
    };
    let header = A::header(A::quote(buffer), number, payload);
    if !(written
        && skb.store(0, &buffer.from)
        && skb.store(6, &buffer.to)
        && skb.store(ETHERNET, header.as_ref()))
    {
        return Err(failed);
    }
    // The other hook will see it.
    if key::<A>(skb, u32::from(!from_workload), buffer) == 0 {
        return Err(failed);
    }
    let (key, now) = (&buffer.key, clock::ticks());
    LAST_REJECT
        .set(0, now, 0)
        .and_then(|()| REJECTS.insert(key, now, 0))
        .map_err(|_| failed)
}

/// Takes one reject packet from the endpoint's rate limit. With several CPUs rejecting for one
/// endpoint at once it may exceed the limit by the number of CPUs.
#[inline(always)]
fn within_limit(ifindex: u32) -> bool {
    let number = endpoint(ifindex).map_or(EndpointNumber::NONE, |(slot, _)| slot.number());
    let Some(limit) = REJECT_LIMITS.get_ptr_mut(number.0) else {
        return false;
    };
    let now = clock::ticks();
    // SAFETY: an array element of this endpoint; other CPUs change it, so each field is accessed by
    // one load, one store or one atomic addition.
    unsafe {
        if RejectLimit::is_over(read_volatile(&raw const (*limit).since), now) {
            write_volatile(&raw mut (*limit).since, now);
            write_volatile(&raw mut (*limit).given, 0);
        }
        let given = read_volatile(&raw const (*limit).given);
        if given >= REJECTS_PER_SECOND {
            return false;
        }
        ct_usage::add(&raw mut (*limit).given, 1);
    }
    true
}

/// Fills in the key of a reject packet; returns 0 if the frame cannot hold one: it has the length of one,
/// so that a record lets no other byte pass.
#[inline(never)]
fn key<A: Family>(skb: &Skb, from_workload: u32, buffer: &mut RejectBuffer) -> u32 {
    let Some(head) = A::head(skb, A::quote(buffer)) else {
        return 0;
    };
    let is_reset = head.protocol == protocol::TCP;
    let payload = if is_reset { 20 } else { message_length::<A>() };
    if head.payload != payload || skb.len() != ETHERNET + A::HEADER + u32::from(payload) {
        return 0;
    }
    let key = &mut buffer.key;
    key.ifindex = skb.ifindex();
    key.from_workload = from_workload;
    u32::from(A::whole(skb, is_reset, &mut key.packet))
}
