//! The frames of a flood: whole, well-formed packets with random tuples.
//!
//! Every frame's payload begins with [`MARK`]. The same seed gives the same frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use crate::frame::{self, ethernet};
use crate::topology::Workload;

/// Marks the frames of a flood.
pub(super) const MARK: [u8; 8] = *b"rf-flood";

/// The destination of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Sink,
    Forbidden,
    Unassigned,
}

/// A random number generator that is good enough for ports (xorshift64*, Vigna 2014).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Generates the frames.
pub(super) struct Frames {
    rng: Rng,
    from: [IpAddr; 2],
    sink: [IpAddr; 2],
    forbidden: [IpAddr; 2],
    /// Destination and source of the Ethernet header.
    macs: ([u8; 6], [u8; 6]),
}

impl Frames {
    pub(super) fn new(
        seed: u64,
        (flooder, gateway): (&Workload, [u8; 6]),
        sink: &Workload,
        forbidden: &Workload,
    ) -> Result<Self> {
        Ok(Self {
            rng: Rng::new(seed),
            from: flooder.ips(),
            sink: sink.ips(),
            forbidden: forbidden.ips(),
            macs: (gateway, frame::mac(&flooder.ns, "eth0")?),
        })
    }

    /// The next frame, with its destination.
    pub(super) fn next(&mut self) -> Result<(Target, Vec<u8>)> {
        let bits = self.rng.next_u64();
        let v6 = bits & 1 == 1;
        let target = match bits >> 1 & 3 {
            0 => Target::Sink,
            1 => Target::Forbidden,
            _ => Target::Unassigned,
        };
        let [from_port, to_port] = [bits >> 16, bits >> 32].map(|bits| (bits & 0xffff) as u16 | 1);
        let of = |addresses: [IpAddr; 2]| if v6 { addresses[1] } else { addresses[0] };
        let to = match target {
            Target::Sink => of(self.sink),
            Target::Forbidden => of(self.forbidden),
            Target::Unassigned => unassigned(v6, bits >> 48),
        };
        let from = of(self.from);
        let payload = [MARK.as_slice(), &self.rng.next_u64().to_be_bytes()].concat();
        // Only UDP to the sink is allowed; the other destinations also get TCP segments.
        let packet = if target != Target::Sink && bits >> 3 & 1 == 1 {
            segment(
                (from, from_port),
                (to, to_port),
                bits >> 4 & 1 == 1,
                &payload,
            )?
        } else {
            frame::udp((from, from_port), (to, to_port), &payload)?
        };
        let ethertype = if v6 { frame::IPV6 } else { frame::IPV4 };
        Ok((
            target,
            ethernet(self.macs.0, self.macs.1, ethertype, &packet),
        ))
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

/// A TCP segment: a SYN, or an ACK of no connection.
fn segment(
    (from, from_port): (IpAddr, u16),
    (to, to_port): (IpAddr, u16),
    opens: bool,
    payload: &[u8],
) -> Result<Vec<u8>> {
    const TCP: u8 = 6;
    let flags = if opens { 0x02 } else { 0x10 };
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
