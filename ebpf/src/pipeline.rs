//! The packet pipeline: the steps for a frame at either hook, in order.
//!
//! Endpoint → EtherType → parse → source check → fragments → ICMP errors → conntrack and policy.
//! Invariants: every drop has a reason and a counter; in `observe` every packet passes; the node's
//! default mode applies to frames of an unknown endpoint.

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use ringfence_common::{
    drop_reason::DropReason,
    endpoint::{Endpoint, RecordSlot},
    event::FlowEvent,
    fragment::FragmentPorts,
    ids::{IdentityId, NamespaceSlot, TableId},
    mode::{Action, Mode, Verdict},
    net::{Address, Ip4, Ip6},
    packet::{Kind, Packet, TcpFlags, arp, ethertype},
    stats::Counter,
};

use crate::{
    conntrack::{decide, is_allowed},
    context::Context,
    current_packet::FlowPacket,
    dhcp, discovery,
    established::{Established, look_up},
    events,
    family::Family,
    maps,
    reject::{drop_or_reject, is_sent_reject, rejects_in_flight},
    skb::Skb,
};

/// An interface without an endpoint record: no policy, no addresses, the node's default mode.
static UNKNOWN_ENDPOINT: Endpoint = Endpoint {
    ip6: [Ip6::UNSPECIFIED; 2],
    ip4: [Ip4::UNSPECIFIED; 3],
    ifindex: 0,
    identity: IdentityId::UNKNOWN,
    table: TableId::NONE,
    pickup_until: 0,
    namespace: NamespaceSlot::NODE_DEFAULT.0 as u16,
    mode_override: 0,
    reserved: 0,
};

/// Set at load time: whether drops are logged for debugging. A constant of the loaded program, so
/// it costs nothing when it is off.
#[unsafe(no_mangle)]
static DEBUG: Global<u8> = Global::new(0);

#[inline(never)]
fn log_drop(ctx: &TcContext, from_workload: bool) -> u32 {
    let hook = if from_workload {
        "from_workload"
    } else {
        "to_workload"
    };
    debug!(ctx, "{}: dropped {} bytes", hook, ctx.len());
    0
}

/// Runs one frame through the pipeline.
#[inline(always)]
pub fn run<const FROM: bool>(ctx: &TcContext) -> i32 {
    let passes = match filter_frame::<FROM>(ctx) {
        Step::Pass => true,
        Step::Drop => false,
        Step::Track4 => decide::<Ip4>() == Action::Pass,
        Step::Track6 => decide::<Ip6>() == Action::Pass,
        Step::Discover => decide_discovery::<FROM>(ctx) == Action::Pass,
    };
    if passes {
        return TC_ACT_UNSPEC;
    }
    if DEBUG.load() != 0 {
        log_drop(ctx, FROM);
    }
    drop_or_reject(ctx.skb.skb, u32::from(FROM))
}

/// The context of a frame, also of an interface without an endpoint.
#[inline(always)]
fn context_of(skb: &Skb) -> Context<'static> {
    let ifindex = skb.ifindex();
    let unknown = (RecordSlot::default(), &UNKNOWN_ENDPOINT);
    let found = maps::endpoint(ifindex).unwrap_or(unknown);
    Context::new(skb, ifindex, found)
}

/// Denies a frame because the program that would decide about it cannot be called.
#[inline(always)]
pub fn deny_uncalled<const FROM: bool>(ctx: &TcContext) -> i32 {
    let context = context_of(&Skb::of(ctx));
    match deny_frame::<FROM>(&context, DropReason::NoProgram, 0) {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
    }
}

/// What follows the steps before conntrack.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Step {
    Pass,
    Drop,
    /// The current packet is one of a flow of IPv4,
    Track4,
    /// or of IPv6.
    Track6,
    /// The current packet is discovery.
    Discover,
}

impl From<Action> for Step {
    #[inline(always)]
    fn from(action: Action) -> Self {
        match action {
            Action::Pass => Self::Pass,
            Action::Drop => Self::Drop,
        }
    }
}

/// The steps before conntrack. A function of its own, so that its stack is free again for conntrack.
#[inline(never)]
fn filter_frame<const FROM: bool>(ctx: &TcContext) -> Step {
    let skb = Skb::of(ctx);
    let ifindex = skb.ifindex();
    let Some(found) = maps::endpoint(ifindex) else {
        let unknown = (RecordSlot::default(), &UNKNOWN_ENDPOINT);
        let context = Context::new(&skb, ifindex, unknown);
        return deny_frame::<FROM>(&context, DropReason::UnknownEndpoint, 0).into();
    };
    let mut context = Context::new(&skb, ifindex, found);
    if skb.has_vlan_tag() {
        return deny_frame::<FROM>(&context, DropReason::Vlan, 0).into();
    }
    match skb.ethertype() {
        ethertype::IPV4 => filter_ip::<Ip4, FROM>(&skb, &mut context).unwrap_or(Step::Track4),
        ethertype::IPV6 => filter_ip::<Ip6, FROM>(&skb, &mut context).unwrap_or(Step::Track6),
        other => filter_link::<FROM>(&skb, &context, other).into(),
    }
}

