//! Builds frames around transport payloads: headers as stacks send them, sometimes with options,
//! extension headers and padding.

use std::net::IpAddr;

use super::rng::Rng;

/// A frame and the offset of its transport header.
#[derive(Clone, Debug)]
pub(super) struct Crafted {
    pub(super) frame: Vec<u8>,
    /// Offset of the transport header.
    pub(super) transport: usize,
    /// What is special about it, for the failure message.
    pub(super) notes: Vec<&'static str>,
}

/// A fragment: offset in units of eight bytes, whether more follow, identification.
pub(super) type Fragment = (u16, bool, u32);

pub(super) const fn icmp_of(address: IpAddr) -> u8 {
    if address.is_ipv6() { 58 } else { 1 }
}

/// An IP packet in an Ethernet frame.
pub(super) fn packet(
    rng: &mut Rng,
    ends: (IpAddr, IpAddr),
    protocol: u8,
    payload: &[u8],
    fragment: Option<Fragment>,
) -> Crafted {
    let mut crafted = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            ipv4(rng, &addresses, protocol, payload, fragment)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            ipv6(rng, &addresses, protocol, payload, fragment)
        }
        _ => panic!("{ends:?} are of two families"),
    };
    if rng.chance(6) {
        let padding = rng.below(60);
        crafted.frame.extend(rng.bytes(padding));
        crafted.notes.push("padded");
    }
    crafted
}

fn ipv4(
    rng: &mut Rng,
    addresses: &[u8],
    protocol: u8,
    payload: &[u8],
    fragment: Option<Fragment>,
) -> Crafted {
    let mut notes = Vec::new();
    let mut options = Vec::new();
    if rng.chance(8) {
        let words = rng.pick(&[1, 2, 5, 10]);
        options = rng.bytes(4 * words);
        notes.push("options");
    }
    let header = 20 + options.len();
    let (offset, more, id) = fragment.unwrap_or((0, false, u32::from(rng.next_u16())));
    let field = offset | (u16::from(more) << 13);
    let mut frame = ethernet(0x0800);
    frame.push(0x40 | u8::try_from(header / 4).unwrap());
    frame.push(0);
    frame.extend(u16::try_from(header + payload.len()).unwrap().to_be_bytes());
    frame.extend(&id.to_be_bytes()[2..]);
    frame.extend(field.to_be_bytes());
    frame.extend([64, protocol, 0, 0]);
    frame.extend(addresses);
    frame.extend(options);
    let transport = frame.len();
    frame.extend(payload);
    Crafted {
        frame,
        transport,
        notes,
    }
}

fn ipv6(
    rng: &mut Rng,
    addresses: &[u8],
    protocol: u8,
    payload: &[u8],
    fragment: Option<Fragment>,
) -> Crafted {
    let mut notes = Vec::new();
    let mut kinds = Vec::new();
    if rng.chance(15) {
        notes.push("extension headers");
        let depth = rng.pick(&[1, 1, 2, 2, 3, 4, 7, 8, 9, 10]);
        kinds = (0..depth)
            .map(|_| rng.pick(&[60, 60, 60, 43, 51, 60]))
            .collect();
        if rng.chance(30) {
            kinds[0] = 0;
        }
        if rng.chance(10) {
            let place = rng.below(kinds.len());
            kinds[place] = rng.pick(&[0, 44, 43, 135]);
        }
    }
    if fragment.is_some() {
        kinds.push(44);
    }
    let mut chain = Vec::new();
    for (place, kind) in kinds.iter().enumerate() {
        let next = kinds.get(place + 1).copied().unwrap_or(protocol);
        let fragment = fragment.filter(|_| place + 1 == kinds.len());
        chain.extend(extension(rng, *kind, next, fragment));
    }
    let mut frame = ethernet(0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(
        u16::try_from(chain.len() + payload.len())
            .unwrap()
            .to_be_bytes(),
    );
    frame.extend([kinds.first().copied().unwrap_or(protocol), 255]);
    frame.extend(addresses);
    frame.extend(chain);
    let transport = frame.len();
    frame.extend(payload);
    Crafted {
        frame,
        transport,
        notes,
    }
}

fn extension(rng: &mut Rng, kind: u8, next: u8, fragment: Option<Fragment>) -> Vec<u8> {
    match kind {
        44 => {
            let (offset, more, id) = fragment.unwrap_or((0, false, 7));
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            [[next, 0, field[0], field[1]], id.to_be_bytes()].concat()
        }
        51 => {
            let words = rng.pick(&[1_u8, 2, 4]);
            let rest = rng.bytes(4 * usize::from(words) + 6);
            [&[next, words], rest.as_slice()].concat()
        }
        _ => {
            let words = rng.pick(&[0_u8, 0, 1, 3]);
            let mut header = rng.bytes(8 * (usize::from(words) + 1));
            (header[0], header[1]) = (next, words);
            // Routing type 0 is a fault of its own, and so are segments left.
            header[2] = if rng.chance(5) { 0 } else { 4 };
            header[3] = u8::from(rng.chance(5));
            header
        }
    }
}

pub(super) fn ethernet(kind: u16) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    let [to, from] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    [to.as_slice(), &from, &kind].concat()
}

pub(super) fn tcp(rng: &mut Rng, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let options = if rng.chance(20) { 4 * rng.below(11) } else { 0 };
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend(rng.bytes(8));
    let words = u8::try_from(5 + options / 4).unwrap();
    segment.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(rng.bytes(options));
    let data = if rng.chance(30) { rng.below(40) } else { 0 };
    segment.extend(rng.bytes(data));
    segment
}

pub(super) fn udp(rng: &mut Rng, ports: (u16, u16)) -> Vec<u8> {
    let data = rng.below(24);
    let length = u16::try_from(8 + data).unwrap();
    let mut datagram = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(rng.bytes(data));
    datagram
}

pub(super) fn sctp(rng: &mut Rng, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    let chunks = rng.below(16);
    packet.extend(rng.bytes(8 + chunks));
    packet
}

pub(super) fn icmp(rng: &mut Rng, kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let data = rng.below(16);
    let mut message = vec![kind, 0, 0, 0, high, low, 0, 1];
    message.extend(rng.bytes(data));
    message
}
