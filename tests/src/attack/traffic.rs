//! Recorded real traffic, and its frames between other ends.
//!
//! Invariants: a frame that was recorded between [`CLIENT`] and [`SERVER`] keeps everything but its hardware
//! addresses, its IP addresses and its ports; checksums are not computed again, which the fence does not
//! look at. The file is written by [`super::recording`]; frames that are not IP between the two are left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use super::case::Offload;
use super::craft::{self, AFTER_IP6, IP};
use super::fixture::protocol;
use super::pcap;

/// The host that opened every flow.
pub const CLIENT: [IpAddr; 2] = ends(1);
/// The other one.
pub const SERVER: [IpAddr; 2] = ends(2);

const fn ends(last: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(198, 18, 0, last)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, last as u16)),
    ]
}

/// All recorded frames.
pub static FRAMES: LazyLock<Vec<Recorded>> = LazyLock::new(|| {
    let frames = pcap::read(include_bytes!("../../corpus/traffic.pcap"));
    frames.into_iter().filter_map(Recorded::new).collect()
});

/// The part of a packet that a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The fragment with the transport header.
    First,
    /// Another fragment.
    Later,
}

/// A recorded frame.
#[derive(Clone, Debug)]
pub struct Recorded {
    bytes: Vec<u8>,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Whether the host sent it that opened the flow.
    pub from_client: bool,
    /// Its transport protocol.
    pub protocol: u8,
    /// The part that it holds.
    pub part: Part,
    /// Where the transport header or its continuation starts.
    payload: usize,
}

impl Recorded {
    fn new(bytes: Vec<u8>) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let v6 = match word(12)? {
            0x0800 => false,
            0x86dd => true,
            _ => return None,
        };
        let source = if v6 {
            IpAddr::from(*bytes.get(IP + 8..)?.first_chunk::<16>()?)
        } else {
            IpAddr::from(*bytes.get(IP + 12..)?.first_chunk::<4>()?)
        };
        let from_client = CLIENT.contains(&source);
        if !from_client && !SERVER.contains(&source) {
            return None;
        }
        let (protocol, payload, offset) = if v6 {
            match *bytes.get(IP + 6)? {
                44 => (
                    *bytes.get(AFTER_IP6)?,
                    AFTER_IP6 + 8,
                    word(AFTER_IP6 + 2)? & !6,
                ),
                // Listener reports have a router alert.
                0 => return None,
                next => (next, AFTER_IP6, 0),
            }
        } else {
            let length = usize::from(*bytes.get(IP)? & 0xf) * 4;
            // Of flags and offset, all but "do not fragment".
            (*bytes.get(IP + 9)?, IP + length, word(IP + 6)? & 0x3fff)
        };
        let (more, at) = if v6 { (1, !7) } else { (0x2000, 0x1fff) };
        let part = match (offset & at, offset & more) {
            (0, 0) => Part::Whole,
            (0, _) => Part::First,
            _ => Part::Later,
        };
        let is_discovery = protocol == protocol::ICMPV6
            && part == Part::Whole
            && matches!(*bytes.get(payload)?, 130..=143);
        let recorded = Self {
            v6,
            from_client,
            protocol,
            part,
            payload,
            bytes,
        };
        (!is_discovery).then_some(recorded)
    }

    /// Whether its packet has ports, and it holds them.
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol, protocol::TCP | protocol::UDP) && !matches!(self.part, Part::Later)
    }

    /// The frame between other ends, with other ports if it holds ports.
    #[must_use]
    pub fn between(&self, from: IpAddr, to: IpAddr, ports: (u16, u16)) -> Vec<u8> {
        let mut frame = craft::ethernet(craft::ethertype_of(from), &[]);
        frame.extend(self.bytes.iter().skip(IP));
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                craft::write(&mut frame, IP + 12, &from.octets());
                craft::write(&mut frame, IP + 16, &to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                craft::write(&mut frame, IP + 8, &from.octets());
                craft::write(&mut frame, IP + 24, &to.octets());
            }
            // Ends of two families; no test asks for them.
            _ => {}
        }
        if self.has_ports() {
            craft::write(&mut frame, self.payload, &ports.0.to_be_bytes());
            craft::write(&mut frame, self.payload + 2, &ports.1.to_be_bytes());
        }
        frame
    }

    /// How the kernel is asked to segment it, if it was recorded before that.
    #[must_use]
    pub fn offload(&self) -> Option<Offload> {
        /// `VIRTIO_NET_HDR_GSO_…`.
        const TCPV4: u8 = 1;
        const TCPV6: u8 = 4;
        const UDP_L4: u8 = 5;
        let (kind, header, checksum, segment) = match self.protocol {
            protocol::TCP => {
                let words = self
                    .bytes
                    .get(self.payload + 12)
                    .map_or(5, |byte| byte >> 4);
                let kind = if self.v6 { TCPV6 } else { TCPV4 };
                (kind, usize::from(words) * 4, 16, 1400)
            }
            protocol::UDP => (UDP_L4, 8, 6, 500),
            _ => return None,
        };
        let headers = self.payload + header;
        let is_segmented = self.part == Part::Whole && self.bytes.len() > headers + segment;
        Some(Offload {
            segment: u16::try_from(segment).ok()?,
            kind,
            headers: u16::try_from(headers).ok()?,
            checksum: Some((u16::try_from(self.payload).ok()?, checksum)),
        })
        .filter(|_| is_segmented)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_traffic_is_recorded() {
        for v6 in [false, true] {
            let all = || FRAMES.iter().filter(move |frame| frame.v6 == v6);
            let icmp = craft::icmp_of(v6);
            for protocol in [protocol::TCP, protocol::UDP, icmp] {
                for from_client in [false, true] {
                    let found =
                        |it: &Recorded| (it.protocol, it.from_client) == (protocol, from_client);
                    assert!(all().any(found), "{protocol} {from_client} v6 {v6}");
                }
            }
            for part in [Part::Whole, Part::First, Part::Later] {
                let jumbo = all().any(|it| it.part == part && it.bytes.len() > 5000);
                assert!(jumbo, "{part:?} v6 {v6}");
            }
            for protocol in [protocol::TCP, protocol::UDP] {
                let segmented = |it: &Recorded| it.protocol == protocol && it.offload().is_some();
                assert!(all().any(segmented), "{protocol} v6 {v6}");
            }
        }
    }

    #[test]
    fn a_frame_gets_other_ends() {
        for frame in FRAMES.iter() {
            let place = usize::from(frame.v6);
            let [from, to] = [CLIENT, SERVER].map(|end| end.get(place).copied());
            let (from, to) = (from.unwrap(), to.unwrap());
            let moved = frame.between(from, to, (1, 2));
            assert_eq!(moved.len(), frame.bytes.len());
            let again = Recorded::new(moved).unwrap();
            assert!(again.from_client);
            assert_eq!((again.protocol, again.part), (frame.protocol, frame.part));
        }
    }
}
