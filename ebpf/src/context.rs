//! What stays the same while one packet is judged.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use ringfence_common::{
    endpoint::Endpoint,
    ids::{IdentityId, RuleSlot},
    mode::{Action, Direction, Mode, Verdict},
    net::{Ip6, Port},
    packet::{Frame, Packet},
};

use crate::{family::Family, frame::Skb, maps};

/// The packet's surroundings.
pub struct Context<'a> {
    pub endpoint: &'a Endpoint,
    pub ifindex: u32,
    pub ingress_ifindex: u32,
    pub length: u32,
    pub now: u64,
    pub mode: Mode,
}

impl<'a> Context<'a> {
    #[inline(always)]
    pub fn new(skb: &Skb, ifindex: u32, endpoint: &'a Endpoint) -> Self {
        Self {
            endpoint,
            ifindex,
            ingress_ifindex: skb.ingress_ifindex(),
            length: skb.len(),
            // SAFETY: the helper takes no argument and reads a clock.
            now: unsafe { bpf_ktime_get_boot_ns() },
            mode: Mode::effective(
                endpoint.mode_override,
                maps::namespace_mode(endpoint.namespace),
            ),
        }
    }
}

/// What telemetry says of a packet; zeros where parsing did not get.
#[derive(Clone, Copy)]
pub struct Facts {
    pub local: Ip6,
    pub peer: Ip6,
    pub peer_identity: IdentityId,
    pub rule: RuleSlot,
    pub local_port: Port,
    pub peer_port: Port,
    pub service_port: Port,
    pub protocol: u8,
    pub family: u8,
    pub direction: Direction,
    pub verdict: Verdict,
    pub action: Action,
    pub reason: u8,
    pub tcp: u8,
    pub from_workload: bool,
}

impl Facts {
    /// Facts of a frame that could not be parsed.
    #[inline(always)]
    pub fn unparsed(from_workload: bool, family: u8) -> Self {
        Self {
            local: Ip6::UNSPECIFIED,
            peer: Ip6::UNSPECIFIED,
            peer_identity: IdentityId::UNKNOWN,
            rule: RuleSlot::NONE,
            local_port: Port::NONE,
            peer_port: Port::NONE,
            service_port: Port::NONE,
            protocol: 0,
            family,
            direction: if from_workload {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            verdict: Verdict::Deny,
            action: Action::Drop,
            reason: 0,
            tcp: 0,
            from_workload,
        }
    }

    /// Facts of a parsed packet, judged in its own direction so far.
    #[inline(always)]
    pub fn of<A: Family>(packet: &Packet<A>, from_workload: bool) -> Self {
        let mut facts = Self::unparsed(from_workload, A::VERSION);
        facts.protocol = packet.protocol;
        facts.tcp = packet.tcp.0;
        facts.service_port = packet.destination_port;
        if from_workload {
            facts.local = packet.source.widen();
            facts.peer = packet.destination.widen();
            facts.local_port = packet.source_port;
            facts.peer_port = packet.destination_port;
        } else {
            facts.local = packet.destination.widen();
            facts.peer = packet.source.widen();
            facts.local_port = packet.destination_port;
            facts.peer_port = packet.source_port;
        }
        facts
    }
}
