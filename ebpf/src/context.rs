//! What stays the same while one packet is judged.

use ringfence_common::{endpoint::Endpoint, mode::Mode, mutant, packet::Frame};

use crate::{clock, maps, skb::Skb};

/// The packet's surroundings.
pub struct Context<'a> {
    pub endpoint: &'a Endpoint,
    pub ifindex: u32,
    pub ingress_ifindex: u32,
    pub length: u32,
    /// By the tick clock.
    pub now: u64,
    pub mode: Mode,
}

/// Stands for an interface that the kernel forgot.
const UNKNOWN_INTERFACE: u32 = u32::MAX;

impl<'a> Context<'a> {
    /// Takes in that the packet is a fragment. A node that tracks connections reassembles what it
    /// forwards and cuts it anew, and the new pieces of IPv6 do not tell the interface they came
    /// by: without one they are this host's own only if a socket of it owns them.
    #[inline(always)]
    pub fn note_fragment(&mut self, skb: &Skb) {
        if self.ingress_ifindex == 0 && !skb.has_socket() {
            self.ingress_ifindex = UNKNOWN_INTERFACE;
        }
    }

    #[inline(always)]
    pub fn new(skb: &Skb, ifindex: u32, endpoint: &'a Endpoint) -> Self {
        Self {
            endpoint,
            ifindex,
            ingress_ifindex: skb.ingress_ifindex(),
            length: skb.len(),
            now: clock::ticks(),
            mode: mutant!(
                mode_ignored,
                Mode::effective(
                    endpoint.mode_override,
                    maps::namespace_mode(endpoint.namespace),
                ),
                Mode::Enforce
            ),
        }
    }
}
