//! Frames of neighbour and listener discovery: most are well-formed and go where they are of use, many
//! have one thing wrong.

use std::net::{IpAddr, Ipv6Addr};

use super::craft::{self, Crafted, ethernet};
use super::rng::Rng;
use super::stateless::{own6, way};
use super::traffic::Scope;
use crate::fence::Way::{self, *};

/// Derived from the source hardware address that [`ethernet`] uses.
pub(super) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2);
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A group of the link.
const fn group(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last)
}

/// A message of discovery, or one with a type that is close.
pub(super) fn discovery(rng: &mut Rng, scope: &Scope) -> (Way, Crafted) {
    let way = way(rng);
    let kind = rng.pick(&[
        135, 135, 135, 135, 136, 136, 136, 133, 133, 134, 137, 130, 131, 132, 143, 143, 138,
    ]);
    let mut crafted = match kind {
        130..=132 | 143 => listener(rng, scope, kind),
        _ => neighbour(rng, scope, way, kind),
    };
    crafted.notes.push("discovery");
    (way, crafted)
}

/// An address of a workload, or of a host near it.
fn any6(rng: &mut Rng, scope: &Scope) -> Ipv6Addr {
    let v6 = scope.all.iter().filter_map(|ip| match ip {
        IpAddr::V6(ip) => Some(*ip),
        IpAddr::V4(_) => None,
    });
    let choices: Vec<Ipv6Addr> = v6.collect();
    rng.pick(&choices)
}

/// The workload's link-local address, or a similar one.
fn link_local(rng: &mut Rng) -> Ipv6Addr {
    let mut octets = LINK_LOCAL.octets();
    if rng.chance(25) {
        let place = rng.below(16).max(2);
        octets[place] = rng.next_u8();
    }
    octets.into()
}

