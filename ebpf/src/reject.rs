//! Telling the sender of a rejected packet, and knowing that answer again at the other hook.
//!
//! The packet becomes its own answer and leaves by the interface it came by. Invariants: an answer
//! passes the fence by its record alone, once; what cannot be answered is dropped in silence;
//! endpoints cannot be made to send more than their limit.
//!
//! Both entry points are exported and read the packet for themselves, so that the verifier walks
//! them once and not for every way that leads here.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use ringfence_common::{
    mode::Mode,
    mutant,
    net::{Ip4, Ip6},
    packet::{
        ETHERNET, Frame, ethertype, protocol,
        reject::{
            Checksum, Reject, TcpHeader, may_be_reset, may_reject, message_length, reset,
            unreachable,
        },
    },
    reject::{REJECT_LIFETIME, RejectKey, RejectLimit},
    stats::Counter,
};

use crate::{
    clock, events,
    family::Family,
    maps::{ENDPOINTS, LAST_REJECT, REJECT_LIMITS, REJECTS, namespace_mode, reject_buffer},
    skb::Skb,
};

/// Where this CPU builds an answer.
pub struct RejectBuffer {
    pub quote4: <Ip4 as Reject>::Quote,
    pub quote6: <Ip6 as Reject>::Quote,
    to: [u8; 6],
    from: [u8; 6],
    tcp: TcpHeader,
    key: RejectKey,
}

/// Ends a packet that is dropped: makes it the answer to itself and sends it back, if it was
/// rejected and can be answered. Returns the program's return value.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn drop_or_reject(raw: *mut __sk_buff, from_workload: u32) -> i32 {
    let skb = Skb::at(raw);
    let from_workload = from_workload != 0;
    if !events::is_rejected()
        || !mutant!(lockdown_answers, mode(skb.ifindex()).sends_rejects(), true)
    {
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

/// Whether any answer may be on its way from one hook to the other: of most resets and ICMP errors
/// nothing further need be asked.
#[inline(always)]
pub fn rejects_in_flight(now: u64) -> bool {
    LAST_REJECT
        .get(0)
        .is_some_and(|sent| now.saturating_sub(*sent) < REJECT_LIFETIME)
}

/// Whether a packet is an answer that [`drop_or_reject`] sent; 1 if so, and never again for the same
/// one.
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
    // SAFETY: copied at once; a recycled record costs an answer, or lets one pass late.
    let Some(sent) = unsafe { REJECTS.get(key) }.copied() else {
        return mutant!(answer_without_record, 0, 1);
    };
    // Who removes it has it: two packets cannot pass by one record.
    let taken = mutant!(answer_passes_twice, REJECTS.remove(key).is_ok(), true);
    u32::from(taken && clock::ticks().saturating_sub(sent) < REJECT_LIFETIME)
}

#[inline(always)]
fn mode(ifindex: u32) -> Mode {
    // SAFETY: ENDPOINTS is not preallocated, so the value outlives this program's run (RCU).
    unsafe { ENDPOINTS.get(ifindex) }.map_or(Mode::Lockdown, |endpoint| {
        Mode::effective(endpoint.mode_override, namespace_mode(endpoint.namespace))
    })
}

/// Writes the answer over the packet, and its record. Returns the counter of what came of it.
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
        // Where its checksum would go is known of TCP and UDP only.
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
    // It shows at the other hook.
    if key::<A>(skb, u32::from(!from_workload), buffer) == 0 {
        return Err(failed);
    }
    let (key, now) = (&buffer.key, clock::ticks());
    LAST_REJECT
        .set(0, now, 0)
        .and_then(|()| REJECTS.insert(key, now, 0))
        .map_err(|_| failed)
}

/// Takes one of the endpoint's answers. Inexact if several CPUs reject for one endpoint at the same
/// moment, by as many answers as there are CPUs.
#[inline(always)]
fn within_limit(ifindex: u32) -> bool {
    if let Some(limit) = REJECT_LIMITS.get_ptr_mut(ifindex) {
        // SAFETY: an LRU value stays mapped memory for the run; a concurrent writer or a recycled
        // slot costs an inexact count.
        return unsafe { &mut *limit }.take(clock::ticks());
    }
    let mut limit = RejectLimit::default();
    limit.take(clock::ticks()) && REJECT_LIMITS.insert(ifindex, limit, 0).is_ok()
}

/// Writes down what an answer is known by; 0 if the packet cannot be one.
#[inline(never)]
fn key<A: Family>(skb: &Skb, from_workload: u32, buffer: &mut RejectBuffer) -> u32 {
    let Some(head) = A::head(skb, A::quote(buffer)) else {
        return 0;
    };
    let key = &mut buffer.key;
    key.source = head.source.widen();
    key.destination = head.destination.widen();
    key.ifindex = skb.ifindex();
    key.payload = head.payload;
    key.protocol = head.protocol;
    key.from_workload = from_workload as u8;
    key.version = A::VERSION;
    key.reserved = [0; 3];
    u32::from(skb.load(ETHERNET + A::HEADER, &mut key.head))
}
