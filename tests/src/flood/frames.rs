//! The frames of a flood: whole, well-formed packets.
//!
//! A flooder sends either IPv4 or IPv6, so that it spends all of its share of conntrack on one
//! family; random frames are of both. The payload of every frame begins with [`MARK`]. The same seed gives the same frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use super::family::Family;
use crate::NetNs;
use crate::frame::{self, ethernet};
use crate::topology::Workload;

/// Marks the frames of a flood.
pub(super) const MARK: [u8; 8] = *b"rf-flood";

/// Ports that the flows of one family share out: the flooder's, from here.
const FIRST_PORT: u64 = 1024;
const PORTS: u64 = 64_000;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The interface that sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Flooder,
    Sink,
}

/// A frame to send.
pub(super) struct Frame {
    pub(super) from: From,
    /// Whether it goes to the workload that the flooders must not reach.
    pub(super) forbidden: bool,
    pub(super) bytes: Vec<u8>,
}

/// An end of flows: its addresses, and the Ethernet header of the frames that it sends.
#[derive(Clone)]
pub(super) struct Host {
    ips: [IpAddr; 2],
    /// Destination and source.
    macs: ([u8; 6], [u8; 6]),
}

impl Host {
    pub(super) fn of(workload: &Workload, node: &NetNs) -> Result<Self> {
        Ok(Self {
            ips: workload.ips(),
            macs: (
                frame::mac(node, &workload.interface)?,
                frame::mac(&workload.ns, "eth0")?,
            ),
        })
    }
}

/// Generates the frames of one flooder.
pub(super) struct Frames {
    family: Family,
    v6: bool,
    rng: Rng,
    flow: u64,
    flooder: Host,
    sink: Host,
    forbidden: [IpAddr; 2],
}

impl Frames {
    pub(super) const fn new(
        (family, v6): (Family, bool),
        seed: u64,
        [flooder, sink]: [Host; 2],
        forbidden: [IpAddr; 2],
    ) -> Self {
        Self {
            family,
            v6,
            rng: Rng::new(seed),
            flow: 0,
            flooder,
            sink,
            forbidden,
        }
    }

    /// The frames of the next flow, in order.
    pub(super) fn next_flow(&mut self) -> Result<Vec<Frame>> {
        if self.family == Family::Random {
            return Ok(vec![self.random()?]);
        }
        let (v6, number) = (self.v6, self.flow);
        self.flow += 1;
        let port = u16::try_from(FIRST_PORT + number % PORTS)?;
        let peer_port = u16::try_from(1 + number / PORTS % (FIRST_PORT - 1))?;
        let own = (at(self.flooder.ips, v6), port);
        let sink = (at(self.sink.ips, v6), peer_port);
        let itself = (own.0, peer_port);
        let datagram = |from: From, a, b| (from, frame::udp(a, b, &MARK));
        let segment = |from: From, a, b, flags| (from, segment(a, b, flags, &MARK));
        let packets = match self.family {
            Family::Random => Vec::new(),
            Family::OwnAddress => {
                let there = || datagram(From::Flooder, own, itself);
                let back = || datagram(From::Flooder, itself, own);
                vec![there(), back(), there(), back()]
            }
            Family::Unanswered if number & 1 == 1 => {
                vec![segment(From::Flooder, own, sink, SYN)]
            }
            Family::Unanswered | Family::OneWay => vec![datagram(From::Flooder, own, sink)],
            Family::HalfOpen => vec![
                segment(From::Flooder, own, sink, SYN),
                segment(From::Sink, sink, own, SYN | ACK),
            ],
            Family::Assured => {
                let there = || datagram(From::Flooder, own, sink);
                let back = || datagram(From::Sink, sink, own);
                vec![there(), back(), there(), back()]
            }
        };
        let frames = packets.into_iter().map(|(from, packet)| {
            Ok(Frame {
                from,
                forbidden: false,
                bytes: self.framed(from, v6, &packet?),
            })
        });
        frames.collect()
    }

    fn framed(&self, from: From, v6: bool, packet: &[u8]) -> Vec<u8> {
        let (to, own) = match from {
            From::Flooder => self.flooder.macs,
            From::Sink => self.sink.macs,
        };
        let ethertype = if v6 { frame::IPV6 } else { frame::IPV4 };
        ethernet(to, own, ethertype, packet)
    }

    fn random(&mut self) -> Result<Frame> {
        let bits = self.rng.next_u64();
        let v6 = bits & 1 == 1;
        let [from_port, to_port] = [bits >> 16, bits >> 32].map(|bits| (bits & 0xffff) as u16 | 1);
        let (to, allowed, forbidden) = match bits >> 1 & 3 {
            0 => (at(self.sink.ips, v6), true, false),
            1 => (at(self.forbidden, v6), false, true),
            _ => (unassigned(v6, bits >> 48), false, false),
        };
        let from = at(self.flooder.ips, v6);
        let payload = [MARK.as_slice(), &self.rng.next_u64().to_be_bytes()].concat();
        // The sink gets datagrams only; the other destinations also get TCP segments.
        let packet = if !allowed && bits >> 3 & 1 == 1 {
            let flags = if bits >> 4 & 1 == 1 { SYN } else { ACK };
            segment((from, from_port), (to, to_port), flags, &payload)?
        } else {
            frame::udp((from, from_port), (to, to_port), &payload)?
        };
        Ok(Frame {
            from: From::Flooder,
            forbidden,
            bytes: self.framed(From::Flooder, v6, &packet),
        })
    }
}

fn at([ip4, ip6]: [IpAddr; 2], v6: bool) -> IpAddr {
    if v6 { ip6 } else { ip4 }
}

/// A random number generator that is good enough for ports (xorshift64*, Vigna 2014).
struct Rng(u64);

impl Rng {
    const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    const fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A documentation address, which no workload has.
fn unassigned(v6: bool, bits: u64) -> IpAddr {
    let low = (bits & 0xff) as u8;
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, low.into()).into()
    } else {
        Ipv4Addr::new(203, 0, 113, low).into()
    }
}

/// A TCP segment.
fn segment(
    (from, from_port): (IpAddr, u16),
    (to, to_port): (IpAddr, u16),
    flags: u8,
    payload: &[u8],
) -> Result<Vec<u8>> {
    const TCP: u8 = 6;
    let header = |sum: u16| {
        [
            &from_port.to_be_bytes()[..],
            &to_port.to_be_bytes(),
            &[0; 8],
            &[0x50, flags, 0xff, 0xff],
            &sum.to_be_bytes(),
            &[0, 0],
            payload,
        ]
        .concat()
    };
    let bare = header(0);
    let length = u16::try_from(bare.len())?.to_be_bytes();
    let sum = |addresses: &[u8]| frame::checksum(&[addresses, &[0, TCP], &length, &bare]);
    match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let sum = sum(&[a.octets(), b.octets()].concat());
            Ok(frame::ipv4(a, b, TCP, &header(sum)))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let sum = sum(&[a.octets(), b.octets()].concat());
            Ok(frame::ipv6(a, b, TCP, &header(sum)))
        }
        _ => bail!("the addresses are of different families"),
    }
}
