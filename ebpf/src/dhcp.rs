//! DHCP: requests of workloads are noted, and their answers pass.
//!
//! Invariant: nothing passes here in lockdown; requests are charged like discovery. What a request
//! and its answer are is decided in [`ringfence_common::packet::dhcp`].

use aya_ebpf::bindings::__sk_buff;
use ringfence_common::{
    ids::EndpointNumber,
    net::{Ip4, Ip6},
    packet::dhcp::{Dhcp as _, DhcpRequest},
};

use crate::{clock, family::Family, maps, skb::Skb};

/// Notes this CPU's packet, which is a request by its addresses and ports.
#[inline(always)]
pub fn note<A: Family>(skb: &Skb) {
    if A::V6 {
        note6(skb.raw());
    } else {
        note4(skb.raw());
    }
}

/// Whether this CPU's packet, which may be an answer by its ports, is one.
#[inline(always)]
pub fn is_answer<A: Family>(skb: &Skb) -> bool {
    if A::V6 {
        is_answer6(skb.raw()) != 0
    } else {
        is_answer4(skb.raw()) != 0
    }
}

/// Where the endpoint's last request is, and a copy. Other CPUs may write it at the same time: then it
/// has no answer.
#[inline(always)]
fn request(number: EndpointNumber) -> Option<(*mut DhcpRequest, DhcpRequest)> {
    let place = maps::DHCP_REQUESTS.get_ptr_mut(number.0)?;
    // SAFETY: the value of an array is mapped for the run of the program, and any bytes are a request.
    Some((place, unsafe { place.read_volatile() }))
}

macro_rules! family_functions {
    ($family:ty, $packet:ident, $note:ident, $is_answer:ident) => {
        /// Exported (global), so that the verifier checks it once.
        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $note(raw: *mut __sk_buff) -> u32 {
            let skb = Skb::at(raw);
            let (Some(current), Some((slot, _))) = (maps::$packet(), maps::endpoint(skb.ifindex()))
            else {
                return 0;
            };
            let Some((place, mut request)) = request(slot.number()) else {
                return 0;
            };
            <$family>::note(&skb, &current.packet, clock::ticks(), &mut request);
            // SAFETY: as in `request`.
            unsafe { place.write_volatile(request) };
            1
        }

        /// Exported (global), so that the verifier checks it once.
        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $is_answer(raw: *mut __sk_buff) -> u32 {
            let skb = Skb::at(raw);
            let (Some(current), Some((slot, endpoint))) =
                (maps::$packet(), maps::endpoint(skb.ifindex()))
            else {
                return 0;
            };
            let Some((_, request)) = request(slot.number()) else {
                return 0;
            };
            let (packet, now) = (&current.packet, clock::ticks());
            u32::from(<$family>::answers(&skb, packet, endpoint, &request, now))
        }
    };
}

family_functions!(Ip4, scratch_packet4, note4, is_answer4);
family_functions!(Ip6, scratch_packet6, note6, is_answer6);
