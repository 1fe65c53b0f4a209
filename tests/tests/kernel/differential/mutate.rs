//! Faults: one field of a valid frame gets a value that does not match its other fields.
//!
//! `BPF_PROG_TEST_RUN` refuses frames without a whole IP header, so none is cut that short.

use std::net::IpAddr;

use super::{craft::Crafted, rng::Rng};

const IP: usize = 14;

/// The shortest frame that a test run accepts.
pub(super) fn min_length(frame: &[u8]) -> usize {
    match frame[12..14] {
        [0x08, 0x00] => 34,
        [0x86, 0xdd] => 54,
        _ => 14,
    }
}

/// Pads a frame to a length that a test run accepts.
pub(super) fn pad(frame: &mut Vec<u8>) {
    let least = min_length(frame);
    if frame.len() < least {
        frame.resize(least, 0);
    }
}

/// Adds a fault; `addresses` are candidates for another address.
pub(super) fn mutate(rng: &mut Rng, crafted: &mut Crafted, addresses: &[IpAddr]) {
    let note = match crafted.frame[12..14] {
        [0x08, 0x00] => ipv4(rng, crafted, addresses),
        [0x86, 0xdd] => ipv6(rng, crafted, addresses),
        _ => anywhere(rng, &mut crafted.frame),
    };
    crafted.notes.push(note);
    pad(&mut crafted.frame);
}

fn ipv4(rng: &mut Rng, crafted: &mut Crafted, addresses: &[IpAddr]) -> &'static str {
    match rng.below(8) {
        0 => {
            let first = if rng.chance(50) {
                rng.pick(&[0x40, 0x44, 0x46, 0x4f, 0x55, 0x65])
            } else {
                rng.next_u8()
            };
            crafted.frame[IP] = first;
            "version or header length"
        }
        1 => {
            length(rng, crafted, IP + 2, 0);
            "total length"
        }
        2 => {
            let offset = rng.pick(&[0, 0, 1, 1, 2, 185, 0x1fff]);
            let field: u16 = offset | rng.pick(&[0, 0x2000, 0x4000, 0x8000]);
            set(&mut crafted.frame, IP + 6, &field.to_be_bytes());
            "fragment field"
        }
        3 => {
            crafted.frame[IP + 9] = rng.next_u8();
            "protocol"
        }
        4 => {
            address(rng, &mut crafted.frame, IP + 12, 4, addresses);
            "address"
        }
        _ => transport(rng, crafted),
    }
}

fn ipv6(rng: &mut Rng, crafted: &mut Crafted, addresses: &[IpAddr]) -> &'static str {
    match rng.below(8) {
        0 => {
            crafted.frame[IP] = rng.pick(&[0x40, 0x50, 0x60, 0x6f, 0x70, 0xf0]);
            "version"
        }
        1 => {
            length(rng, crafted, IP + 4, 40);
            "payload length"
        }
        2 => {
            crafted.frame[IP + 6] = if rng.chance(50) {
                rng.pick(&[0, 43, 44, 51, 59, 60, 135])
            } else {
                rng.next_u8()
            };
            "next header"
        }
        3 => {
            address(rng, &mut crafted.frame, IP + 8, 16, addresses);
            "address"
        }
        4 if crafted.transport > IP + 40 => {
            let place = IP + 40 + rng.below(crafted.transport - IP - 40);
            let byte = rng.pick(&[0, 1, 2, 4, 43, 44, 60, 6, 255]);
            put(&mut crafted.frame, place, byte);
            "a byte of an extension header"
        }
        5 => {
            crafted.frame[IP + 7] = rng.pick(&[0, 1, 64, 254, 255]);
            "hop limit"
        }
        _ => transport(rng, crafted),
    }
}

/// A length that is slightly wrong, very wrong, or zero. It does not include `header` bytes.
fn length(rng: &mut Rng, crafted: &mut Crafted, at: usize, header: usize) {
    let whole = crafted.frame.len() - IP - header;
    let wrong = match rng.below(6) {
        0 => 0,
        1 => whole + 1,
        2 => whole.saturating_sub(1),
        3 => rng.below(whole + 2),
        4 => (crafted.transport - IP - header) + rng.below(24),
        _ => usize::from(rng.next_u16()),
    };
    let wrong = u16::try_from(wrong).unwrap_or(u16::MAX);
    set(&mut crafted.frame, at, &wrong.to_be_bytes());
}

/// Another source or, less often, destination address.
fn address(rng: &mut Rng, frame: &mut [u8], at: usize, size: usize, known: &[IpAddr]) {
    let place = at + if rng.chance(75) { 0 } else { size };
    let special: &[&str] = if size == 4 {
        &[
            "0.0.0.0",
            "255.255.255.255",
            "127.0.0.1",
            "224.0.0.1",
            "169.254.1.1",
            "10.0.0.255",
            "198.51.100.7",
        ]
    } else {
        &[
            "::",
            "::1",
            "ff02::1",
            "ff02::1:2",
            "fe80::1",
            "fe80::2",
            "2001:db8::77",
            "::ffff:10.0.0.1",
        ]
    };
    let mut choices: Vec<IpAddr> = special.iter().map(|text| text.parse().unwrap()).collect();
    choices.extend(known.iter().filter(|ip| ip.is_ipv4() == (size == 4)));
    match rng.pick(&choices) {
        IpAddr::V4(address) => set(frame, place, &address.octets()),
        IpAddr::V6(address) => set(frame, place, &address.octets()),
    }
}

fn transport(rng: &mut Rng, crafted: &mut Crafted) -> &'static str {
    let (at, frame) = (crafted.transport, &mut crafted.frame);
    match rng.below(8) {
        0 => {
            put(frame, at + 13, rng.next_u8());
            "TCP flags"
        }
        1 => {
            put(frame, at + 12, rng.pick(&[0, 0x40, 0x50, 0x60, 0xf0]));
            "TCP offset"
        }
        2 => {
            put(frame, at + 4, rng.pick(&[0, 0, 0, 1]));
            put(frame, at + 5, rng.pick(&[0, 7, 8, 9, 12, 40, 255]));
            "UDP length"
        }
        3 => {
            put(frame, at, rng.next_u8());
            "type or port"
        }
        4 => {
            let port = rng.pick(&[0_u16, 53, 67, 80, 1024, 65535]);
            for (place, byte) in port.to_be_bytes().into_iter().enumerate() {
                put(frame, at + 2 + place, byte);
            }
            "destination port"
        }
        5 => {
            let length =
                min_length(frame) + rng.below(frame.len() + 1 - min_length(frame).min(frame.len()));
            frame.truncate(length);
            "truncated"
        }
        6 => {
            // Shortened, with a matching IP length.
            let rest = rng.below(26);
            if at + rest < frame.len() {
                frame.truncate((at + rest).max(min_length(frame)));
                let field = if frame[12] == 0x08 {
                    (IP + 2, at + rest - IP)
                } else {
                    (IP + 4, at + rest - IP - 40)
                };
                let bytes = u16::try_from(field.1).unwrap().to_be_bytes();
                set(frame, field.0, &bytes);
            }
            "shorter"
        }
        _ => anywhere(rng, frame),
    }
}

fn anywhere(rng: &mut Rng, frame: &mut [u8]) -> &'static str {
    let place = 12 + rng.below(frame.len() - 12);
    frame[place] = rng.next_u8();
    "any byte"
}

fn put(frame: &mut [u8], at: usize, byte: u8) {
    if let Some(place) = frame.get_mut(at) {
        *place = byte;
    }
}

fn set(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
}
