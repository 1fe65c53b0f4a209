//! Frames of one packet each, whose source port can be changed in place.

use std::net::IpAddr;

use anyhow::Result;

use crate::frame::{IPV4, IPV6, ethernet, ipv4, ipv6, udp};

/// TCP flags.
pub(crate) const FIN: u8 = 0x01;
/// TCP flags.
pub(crate) const SYN: u8 = 0x02;
/// TCP flags.
pub(crate) const RST: u8 = 0x04;
/// TCP flags.
pub(crate) const ACK: u8 = 0x10;

const TCP: u8 = 6;

/// An address and a port.
pub(crate) type End = (IpAddr, u16);

/// The protocol of a frame; TCP with the flags of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp(u8),
    Udp,
}

/// Next header value of destination options.
const OPTIONS: u8 = 60;
/// The longest chain of extension headers that the programs follow.
pub(crate) const CHAIN: usize = 8;

/// A packet between two ends of one family, in an Ethernet frame.
pub(crate) fn frame(from: End, to: End, transport: Transport) -> Result<Vec<u8>> {
    let packet = match transport {
        Transport::Udp => udp(from, to, b"race")?,
        Transport::Tcp(flags) => {
            let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
            // Sequence and acknowledgement numbers, header length, window, checksum, urgent
            // pointer. The programs do not check the checksum.
            let rest = [0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 255, 255, 0, 0, 0, 0];
            let segment = [&ports[..], &rest].concat();
            match (from.0, to.0) {
                (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, TCP, &segment),
                (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, TCP, &segment),
                _ => anyhow::bail!("{} and {} are of two families", from.0, to.0),
            }
        }
    };
    let ethertype = if from.0.is_ipv6() { IPV6 } else { IPV4 };
    let to = [2, 0, 0, 0, 0, 1];
    Ok(ethernet(to, [2, 0, 0, 0, 0, 2], ethertype, &packet))
}

/// Where the transport header of a frame from [`frame`] begins.
pub(crate) const fn transport_at(v6: bool) -> usize {
    if v6 { 14 + 40 } else { 14 + 20 }
}

/// Puts a chain of extension headers before the transport header of an IPv6 packet: the program
/// takes longer for such a packet.
pub(crate) fn lengthen(frame: &mut Vec<u8>) {
    let length = CHAIN * 8;
    let next = frame.get(20).copied().unwrap_or(0);
    let mut chain = [OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(CHAIN);
    if let Some(last) = chain.get_mut(length - 8) {
        *last = next;
    }
    let at = transport_at(true);
    frame.splice(at..at, chain);
    if let [_, _, _, _, high, low, next, ..] = frame.get_mut(14..).unwrap_or_default() {
        let payload = usize::from(u16::from_be_bytes([*high, *low])) + length;
        [*high, *low] = u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes();
        *next = OPTIONS;
    }
}

/// Changes the source port of a packet whose transport header is at an offset.
pub(crate) fn set_source_port(frame: &mut [u8], at: usize, port: u16) {
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&port.to_be_bytes());
    }
}
