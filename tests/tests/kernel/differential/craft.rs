//! Frames around transport payloads: headers as stacks send them, with options, extension headers
//! and padding now and then.

use std::net::IpAddr;

use super::dice::Dice;

/// A frame, and where in it things are.
#[derive(Clone, Debug)]
pub(super) struct Crafted {
    pub(super) frame: Vec<u8>,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// What was done to it, for a reader.
    pub(super) notes: Vec<&'static str>,
}

/// Place of a fragment: offset in units of eight bytes, whether more follow, identification.
pub(super) type Piece = (u16, bool, u32);

pub(super) const fn icmp_of(address: IpAddr) -> u8 {
    if address.is_ipv6() { 58 } else { 1 }
}

/// A packet in its frame.
pub(super) fn packet(
    dice: &mut Dice,
    ends: (IpAddr, IpAddr),
    protocol: u8,
    payload: &[u8],
    piece: Option<Piece>,
) -> Crafted {
    let mut crafted = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            ipv4(dice, &addresses, protocol, payload, piece)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            ipv6(dice, &addresses, protocol, payload, piece)
        }
        _ => panic!("{ends:?} are of two families"),
    };
    if dice.often(6) {
        let padding = dice.below(60);
        crafted.frame.extend(dice.bytes(padding));
        crafted.notes.push("padded");
    }
    crafted
}

fn ipv4(
    dice: &mut Dice,
    addresses: &[u8],
    protocol: u8,
    payload: &[u8],
    piece: Option<Piece>,
) -> Crafted {
    let mut notes = Vec::new();
    let mut options = Vec::new();
    if dice.often(8) {
        let words = dice.pick(&[1, 2, 5, 10]);
        options = dice.bytes(4 * words);
        notes.push("options");
    }
    let header = 20 + options.len();
    let (offset, more, id) = piece.unwrap_or((0, false, u32::from(dice.short())));
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
    dice: &mut Dice,
    addresses: &[u8],
    protocol: u8,
    payload: &[u8],
    piece: Option<Piece>,
) -> Crafted {
    let mut notes = Vec::new();
    let mut kinds = Vec::new();
    if dice.often(15) {
        notes.push("extension headers");
        let depth = dice.pick(&[1, 1, 2, 2, 3, 4, 7, 8, 9, 10]);
        kinds = (0..depth)
            .map(|_| dice.pick(&[60, 60, 60, 43, 51, 60]))
            .collect();
        if dice.often(30) {
            kinds[0] = 0;
        }
        if dice.often(10) {
            let place = dice.below(kinds.len());
            kinds[place] = dice.pick(&[0, 44, 43, 135]);
        }
    }
    if piece.is_some() {
        kinds.push(44);
    }
    let mut chain = Vec::new();
    for (place, kind) in kinds.iter().enumerate() {
        let next = kinds.get(place + 1).copied().unwrap_or(protocol);
        let piece = piece.filter(|_| place + 1 == kinds.len());
        chain.extend(extension(dice, *kind, next, piece));
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

fn extension(dice: &mut Dice, kind: u8, next: u8, piece: Option<Piece>) -> Vec<u8> {
    match kind {
        44 => {
            let (offset, more, id) = piece.unwrap_or((0, false, 7));
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            [[next, 0, field[0], field[1]], id.to_be_bytes()].concat()
        }
        51 => {
            let words = dice.pick(&[1_u8, 2, 4]);
            let rest = dice.bytes(4 * usize::from(words) + 6);
            [&[next, words], rest.as_slice()].concat()
        }
        _ => {
            let words = dice.pick(&[0_u8, 0, 1, 3]);
            let mut header = dice.bytes(8 * (usize::from(words) + 1));
            (header[0], header[1]) = (next, words);
            // Type 0 of a routing header is a fault of its own.
            header[2] = if dice.often(5) { 0 } else { 4 };
            header
        }
    }
}

pub(super) fn ethernet(kind: u16) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    let [to, from] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    [to.as_slice(), &from, &kind].concat()
}

pub(super) fn tcp(dice: &mut Dice, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let options = if dice.often(20) {
        4 * dice.below(11)
    } else {
        0
    };
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend(dice.bytes(8));
    let words = u8::try_from(5 + options / 4).unwrap();
    segment.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(dice.bytes(options));
    let data = if dice.often(30) { dice.below(40) } else { 0 };
    segment.extend(dice.bytes(data));
    segment
}

pub(super) fn udp(dice: &mut Dice, ports: (u16, u16)) -> Vec<u8> {
    let data = dice.below(24);
    let length = u16::try_from(8 + data).unwrap();
    let mut datagram = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(dice.bytes(data));
    datagram
}

pub(super) fn sctp(dice: &mut Dice, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    let chunks = dice.below(16);
    packet.extend(dice.bytes(8 + chunks));
    packet
}

pub(super) fn icmp(dice: &mut Dice, kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let data = dice.below(16);
    let mut message = vec![kind, 0, 0, 0, high, low, 0, 1];
    message.extend(dice.bytes(data));
    message
}
