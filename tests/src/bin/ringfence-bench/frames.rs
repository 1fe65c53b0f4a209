//! The frames that the programs are run on.

use std::net::IpAddr;

use anyhow::{Result, bail};
use ringfence_testbed::frame::{self, IPV4, IPV6};

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

const TCP: u8 = 6;

/// A TCP segment in an Ethernet frame. Both addresses must be of one family.
pub(crate) fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Result<Vec<u8>> {
    let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let offset = 5 << 4;
    segment.extend([
        0, 0, 0, 1, 0, 0, 0, 1, offset, flags, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    Ok(match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet(IPV4, &frame::ipv4(from, to, TCP, &segment)),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet(IPV6, &frame::ipv6(from, to, TCP, &segment)),
        _ => bail!("addresses of two families"),
    })
}

/// The frame with an invalid first byte of its IP header.
pub(crate) fn malformed(mut frame: Vec<u8>) -> Vec<u8> {
    // For IPv4: a header length of four words. For IPv6: version 4.
    if let Some(first) = frame.get_mut(14) {
        *first = 0x44;
    }
    frame
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    frame::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], ethertype, packet)
}
