//! Transport headers: ports, flags, ICMP types.
//!
//! Invariants: a header must lie wholly inside the packet (and, fragmented, inside the first
//! fragment); ICMP errors and neighbour discovery never come in fragments (RFC 6980).

use super::{ETHERNET, Frame, Kind, Packet, TcpFlags, be16, protocol};
use crate::{
    drop_reason::DropReason,
    net::{Address, Port},
};

/// ICMP for IPv4 types (RFC 792, RFC 950).
pub(super) mod icmp4 {
    pub(crate) const ECHO_REPLY: u8 = 0;
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const SOURCE_QUENCH: u8 = 4;
    pub(crate) const REDIRECT: u8 = 5;
    pub(crate) const ECHO: u8 = 8;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER_PROBLEM: u8 = 12;
    pub(crate) const TIMESTAMP_REPLY: u8 = 14;
    pub(crate) const INFORMATION_REPLY: u8 = 16;
    pub(crate) const MASK_REPLY: u8 = 18;
}

/// ICMP for IPv6 types (RFC 4443, 4861, 2710, 3810, 4620).
pub(super) mod icmp6 {
    pub(crate) const FIRST_INFORMATIONAL: u8 = 128;
    pub(crate) const ECHO: u8 = 128;
    pub(crate) const ECHO_REPLY: u8 = 129;
    pub(crate) const LISTENER_QUERY: u8 = 130;
    pub(crate) const LISTENER_DONE: u8 = 132;
    pub(crate) const ROUTER_SOLICITATION: u8 = 133;
    pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(crate) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub(crate) const REDIRECT: u8 = 137;
    pub(crate) const NODE_INFORMATION_REPLY: u8 = 140;
    pub(crate) const LISTENER_REPORT_V2: u8 = 143;
}