/// A frame that is not IP.
#[inline(always)]
fn filter_link<const FROM: bool>(skb: &Skb, context: &Context, ethertype: u16) -> Action {
    match ethertype {
        ethertype::ARP => {
            let checked = if FROM {
                arp::may_send(skb, context.endpoint)
            } else {
                arp::may_arrive(skb)
            };
            match checked.and_then(|()| discovery::admit::<FROM>(context)) {
                Ok(()) => Action::Pass,
                Err(reason) => deny_frame::<FROM>(context, reason, 0),
            }
        }
        ethertype::VLAN | ethertype::QINQ => deny_frame::<FROM>(context, DropReason::Vlan, 0),
        _ => deny_frame::<FROM>(context, DropReason::Ethertype, 0),
    }
}

#[inline(never)]
fn parse_quoted<A: Family>(skb: &Skb, at: u32, quoted: &mut Packet<A>) -> Result<(), DropReason> {
    A::parse_quoted(skb, at, quoted)
}

/// An IP packet; `None` if it belongs to a flow, which conntrack decides about.
#[inline(always)]
fn filter_ip<A: Family, const FROM: bool>(skb: &Skb, context: &mut Context) -> Option<Step> {
    let Some(current) = A::scratch_packet() else {
        let denied = deny_frame::<FROM>(context, DropReason::ConntrackFull, A::VERSION);
        return Some(denied.into());
    };
    current.packet = Packet::unknown();
    if let Err(reason) = A::parse(skb, &mut current.packet) {
        return Some(deny_frame::<FROM>(context, reason, A::VERSION).into());
    }
    let packet = &mut current.packet;
    if !FROM && matches!(packet.kind, Kind::FirstFragment | Kind::LaterFragment) {
        context.note_fragment(skb);
    }
    if let Err(reason) = check_source::<A, FROM>(context, packet) {
        return Some(deny_packet::<A, FROM>(context, packet, reason).into());
    }
    if packet.kind == Kind::Discovery {
        return Some(Step::Discover);
    }
    if FROM && A::is_request(packet) {
        dhcp::note::<A>(skb);
        return Some(match discovery::admit::<FROM>(context) {
            Ok(()) => Step::Pass,
            Err(reason) => deny_packet::<A, FROM>(context, packet, reason).into(),
        });
    }
    if (packet.kind == Kind::Error || packet.tcp.has(TcpFlags::RST))
        && rejects_in_flight(context.now)
        && is_sent_reject(skb.raw(), u32::from(FROM)) != 0
    {
        return Some(pass_stateless::<A, FROM>(context, packet).into());
    }
    if packet.kind == Kind::Error {
        let checked = check_icmp_error::<A, FROM>(skb, context, packet);
        return Some(match checked {
            Ok(()) => pass_stateless::<A, FROM>(context, packet).into(),
            Err(reason) => deny_packet::<A, FROM>(context, packet, reason).into(),
        });
    }
    if packet.kind != Kind::Flow
        && let Err(reason) = track_fragment::<A>(context, FROM, packet)
    {
        return Some(deny_packet::<A, FROM>(context, packet, reason).into());
    }
    let found = look_up::<A, FROM>(context, packet);
    if found == Established::Passes {
        return Some(Step::Pass);
    }
    if !FROM && A::may_answer(packet) && dhcp::is_answer::<A>(skb) {
        return Some(pass_stateless::<A, FROM>(context, packet).into());
    }
    current.keep(context, FROM, found != Established::None);
    None
}

/// From the workload: the source must be an own address, and no address of others may be announced.
/// To the workload: an own address as source is accepted only from the workload itself or from a
/// socket of this host.
#[inline(always)]
fn check_source<A: Family, const FROM: bool>(
    context: &Context,
    packet: &Packet<A>,
) -> Result<(), DropReason> {
    let endpoint = context.endpoint;
    if FROM {
        let own = A::is_own(packet, endpoint);
        if !own {
            return Err(DropReason::SpoofedSource);
        }
        return A::may_redirect(packet);
    }
    let came_from_elsewhere =
        context.ingress_ifindex != 0 && context.ingress_ifindex != context.ifindex;
    if came_from_elsewhere && packet.source.owned_by(endpoint) {
        return Err(DropReason::SpoofedSource);
    }
    Ok(())
}