/// The group of the nodes whose addresses end as this one does.
fn solicited(target: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

fn neighbour(rng: &mut Rng, scope: &Scope, way: Way, kind: u8) -> Crafted {
    let (here, there) = (own6(rng, scope), any6(rng, scope));
    let (sender, receiver) = if way == Leaving {
        (here, there)
    } else {
        (there, here)
    };
    let source = match rng.below(10) {
        0..=5 => sender,
        6..=7 => link_local(rng),
        _ => Ipv6Addr::UNSPECIFIED,
    };
    let about_itself = kind == 136 || source.is_unspecified();
    let target = match rng.below(10) {
        0..=1 => link_local(rng),
        2..=7 if about_itself => sender,
        2..=7 => receiver,
        8 => rng.pick(&[group(1), solicited(here)]),
        _ => any6(rng, scope),
    };
    let useful = match kind {
        133 => group(2),
        135 if rng.chance(30) => target,
        135 => solicited(target),
        136 if rng.chance(50) => receiver,
        _ => group(1),
    };
    let destination = if rng.chance(75) {
        useful
    } else {
        let elsewhere = [group(1), group(2), group(0xfb), solicited(there), here];
        let [.., last] = elsewhere;
        match rng.below(3) {
            0 => link_local(rng),
            1 if rng.chance(30) => last,
            _ => rng.pick(&elsewhere),
        }
    };
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind == 136 {
        message[4] = rng.pick(&[0, 0x20, 0x40, 0x80, 0xa0, 0xe0]);
    }
    if kind != 133 {
        message.extend(target.octets());
    }
    if kind == 137 {
        message.extend(any6(rng, scope).octets());
    }
    message.extend(options(rng, kind));
    if rng.chance(10) {
        let place = 1 + rng.below(7);
        message[place] ^= 1 << rng.below(8);
    }
    if rng.chance(5) {
        let length = rng.below(message.len());
        message.truncate(length);
    }
    let fragment = rng.chance(3).then_some((0, true, 9));
    craft::packet(
        rng,
        (source.into(), destination.into()),
        58,
        &message,
        fragment,
    )
}

/// The options of a message, some of which it must not have.
fn options(rng: &mut Rng, kind: u8) -> Vec<u8> {
    let link = |kind: u8, hardware: [u8; 6]| [&[kind, 1], hardware.as_slice()].concat();
    let fitting = link(if kind == 136 { 2 } else { 1 }, HARDWARE);
    let nonce = link(14, [7; 6]);
    match rng.below(16) {
        0..=6 => Vec::new(),
        7..=9 => fitting,
        10 => [fitting, nonce].concat(),
        11 => nonce,
        12 => [fitting.clone(), fitting].concat(),
        13 => link(rng.pick(&[1, 2]), [2, 0, 0, 0, 0, rng.next_u8()]),
        14 => [link(1, HARDWARE), link(2, HARDWARE)].concat(),
        _ => {
            let kind = rng.pick(&[1, 2, 3, 5, 14, 25, 253]);
            let units = rng.pick(&[0, 1, 2, 3]);
            let rest = rng.bytes(8 * units.max(1) - 2);
            let units = u8::try_from(units).unwrap();
            [&[kind, units], rest.as_slice()].concat()
        }
    }
}

/// A report, the end of one, or a query.
fn listener(rng: &mut Rng, scope: &Scope, kind: u8) -> Crafted {
    let source = match rng.below(10) {
        0..=5 => link_local(rng),
        6..=8 => Ipv6Addr::UNSPECIFIED,
        _ => own6(rng, scope),
    };
    let about = solicited(own6(rng, scope));
    let destination = match rng.below(10) {
        0 => own6(rng, scope),
        1..=3 => about,
        4 => group(1),
        _ => group(0x16),
    };
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind == 143 {
        let records = rng.pick(&[1, 1, 2, 2, 3, 72, 73]);
        message[7] = records;
        for _ in 0..records {
            record(rng, &mut message, about);
        }
    } else {
        message.extend(about.octets());
        if kind == 130 && rng.chance(40) {
            let sources = rng.pick(&[0_u8, 0, 1, 3]);
            message.extend([2, 125, 0, sources]);
            message.extend(rng.bytes(16 * usize::from(sources)));
        }
    }
    match rng.below(16) {
        0 => message[1] = rng.next_u8(),
        1 => message[7] ^= 1,
        2 => {
            let length = rng.below(message.len());
            message.truncate(length);
        }
        3 => {
            let more = rng.pick(&[1, 4, 16, 20]);
            message.extend(rng.bytes(more));
        }
        _ => {}
    }
    with_router_alert(rng, (source, destination), &message)
}

fn record(rng: &mut Rng, message: &mut Vec<u8>, about: Ipv6Addr) {
    let sources = rng.pick(&[0_u8, 0, 0, 0, 0, 0, 1, 3]);
    let auxiliary = u8::from(rng.chance(2));
    message.extend([rng.pick(&[1, 2, 4]), auxiliary, 0, sources]);
    let group = if rng.chance(3) { LINK_LOCAL } else { about };
    message.extend(group.octets());
    message.extend(rng.bytes(16 * usize::from(sources) + 4 * usize::from(auxiliary)));
}

/// A listener message behind its hop-by-hop options.
fn with_router_alert(
    rng: &mut Rng,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    message: &[u8],
) -> Crafted {
    let mut options = match rng.below(4) {
        0 => vec![58, 0, 1, 0, 5, 2, 0, 0],
        1 => vec![58, 0, 5, 2, 0, 0, 0, 0],
        _ => vec![58, 0, 5, 2, 0, 0, 1, 0],
    };
    let mut first = 0;
    match rng.below(20) {
        0 => {
            let place = 1 + rng.below(7);
            options[place] = rng.pick(&[0, 1, 2, 5, 255]);
        }
        // Other headers of this length, which no router looks at.
        1 => first = rng.pick(&[43, 51, 60]),
        2 => (first, options) = (58, Vec::new()),
        _ => {}
    }
    let length = u16::try_from(options.len() + message.len()).unwrap();
    let mut frame = ethernet(0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([first, if rng.chance(5) { 255 } else { 1 }]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(&options);
    let transport = frame.len();
    frame.extend(message);
    if rng.chance(5) {
        let padding = rng.below(20);
        frame.extend(rng.bytes(padding));
    }
    Crafted {
        frame,
        transport,
        notes: vec!["router alert"],
    }
}
