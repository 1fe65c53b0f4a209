//! The packet that this CPU is processing, in per-CPU scratch space.
//!
//! Packets are parsed there rather than on the stack, for two reasons: the functions that track a
//! flow are global ones, which take scalars only and which the verifier checks once, not for every
//! way in which a packet can be parsed; and the stack has 512 bytes. Invariant: programs do not
//! nest, so the content is the same from parsing to the verdict.

use ringfence_common::{
    conntrack::{CtEntry, flags, opens, shows_originator},
    drop_reason::DropReason,
    endpoint::RecordSlot,
    ids::RuleSlot,
    mode::{Action, Direction, Mode, Verdict},
    packet::{Packet, protocol},
};

use crate::{context::Context, events, family::Family, maps};

/// A parsed packet, with what [`Context`] knows about it.
#[repr(C)]
pub struct CurrentPacket<A> {
    pub packet: Packet<A>,
    now: u64,
    slot: RecordSlot,
    ifindex: u32,
    ingress_ifindex: u32,
    length: u32,
    mode: u32,
    from_workload: u32,
    may_be_assured: u32,
}

impl<A: Family> CurrentPacket<A> {
    /// Keeps what later functions need in addition to the packet.
    #[inline(always)]
    pub fn keep(&mut self, context: &Context, from_workload: bool, may_be_assured: bool) {
        self.now = context.now;
        self.slot = context.slot;
        self.ifindex = context.ifindex;
        self.ingress_ifindex = context.ingress_ifindex;
        self.length = context.length;
        self.mode = context.mode as u32;
        self.from_workload = u32::from(from_workload);
        self.may_be_assured = u32::from(may_be_assured);
    }

    /// Whether the assured map had an entry of its flow.
    #[inline(always)]
    pub fn may_be_assured(&self) -> bool {
        self.may_be_assured != 0
    }

    /// The context and the packet with its direction.
    #[inline(always)]
    pub fn parts(&self) -> Option<(Context<'static>, FlowPacket<'_, A>)> {
        // The record is the one that the pipeline found: it does not change while the program runs.
        let endpoint = maps::endpoint_record(self.slot)?;
        let context = Context {
            endpoint,
            slot: self.slot,
            number: self.slot.number(),
            ifindex: self.ifindex,
            ingress_ifindex: self.ingress_ifindex,
            length: self.length,
            now: self.now,
            mode: Mode::from_raw(self.mode as u8),
        };
        let flow = FlowPacket {
            packet: &self.packet,
            from_workload: self.from_workload != 0,
        };
        Some((context, flow))
    }
}

/// Action when scratch space is missing, which does not happen.
#[inline(always)]
pub fn drop_without_packet() -> u32 {
    events::count_unreported(DropReason::ConntrackFull, Action::Drop);
    Action::Drop as u32
}

/// A packet with its direction relative to the workload.
pub struct FlowPacket<'a, A> {
    pub packet: &'a Packet<A>,
    pub from_workload: bool,
}

impl<A: Family> FlowPacket<'_, A> {
    /// The peer's address: the end that is not the workload.
    #[inline(always)]
    pub fn peer(&self) -> A {
        if self.from_workload {
            self.packet.destination
        } else {
            self.packet.source
        }
    }

    #[inline(always)]
    pub fn key(&self, ifindex: u32) -> A::CtKey {
        let packet = self.packet;
        let source = (packet.source, packet.source_port);
        let destination = (packet.destination, packet.destination_port);
        let (local, peer) = if self.from_workload {
            (source, destination)
        } else {
            (destination, source)
        };
        A::ct_key(ifindex, packet.protocol, local, peer)
    }

    #[inline(always)]
    pub fn direction(&self) -> Direction {
        if self.from_workload {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    #[inline(always)]
    pub fn is_reply_of(&self, entry: &CtEntry) -> bool {
        (entry.flags & flags::FROM_WORKLOAD != 0) != self.from_workload
    }

    /// Whether a socket of the host sent it.
    #[inline(always)]
    pub fn is_from_host(&self, context: &Context) -> bool {
        !self.from_workload && context.ingress_ifindex == 0
    }

    /// Whether it arrives from the workload itself: from an own address, or, because the node translated
    /// what the workload sent to its own Service, from an address of the node.
    #[inline(always)]
    pub fn is_from_itself(&self, context: &Context) -> bool {
        !self.from_workload
            && (self.packet.source.owned_by(context.endpoint)
                || (self.came_back(context) && self.packet.source.identity().is_node()))
    }

    /// Whether it arrives from a sender that needs no rule: a socket of the host, or the workload itself.
    #[inline(always)]
    pub fn needs_no_rule(&self, context: &Context) -> bool {
        self.is_from_host(context) || self.is_from_itself(context)
    }

    /// Whether the workload sends it to an address that a peer has by translation. It extends nothing: only
    /// what arrives shows that the node translates now. The node may drop it before nf_conntrack sees it
    /// (a bad checksum, another hardware address). TCP needs no such care ([`Timeout::while_translated`]).
    ///
    /// [`Timeout::while_translated`]: ringfence_common::conntrack::Timeout::while_translated
    #[inline(always)]
    pub fn may_miss_translation(&self, entry: &CtEntry) -> bool {
        self.from_workload
            && entry.flags & flags::TRANSLATED != 0
            && self.packet.protocol != protocol::TCP
    }

    /// Whether the workload sent this packet that arrives, whatever its source is now.
    #[inline(always)]
    pub fn came_back(&self, context: &Context) -> bool {
        !self.from_workload && context.ingress_ifindex == context.ifindex
    }

    /// Whether it is a packet of the recorded originator, which policy allowed before, of a protocol whose
    /// packets do not show who opened the flow.
    #[inline(always)]
    pub fn is_lasting_originator(&self, entry: &CtEntry) -> bool {
        entry.flags & flags::WAS_ALLOWED != 0
            && !self.is_reply_of(entry)
            && !shows_originator(self.packet.protocol)
    }

    /// Whether it opens a flow where the entry is that of another sender with its address. Sockets of the
    /// host, and what the workload sends to itself, are always allowed.
    #[inline(always)]
    pub fn opens_over(&self, context: &Context, entry: &CtEntry) -> bool {
        let is_another = if self.is_from_host(context) {
            entry.flags & flags::HOST_INGRESS == 0
        } else {
            self.came_back(context)
                && entry.flags & flags::TRANSLATED != 0
                && entry.rule() != RuleSlot::OWN_ADDRESS
        };
        is_another
            && !self.is_reply_of(entry)
            && (!shows_originator(self.packet.protocol)
                || opens(self.packet.protocol, self.packet.tcp))
    }

    /// Whether the packet is no reply, because policy denies the recorded originator, but may be allowed
    /// by itself.
    #[inline(always)]
    pub fn is_reversed(&self, entry: &CtEntry) -> bool {
        entry.verdict() == Verdict::Deny
            && self.is_reply_of(entry)
            && !shows_originator(self.packet.protocol)
    }
}