/// A discovery message, whose source is allowed. A function of its own, for the stack that it needs.
#[inline(never)]
fn decide_discovery<const FROM: bool>(ctx: &TcContext) -> Action {
    let skb = Skb::of(ctx);
    let context = context_of(&skb);
    let Some(current) = maps::scratch_packet6() else {
        return deny_frame::<FROM>(&context, DropReason::ConntrackFull, Ip6::VERSION);
    };
    let checked = discovery::check::<FROM>(&skb);
    match checked.and_then(|()| discovery::admit::<FROM>(&context)) {
        Ok(()) => Action::Pass,
        Err(reason) => deny_packet::<Ip6, FROM>(&context, &current.packet, reason),
    }
}

/// Passes a packet that belongs to no flow of its own, except under lockdown.
#[inline(always)]
fn pass_stateless<A: Family, const FROM: bool>(context: &Context, packet: &Packet<A>) -> Action {
    if context.mode == Mode::Lockdown {
        return deny_packet::<A, FROM>(context, packet, DropReason::Lockdown);
    }
    Action::Pass
}

/// Records the ports of a first fragment, or sets the recorded ports on a later one.
#[inline(never)]
fn track_fragment<A: Family>(
    context: &Context,
    from_workload: bool,
    packet: &mut Packet<A>,
) -> Result<(), DropReason> {
    let key = A::fragment_key(context.ifindex, from_workload, packet);
    if packet.kind == Kind::FirstFragment {
        let mut ports = FragmentPorts {
            seen: context.now,
            source: packet.source_port,
            destination: packet.destination_port,
            protocol: packet.protocol,
            reserved: 0,
            headers: u16::try_from(packet.datagram_offset).unwrap_or(u16::MAX),
            seal: 0,
        };
        ports.seal = ports.seal_for(&key);
        return if A::fragment_store(&key, &ports) {
            Ok(())
        } else {
            Err(DropReason::FragmentTableFull)
        };
    }
    match A::fragment_find(&key) {
        Some(ports) if !ports.is_sealed_for(&key) => {
            // The memory was another record's by the time it was read.
            events::count(Counter::RecordsRecycled);
            Err(DropReason::OrphanFragment)
        }
        Some(ports) if ports.is_current(context.now) => {
            let overwrites = packet.datagram_offset < u32::from(ports.headers);
            if overwrites {
                return Err(DropReason::TinyFragment);
            }
            packet.source_port = ports.source;
            packet.destination_port = ports.destination;
            packet.protocol = ports.protocol;
            Ok(())
        }
        _ => Err(DropReason::OrphanFragment),
    }
}

/// An ICMP error passes if the quoted packet belongs to a live flow that policy allows now.
#[inline(never)]
fn check_icmp_error<A: Family, const FROM: bool>(
    skb: &Skb,
    context: &Context,
    packet: &Packet<A>,
) -> Result<(), DropReason> {
    let mut quoted = Packet::unknown();
    parse_quoted::<A>(skb, packet.transport + 8, &mut quoted)?;
    // Padding after the IP packet is not part of the error.
    if quoted.transport + 8 > packet.end {
        return Err(DropReason::IcmpErrorUnmatched);
    }
    // The error goes to the sender of the quoted packet: to the peer if the workload sent the
    // error, to the workload if the error arrives.
    let ours = if FROM {
        quoted.destination
    } else {
        quoted.source
    };
    let flow = FlowPacket {
        packet: &quoted,
        from_workload: !FROM,
    };
    if quoted.source == packet.destination
        && ours.owned_by(context.endpoint)
        && is_allowed(context, &flow)
    {
        return Ok(());
    }
    Err(DropReason::IcmpErrorUnmatched)
}

#[inline(always)]
fn deny_frame<const FROM: bool>(context: &Context, reason: DropReason, family: u8) -> Action {
    deny_reported(context, events::new_event(context, FROM, family), reason)
}

#[inline(always)]
fn deny_packet<A: Family, const FROM: bool>(
    context: &Context,
    packet: &Packet<A>,
    reason: DropReason,
) -> Action {
    report_denied_packet::<A, FROM>(context, packet, reason);
    Action::of(Verdict::Deny, context.mode)
}

#[inline(never)]
fn report_denied_packet<A: Family, const FROM: bool>(
    context: &Context,
    packet: &Packet<A>,
    reason: DropReason,
) -> u32 {
    let mut event = events::new_event(context, FROM, A::VERSION);
    if let Some(event) = &mut event {
        events::set_packet(event, packet);
    }
    deny_reported(context, event, reason) as u32
}

/// Denies a packet for a reason other than policy. In `observe` it is only reported.
#[inline(always)]
fn deny_reported(
    context: &Context,
    event: Option<&'static mut FlowEvent>,
    reason: DropReason,
) -> Action {
    let action = Action::of(Verdict::Deny, context.mode);
    let Some(event) = event else {
        events::count_unreported(reason, action);
        return action;
    };
    event.reason = reason as u8;
    event.action = action as u8;
    events::report_denied(context, event);
    action
}