/// Sets ports, flags and kind from the header at `packet.transport`.
#[inline(always)]
pub(super) fn parse<F: Frame, A: Address>(
    frame: &F,
    packet: &mut Packet<A>,
) -> Result<(), DropReason> {
    let room = packet.end - packet.transport;
    let short = |whole: DropReason| {
        if packet.kind == Kind::FirstFragment {
            DropReason::TinyFragment
        } else {
            whole
        }
    };
    match packet.protocol {
        protocol::TCP => {
            if room < 20 {
                return Err(short(DropReason::TcpHeader));
            }
            let mut h = [0u8; 14];
            load(frame, packet, &mut h)?;
            let header = u32::from(h[12] >> 4) * 4;
            if header < 20 {
                return Err(DropReason::TcpHeader);
            }
            if header > room {
                return Err(short(DropReason::TcpHeader));
            }
            packet.tcp = TcpFlags(h[13]);
            if !packet.tcp.are_sane() {
                return Err(DropReason::TcpFlags);
            }
            packet.datagram_offset += header;
            set_ports(packet, [h[0], h[1], h[2], h[3]]);
        }
        protocol::UDP => {
            if room < 8 {
                return Err(short(DropReason::UdpHeader));
            }
            let mut h = [0u8; 8];
            load(frame, packet, &mut h)?;
            let length = u32::from(be16(h[4], h[5]));
            if length < 8 || packet.kind == Kind::Flow && length > room && !frame.is_gso() {
                return Err(DropReason::UdpHeader);
            }
            packet.datagram_offset += 8;
            set_ports(packet, [h[0], h[1], h[2], h[3]]);
        }
        protocol::SCTP => {
            if room < 12 {
                return Err(short(DropReason::Truncated));
            }
            let mut h = [0u8; 4];
            load(frame, packet, &mut h)?;
            packet.datagram_offset += 12;
            set_ports(packet, h);
        }
        protocol::ICMP if !A::V6 => parse_icmp(frame, packet)?,
        protocol::ICMPV6 if A::V6 => parse_icmp(frame, packet)?,
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn parse_icmp<F: Frame, A: Address>(frame: &F, packet: &mut Packet<A>) -> Result<(), DropReason> {
    if packet.end - packet.transport < 8 {
        return Err(if packet.kind == Kind::FirstFragment {
            DropReason::TinyFragment
        } else {
            DropReason::Truncated
        });
    }
    let mut h = [0u8; 8];
    load(frame, packet, &mut h)?;
    packet.icmp_type = h[0];
    packet.datagram_offset += 8;
    let whole = packet.kind == Kind::Flow;
    if is_error::<A>(h[0]) {
        packet.kind = Kind::Error;
        return if whole {
            Ok(())
        } else {
            Err(DropReason::IcmpErrorUnmatched)
        };
    }
    if A::V6
        && matches!(
            h[0],
            icmp6::LISTENER_QUERY..=icmp6::LISTENER_DONE
                | icmp6::ROUTER_SOLICITATION..=icmp6::REDIRECT
                | icmp6::LISTENER_REPORT_V2
        )
    {
        packet.kind = Kind::Discovery;
        return if whole {
            Ok(())
        } else {
            Err(DropReason::NeighbourSpoof)
        };
    }
    set_echo(packet, [h[4], h[5]]);
    Ok(())
}

/// Sets the ports of the quoted packet at `packet.transport`; an error quotes at least eight bytes
/// of it (RFC 792; RFC 4443 §2.4).
#[inline(always)]
pub(super) fn parse_quoted<F: Frame, A: Address>(
    frame: &F,
    packet: &mut Packet<A>,
) -> Result<(), DropReason> {
    let mut h = [0u8; 8];
    if !frame.load(packet.transport, &mut h) {
        return Err(DropReason::IcmpErrorUnmatched);
    }
    match packet.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            set_ports(packet, [h[0], h[1], h[2], h[3]]);
        }
        // ICMP of the other family is a raw protocol whose flows have no ports.
        protocol::ICMP | protocol::ICMPV6 if (packet.protocol == protocol::ICMPV6) == A::V6 => {
            packet.icmp_type = h[0];
            if is_error::<A>(h[0]) {
                return Err(DropReason::IcmpErrorUnmatched);
            }
            set_echo(packet, [h[4], h[5]]);
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
pub(super) const fn is_error<A: Address>(icmp_type: u8) -> bool {
    if A::V6 {
        icmp_type < icmp6::FIRST_INFORMATIONAL
    } else {
        matches!(
            icmp_type,
            icmp4::UNREACHABLE
                | icmp4::SOURCE_QUENCH
                | icmp4::REDIRECT
                | icmp4::TIME_EXCEEDED
                | icmp4::PARAMETER_PROBLEM
        )
    }
}

#[inline(always)]
fn set_ports<A>(packet: &mut Packet<A>, h: [u8; 4]) {
    packet.source_port = Port::from_wire([h[0], h[1]]);
    packet.destination_port = Port::from_wire([h[2], h[3]]);
}

#[inline(always)]
fn set_echo<A: Address>(packet: &mut Packet<A>, id: [u8; 2]) {
    let (echo, reply) = if A::V6 {
        (icmp6::ECHO, icmp6::ECHO_REPLY)
    } else {
        (icmp4::ECHO, icmp4::ECHO_REPLY)
    };
    let id = match Port::from_wire(id) {
        Port::NONE => Port::new(u16::MAX),
        id => id,
    };
    if packet.icmp_type == echo {
        packet.source_port = id;
    } else if packet.icmp_type == reply {
        packet.destination_port = id;
    } else {
        set_other_query(packet);
    }
}

/// Each type of query other than echo is a flow of its own, to which only its response belongs: a
/// response has the type that follows its query's (RFC 792, RFC 950, RFC 4620). To a type without a
/// response no reverse packet belongs.
#[inline(always)]
fn set_other_query<A: Address>(packet: &mut Packet<A>) {
    let is_response = if A::V6 {
        packet.icmp_type == icmp6::NODE_INFORMATION_REPLY
    } else {
        matches!(
            packet.icmp_type,
            icmp4::TIMESTAMP_REPLY | icmp4::INFORMATION_REPLY | icmp4::MASK_REPLY
        )
    };
    // No echo has two ports, and no two of these are equal.
    let kind = u16::from(packet.icmp_type);
    if is_response {
        packet.source_port = Port::new(u16::MAX);
        packet.destination_port = Port::new(kind);
    } else {
        packet.source_port = Port::new(kind + 1);
        packet.destination_port = Port::new(u16::MAX);
    }
}

#[inline(always)]
fn load<F: Frame, A: Address, const N: usize>(
    frame: &F,
    packet: &Packet<A>,
    into: &mut [u8; N],
) -> Result<(), DropReason> {
    const AFTER_IPV4: u32 = ETHERNET + 20;
    const AFTER_IPV6: u32 = ETHERNET + 40;
    let loaded = match (A::V6, packet.transport) {
        (false, AFTER_IPV4) => frame.peek::<N, AFTER_IPV4>(into),
        (true, AFTER_IPV6) => frame.peek::<N, AFTER_IPV6>(into),
        (_, elsewhere) => frame.load(elsewhere, into),
    };
    if loaded {
        Ok(())
    } else {
        Err(DropReason::Truncated)
    }
}
