//! Facts that stay constant while one packet is processed.

use ringfence_common::{
    endpoint::{Endpoint, RecordSlot},
    ids::EndpointNumber,
    mode::Mode,
    packet::Frame,
};

use crate::{clock, maps, skb::Skb};

/// Endpoint, interfaces, clock and mode of one packet.
pub struct Context<'a> {
    pub endpoint: &'a Endpoint,
    /// The endpoint's record.
    pub slot: RecordSlot,
    pub number: EndpointNumber,
    pub ifindex: u32,
    pub ingress_ifindex: u32,
    pub length: u32,
    /// Tick-clock time.
    pub now: u64,
    pub mode: Mode,
}

/// Stands for an ingress interface that the kernel did not preserve.
const UNKNOWN_INTERFACE: u32 = u32::MAX;

impl<'a> Context<'a> {
    /// Corrects `ingress_ifindex` for a fragment. nf_defrag reassembles forwarded packets and the
    /// node fragments them again; the new IPv6 fragments have no ingress interface. Without one, a
    /// fragment is the host's own only if a socket of this host owns it.
    #[inline(always)]
    pub fn note_fragment(&mut self, skb: &Skb) {
        if self.ingress_ifindex == 0 && !skb.has_socket() {
            self.ingress_ifindex = UNKNOWN_INTERFACE;
        }
    }

    #[inline(always)]
    pub fn new(skb: &Skb, ifindex: u32, (slot, endpoint): (RecordSlot, &'a Endpoint)) -> Self {
        Self {
            endpoint,
            slot,
            number: slot.number(),
            ifindex,
            ingress_ifindex: skb.ingress_ifindex(),
            length: skb.len(),
            now: clock::ticks(),
            mode: Mode::effective(
                endpoint.mode_override,
                maps::namespace_mode(endpoint.namespace()),
            ),
        }
    }
}
