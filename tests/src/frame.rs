//! Raw frames: sending them from a namespace's interface, observing their arrival, and building
//! the few shapes that tests need.
//!
//! [`Tap`] sees the frames that the interface *received* and that passed its TC ingress hook, never
//! those that the namespace sent itself. The kernel strips a VLAN tag before a tap sees the frame.
//! The builders make well-formed packets; a test that needs a malformed one edits the bytes.

#![allow(
    unsafe_code,
    reason = "no safe wrapper builds a sockaddr_ll or knows the options of packet sockets"
)]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::netns::NetNs;

/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Protocol number of UDP.
const UDP: u8 = 17;

/// Sends one frame out of an interface of `ns`.
pub fn inject(ns: &NetNs, interface: &str, frame: &[u8]) -> Result<()> {
    let sent = ns.run(|| (&packet_socket(interface, 0)?).write(frame))?;
    let sent = sent.with_context(|| format!("injecting a frame on {interface}"))?;
    ensure!(
        sent == frame.len(),
        "{sent} of {} bytes injected",
        frame.len()
    );
    Ok(())
}

/// The hardware address of an interface of `ns`.
pub fn mac(ns: &NetNs, interface: &str) -> Result<[u8; 6]> {
    let address = ns.run(|| -> nix::Result<_> {
        Ok(nix::ifaddrs::getifaddrs()?
            .filter(|found| found.interface_name == interface)
            .find_map(|found| found.address?.as_link_addr()?.addr()))
    })??;
    address.with_context(|| format!("no hardware address of {interface}"))
}

/// Receives what an interface receives, from the moment the tap is opened.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    /// Listens on an interface of `ns`.
    pub fn open(ns: &NetNs, interface: &str) -> Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL)?;
        let socket = ns.run(|| packet_socket(interface, all))?;
        let socket = socket.with_context(|| format!("tapping {interface}"))?;
        Ok(Self { socket })
    }

    /// The next frame, or `None` if none arrives before the deadline.
    pub fn next(&self, deadline: Duration) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + deadline;
        let mut buffer = vec![0; 65_536];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("reading a tap"),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let fd = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN);
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
            poll(&mut [fd], timeout).context("polling a tap")?;
        }
    }

    /// The first frame that `wanted` accepts, or `None` if none arrives before the deadline.
    pub fn find(
        &self,
        deadline: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + deadline;
        while let Some(frame) = self.next(end.saturating_duration_since(Instant::now()))? {
            if wanted(&frame) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Whether a frame that holds these bytes (say, a nonce) arrives before the deadline.
    pub fn saw(&self, bytes: &[u8], deadline: Duration) -> Result<bool> {
        let holds = |frame: &[u8]| frame.windows(bytes.len()).any(|window| window == bytes);
        Ok(self.find(deadline, holds)?.is_some())
    }
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to, &from, ethertype.to_be_bytes().as_slice(), payload].concat()
}

/// An IPv4 packet without options or fragmentation.
#[must_use]
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = wire_length(20 + payload.len()).to_be_bytes();
    let start = [&[0x45, 0], length.as_slice(), &[0, 1, 0, 0, 64, protocol]].concat();
    let addresses = [from.octets(), to.octets()].concat();
    let sum = checksum(&[&start, &addresses]).to_be_bytes();
    [&start, sum.as_slice(), &addresses, payload].concat()
}

/// An IPv6 packet; `next` is the next header value for the first header in `payload`.
#[must_use]
pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = wire_length(payload.len()).to_be_bytes();
    let start = [&[0x60, 0, 0, 0], length.as_slice(), &[next, 64]].concat();
    [&start, from.octets().as_slice(), &to.octets(), payload].concat()
}

/// A UDP datagram in an IP packet. Both addresses must be of the same family.
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Result<Vec<u8>> {
    let length = wire_length(8 + payload.len()).to_be_bytes();
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let segment = |addresses: &[u8]| {
        let sum = checksum(&[addresses, &[0, UDP], &length, &ports, &length, payload]);
        // Zero would mean "no checksum".
        let sum = if sum == 0 { u16::MAX } else { sum }.to_be_bytes();
        [&ports, length.as_slice(), &sum, payload].concat()
    };
    match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let segment = segment(&[from.octets(), to.octets()].concat());
            Ok(ipv4(from, to, UDP, &segment))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let segment = segment(&[from.octets(), to.octets()].concat());
            Ok(ipv6(from, to, UDP, &segment))
        }
        _ => bail!("the addresses are of different families"),
    }
}

/// The Internet checksum over parts; all but the last must have an even length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u64 = words
        .map(|word| match *word {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [high] => u64::from(high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !wire_length(usize::try_from(sum).unwrap_or(usize::MAX))
}

/// Lengths over 64 KiB do not fit into a header; they become the largest value.
fn wire_length(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// A packet socket bound to one interface of the calling thread's namespace; with ethertype 0 it
/// receives nothing.
pub fn packet_socket(interface: &str, ethertype: u16) -> io::Result<Socket> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    // Opened with protocol 0: otherwise it would receive from every interface until `bind`.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    enable(&socket, libc::PACKET_IGNORE_OUTGOING)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the address types that the storage may hold, and any bit
    // pattern is one.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: the storage holds an initialised sockaddr_ll, and the length is that type's.
    let address = unsafe { SockAddr::new(storage, socklen::<libc::sockaddr_ll>()) };
    socket.bind(&address)?;
    Ok(socket)
}

/// A packet socket that sends frames preceded by a `virtio_net_hdr` and receives nothing.
pub(crate) fn offload_socket(interface: &str) -> io::Result<Socket> {
    let socket = packet_socket(interface, 0)?;
    enable(&socket, libc::PACKET_VNET_HDR)?;
    Ok(socket)
}

/// Frames that did not fit into a packet socket's receive buffer since the last call
/// (`PACKET_STATISTICS`, `tp_drops`). A frame that the socket's filter refuses is none of them.
pub fn buffer_drops(socket: &Socket) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = socklen::<libc::tpacket_stats>();
    // SAFETY: the option fills a tpacket_stats, and the pointers describe one and its length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(u64::from(statistics.tp_drops))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Enables an option of packet sockets.
fn enable(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, the pointer and the length describe `on`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            socklen::<libc::c_int>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_verify() {
        let ips: [Ipv4Addr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let packet = udp((ips[0].into(), 1), (ips[1].into(), 2), b"odd").unwrap();
        assert_eq!(packet.len(), 31);
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let pseudo = [&packet[12..20], &[0, 17, 0, 11]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
    }
}
